"""The 45 YAML blocks of the documentation that we follow (spec §7), in structure; the names are our own."""

from __future__ import annotations

LATER = "is known, and not supported yet"
LATER_TYPE = f"component type `{{}}` {LATER}"
FRAGMENT = "`peft_adapters` belongs in a component"

#: number of the block -> the block, and what is told of it now
BLOCKS: dict[int, tuple[str, tuple[str, ...]]] = {
    1: (
        """
component:
  type: model
  task: text-generation
  model: someone/novelist-7b
""",
        (),
    ),
    2: (
        """
component:
  type: model
  task: text-generation
  driver: unsloth
  model: someone/novelist-bnb-4bit
""",
        (f"driver `unsloth` {LATER}",),
    ),
    3: (
        """
component:
  type: model
  task: text-generation
  model:
    provider: local
    path: /srv/novelist
    format: pytorch
""",
        (),
    ),
    4: (
        """
component:
  type: model
  task: text-generation
  driver: llamacpp
  model:
    provider: local
    path: /srv/novelist-7b-chat.Q4_K_M.gguf
    format: gguf
""",
        (),
    ),
    5: (
        """
component:
  type: model
  task: text-generation
  model: someone/novelist-7b
  # fetched from the hub
""",
        (),
    ),
    6: (
        """
component:
  type: model
  task: text-generation
  model:
    provider: huggingface
    repository: someone/novelist-7b
    revision: main                  # a branch
    filename: pytorch_model.bin     # one file
    cache_dir: /srv/cache
    local_files_only: false
    token: ${env.HUB_TOKEN}         # not set anywhere
""",
        (),
    ),
    7: (
        """
component:
  type: model
  task: text-generation
  model: /srv/novelist
""",
        (),
    ),
    8: (
        """
component:
  type: model
  task: text-generation
  model:
    provider: local
    path: /srv/novelist
    format: pytorch
""",
        (),
    ),
    9: (
        """
component:
  type: model
  task: chat-completion
  model: someone/talker-7b
""",
        (),
    ),
    10: (
        """
component:
  type: model
  task: text-generation
  model:
    provider: huggingface
    repository: someone/novelist-7b
    token: ${env.HUB_TOKEN}
""",
        (),
    ),
    11: (
        """
component:
  type: model
  task: text-generation
  model:
    provider: huggingface
    repository: someone/novelist-7b
    revision: v2.1
""",
        (),
    ),
    12: (
        """
component:
  type: model
  task: text-generation
  model:
    provider: huggingface
    repository: novelist
    local_files_only: true
""",
        (),
    ),
    13: (
        """
component:
  type: model
  task: text-generation
  model: someone/novelist-3b
  text: ${input.beginning as text}
  params:
    max_output_length: 32768
    temperature: 0.7
    top_p: 0.9
""",
        (),
    ),
    14: (
        """
component:
  type: model
  task: chat-completion
  model: someone/talker-3b
  messages:
    - role: system
      content: ${input.character}
    - role: user
      content: ${input.question}
  params:
    max_output_length: 2048
    temperature: 0.7
""",
        (),
    ),
    15: (
        """
component:
  type: model
  task: text-classification
  model: someone/mood
  text: ${input.review as text}
  output:
    label: ${result.label}
    score: ${result.score}
""",
        (),
    ),
    16: (
        """
component:
  type: model
  task: text-embedding
  model: someone/vectors
  text: ${input.sentence as text}
  output:
    embedding: ${result.embedding}
""",
        (),
    ),
    17: (
        """
workflow:
  title: Find a recipe
  jobs:
    - id: vectorise
      component: vectors
      input:
        text: ${input.dish}
      output:
        dish_vector: ${result.embedding}

    - id: find
      component: recipes
      action: search
      input:
        vector: ${jobs.vectorise.output.dish_vector}
        top_k: 5
""",
        (
            "there is no component `vectors`",
            "there is no component `recipes`",
        ),
    ),
    18: (
        """
component:
  type: model
  task: image-to-text
  model: someone/captions
  architecture: blip
  image: ${input.photo as image}
  prompt: ${input.beginning as text}
""",
        (),
    ),
    19: (
        """
component:
  type: model
  task: image-generation
  architecture: flux
  model: someone/painter
  prompt: ${input.scene as text}
  params:
    width: 1024
    height: 1024
    num_inference_steps: 50
""",
        (),
    ),
    20: (
        """
component:
  type: model
  task: image-upscale
  architecture: real-esrgan
  model: Sharper_x4
  image: ${input.photo as image}
  params:
    scale: 4
""",
        (),
    ),
    21: (
        """
component:
  type: model
  task: face-embedding
  model: faces
  image: ${input.photo as image}
""",
        (),
    ),
    22: (
        """
component:
  type: model
  task: text-generation
  model: novelist
  device: cuda         # or another
  device_mode: single  # or all
""",
        (),
    ),
    23: (
        """
component:
  type: model
  task: text-generation
  model: someone/novelist-70b
  device: cuda
  device_mode: auto
""",
        (),
    ),
    24: (
        """
component:
  type: model
  task: text-generation
  model: someone/novelist-7b
  precision: float16
""",
        (),
    ),
    25: (
        """
component:
  type: model
  task: text-generation
  model: someone/novelist-7b
  quantization: int8
""",
        (),
    ),
    26: (
        """
component:
  type: model
  task: text-classification
  model: mood
  batch_size: 32
""",
        (),
    ),
    27: (
        """
component:
  type: model
  task: text-generation
  model: someone/novelist-70b
  low_cpu_mem_usage: true
  device: cuda
""",
        (),
    ),
    28: (
        """
component:
  type: model
  task: text-generation
  model: someone/novelist-7b
  peft_adapters:
    - type: lora
      name: pirate
      model: someone/pirate-lora-7b
      weight: 1.0
  text: ${input.beginning as text}
""",
        (),
    ),
    29: (
        """
component:
  type: model
  task: text-generation
  model:
    provider: huggingface
    repository: someone/novelist-7b
    token: ${env.HUB_TOKEN}
  peft_adapters:
    - type: lora
      name: pirate
      model: someone/pirate-lora-7b
      weight: 0.7
    - type: lora
      name: poet
      model: other/poet-lora-7b
      weight: 0.8
  text: ${input.beginning as text}
""",
        (),
    ),
    30: (
        """
peft_adapters:
  - type: lora
    name: style
    model: me/style-lora
    weight: 0.5  # half of it
""",
        (FRAGMENT,),
    ),
    31: (
        """
peft_adapters:
  - type: lora
    name: mine
    model:
      provider: local
      path: /srv/adapters/mine
    weight: 1.0
""",
        (FRAGMENT,),
    ),
    32: (
        """
peft_adapters:
- type: lora
  name: law
  model: me/law-lora-7b
  weight: 1.0
""",
        (FRAGMENT,),
    ),
    33: (
        """
# two styles at once
peft_adapters:
  - type: lora
    name: formal
    model: me/formal-lora
    weight: 0.6
  - type: lora
    name: terse
    model: me/terse-lora
    weight: 0.4
""",
        (FRAGMENT,),
    ),
    34: (
        """
peft_adapters:
- type: lora
  name: 한국어
  model: me/korean-lora
  weight: 1.0
""",
        (FRAGMENT,),
    ),
    35: (
        """
component:
  type: http-server
  manage:
    install:
      - bash
      - -c
      - |
        python -m venv engine &&
        engine/bin/pip install engine
    start:
      - bash
      - -c
      - |
        engine/bin/serve
          --model talker
          --port 8000
  port: 8000
  method: POST
  path: /v1/chat/completions
  headers:
    Content-Type: application/json
  body:
    model: talker
    messages:
      - role: user
        content: ${input.question as text}
    max_tokens: 512
    temperature: ${input.temperature as number | 0.7}
    streaming: true
  stream_format: json
  output: ${response[].choices[0].delta.content}
""",
        (LATER_TYPE.format("http-server"),),
    ),
    36: (
        """
component:
  type: http-server
  manage:
    install: [bash, -c, "fetch engine"]
    start: [ engine, serve ]
  port: 11434
  method: POST
  path: /api/generate
  headers:
    Content-Type: application/json
  body:
    model: novelist
    prompt: ${input.question as text}
    stream: false
  output:
    response: ${response.response}
""",
        (LATER_TYPE.format("http-server"),),
    ),
    37: (
        """
component:
  type: http-server
  manage:
    start: [ engine, serve ]
  port: 11434
  method: POST
  path: /api/generate
  body: {model: novelist, prompt: "${input.question as text}", stream: true}
  stream_format: json
  output: ${response[].response}
""",
        (LATER_TYPE.format("http-server"),),
    ),
    38: (
        """
component:
  type: http-server
  manage:
    start: [ engine, serve ]
  port: 11434
  method: POST
  path: /api/chat
  body:
    model: talker
    messages: ${input.conversation}
  output:
    message: ${response.message.content}
""",
        (LATER_TYPE.format("http-server"),),
    ),
    39: (
        """
component:
  type: http-client
  endpoint: http://localhost:11434/api/generate
  method: POST
  body:
    model: novelist
    prompt: ${input.question as text}
  output:
    response: ${response.response}
""",
        (LATER_TYPE.format("http-client"),),
    ),
    40: (
        """
component:
  type: http-client
  endpoint: http://localhost:8080/generate
  method: POST
  headers:
    Content-Type: application/json
  body:
    inputs: ${input.question as text}
    parameters: {max_new_tokens: 512, temperature: 0.7}
  output:
    text: ${response.generated_text}
""",
        (LATER_TYPE.format("http-client"),),
    ),
    41: (
        """
# with a GPU
component:
  type: model
  model: large
  precision: float16
  device: cuda

# without
component:
  type: model
  model: small
  precision: float32
  device: cpu
""",
        ("the key `component` stands twice in one map",),
    ),
    42: (
        """
component:
  type: model
  model: someone/novelist-13b
  quantization: int8
  device: cuda
""",
        (),
    ),
    43: (
        """
component:
  type: model
  task: text-classification
  model: plain-bert
  batch_size: 32
""",
        (),
    ),
    44: (
        """
component:
  type: model
  model:
    provider: huggingface
    repository: novelist
    cache_dir: /srv/fast
""",
        (),
    ),
    45: (
        """
component:
  type: model
  task: text-generation
  model: someone/novelist-70b
  device: cuda
  device_mode: auto
""",
        (),
    ),
}
