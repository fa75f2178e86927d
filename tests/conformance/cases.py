"""What does each YAML block of the documentation that we follow show, and how is it tested here?

The blocks name the models that the documentation names. What cannot be had here (large, private or
elsewhere) has a stand-in of the same kind under the same name, so that the block is run as it stands; the
paths in it are the only thing that changes. `scripts/reference.py` makes a page of this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

How = Literal["run", "run on a stand-in", "checked up to the plan"]

RUN: Final = "run"
STAND_IN: Final = "run on a stand-in"
PLAN: Final = "checked up to the plan"

_LLAMA: Final = "a toy Llama under this name"


@dataclass(frozen=True)
class Case:
    """One block.

    shows  what it promises
    how    how far the promise is tested here
    note   what stands in for what, and what a reader may stumble over
    """

    number: int
    shows: str
    how: How
    note: str
    text: str


def _table(*cases: Case) -> Mapping[int, Case]:
    return MappingProxyType({case.number: case for case in cases})


CASES: Final = _table(
    Case(
        1,
        "text-generation by the name of a repository",
        STAND_IN,
        f"{_LLAMA}; a bare string as input is the prompt",
        """
component:
  type: model
  task: text-generation
  model: meta-llama/Llama-2-7b-hf
  # the driver is huggingface
""",
    ),
    Case(
        2,
        "`driver: unsloth`",
        STAND_IN,
        "a toy Llama of 4 bits, and Unsloth in an environment of its own, on the CPU; where it is not there, "
        "the error names `driver: huggingface`",
        """
component:
  type: model
  task: text-generation
  driver: unsloth  # and no other
  model: unsloth/llama-2-7b-bnb-4bit
""",
    ),
    Case(
        3,
        "a folder on this machine, `format: pytorch`",
        STAND_IN,
        "a toy Llama in another folder, as PyTorch weights; safetensors load too",
        """
component:
  type: model
  task: text-generation
  model:
    provider: local
    path: /path/to/model
    format: pytorch
""",
    ),
    Case(
        4,
        "a GGUF file with llama.cpp",
        STAND_IN,
        "a toy Llama in another folder",
        """
component:
  type: model
  task: text-generation
  driver: llamacpp
  model:
    provider: local
    path: /models/llama-2-7b-chat.Q4_K_M.gguf
    format: gguf
""",
    ),
    Case(
        5,
        "a model that comes from the hub by itself",
        STAND_IN,
        f"{_LLAMA}",
        """
component:
  type: model
  task: text-generation
  model: meta-llama/Llama-2-7b-hf
  # comes from the Hugging Face hub
""",
    ),
    Case(
        6,
        "every key of a source on the hub",
        STAND_IN,
        f"{_LLAMA}; another `cache_dir`; the token is not set, which is a warning",
        """
component:
  type: model
  task: text-generation
  model:
    provider: huggingface
    repository: meta-llama/Llama-2-7b-hf
    revision: main                  # a branch or a commit
    filename: pytorch_model.bin     # one file
    cache_dir: /custom/cache        # where it is kept
    local_files_only: false         # only what is there already
    token: ${env.HUGGINGFACE_TOKEN} # for private models
""",
    ),
    Case(
        7,
        "a path as text",
        STAND_IN,
        "a toy Llama in another folder; as it stands, the error says that the path is missing",
        """
component:
  type: model
  task: text-generation
  model: /path/to/model
  # a path, because it begins with /
""",
    ),
    Case(
        8,
        "a local source as a map",
        STAND_IN,
        "as 3",
        """
component:
  type: model
  task: text-generation
  model:
    provider: local
    path: /path/to/model
    format: pytorch  # pytorch, safetensors, onnx, gguf, tensorrt
""",
    ),
    Case(
        9,
        "chat-completion, downloaded at the first start",
        STAND_IN,
        "a toy Llama with a chat template under this name; `messages` or a bare string",
        """
component:
  type: model
  task: chat-completion
  model: meta-llama/Llama-2-7b-chat-hf
  # comes to ~/.cache/huggingface/ at the first start
""",
    ),
    Case(
        10,
        "a private repository",
        STAND_IN,
        f"{_LLAMA} that only one token may read; the token is in no error and no log",
        """
component:
  type: model
  task: text-generation
  model:
    provider: huggingface
    repository: meta-llama/Llama-2-7b-hf
    token: ${env.HUGGINGFACE_TOKEN}
""",
    ),
    Case(
        11,
        "a version of a model",
        STAND_IN,
        "two versions of a repository, weights and tokenizer of the named one are loaded",
        """
component:
  type: model
  task: text-generation
  model:
    provider: huggingface
    repository: meta-llama/Llama-2-7b-hf
    revision: v1.0  # a tag
    # or a commit: revision: a1b2c3d4
""",
    ),
    Case(
        12,
        "no network",
        STAND_IN,
        "a toy GPT-2 that is in the cache; without it, the error says that it may not be fetched",
        """
component:
  type: model
  task: text-generation
  model:
    provider: huggingface
    repository: gpt2
    local_files_only: true  # only from the cache
""",
    ),
    Case(
        13,
        "text and parameters",
        STAND_IN,
        "a toy Llama under this name; 32768 tokens are more than its context, which is where it stops",
        """
component:
  type: model
  task: text-generation
  model: HuggingFaceTB/SmolLM3-3B
  text: ${input.prompt as text}
  params:
    max_output_length: 32768
    temperature: 0.7
    top_p: 0.9
""",
    ),
    Case(
        14,
        "a conversation with a system message",
        STAND_IN,
        "a toy Llama under this name; without a system prompt, there is no system message",
        """
component:
  type: model
  task: chat-completion
  model: HuggingFaceTB/SmolLM3-3B
  messages:
    - role: system
      content: ${input.system_prompt}
    - role: user
      content: ${input.user_prompt}
  params:
    max_output_length: 2048
    temperature: 0.7
""",
    ),
    Case(
        15,
        "label and score of a text",
        STAND_IN,
        "a toy DistilBERT under this name; labels are those of its configuration",
        """
component:
  type: model
  task: text-classification
  model: distilbert-base-uncased-finetuned-sst-2-english
  text: ${input.text as text}
  output:
    label: ${result.label}
    score: ${result.score}
""",
    ),
    Case(
        16,
        "the embedding of a text",
        RUN,
        "the real model: 384 numbers, compared with sentence-transformers",
        """
component:
  type: model
  task: text-embedding
  model: sentence-transformers/all-MiniLM-L6-v2
  text: ${input.text as text}
  output:
    embedding: ${result.embedding}
""",
    ),
    Case(
        17,
        "a search for documents: embed, then look up",
        RUN,
        "with the two components that it names, the real MiniLM and the built-in store; "
        "without them, an error for each",
        """
workflow:
  title: Document Search
  jobs:
    - id: embed-query
      component: embedder
      input:
        text: ${input.query}
      output:
        query_vector: ${result.embedding}

    - id: search
      component: vector-store
      action: search
      input:
        vector: ${jobs.embed-query.output.query_vector}
        top_k: 5
""",
    ),
    Case(
        18,
        "a caption that begins as one likes",
        STAND_IN,
        "a toy BLIP under this name; without a prompt the caption begins anywhere",
        """
component:
  type: model
  task: image-to-text
  model: Salesforce/blip-image-captioning-large
  architecture: blip
  image: ${input.image as image}
  prompt: ${input.prompt as text}
""",
    ),
    Case(
        19,
        "an image of 1024 by 1024 in 50 steps",
        STAND_IN,
        "a toy Flux under this name, which paints noise; run with two steps, and smaller, planned with all",
        """
component:
  type: model
  task: image-generation
  architecture: flux
  model: black-forest-labs/FLUX.1-dev
  prompt: ${input.prompt as text}
  params:
    width: 1024
    height: 1024
    num_inference_steps: 50
""",
    ),
    Case(
        20,
        "an image four times as large",
        STAND_IN,
        "a toy network under the known name",
        """
component:
  type: model
  task: image-upscale
  architecture: real-esrgan
  model: RealESRGAN_x4plus
  image: ${input.image as image}
  params:
    scale: 4
""",
    ),
    Case(
        21,
        "embeddings of faces",
        STAND_IN,
        "toy networks under the known name of the pack",
        """
component:
  type: model
  task: face-embedding
  model: buffalo_l
  image: ${input.image as image}
""",
    ),
    Case(
        22,
        "one GPU",
        PLAN,
        "without a GPU the component fails, and says what there is",
        """
component:
  type: model
  task: text-generation
  model: gpt2
  device: cuda         # cuda, cpu, mps
  device_mode: single  # single, auto
""",
    ),
    Case(
        23,
        "a model over several GPUs",
        PLAN,
        "the driver is told `device_mode: auto`",
        """
component:
  type: model
  task: text-generation
  model: meta-llama/Llama-2-70b-hf
  device: cuda
  device_mode: auto  # over all GPUs
""",
    ),
    Case(
        24,
        "half precision",
        STAND_IN,
        f"{_LLAMA}, on a CPU",
        """
component:
  type: model
  task: text-generation
  model: meta-llama/Llama-2-7b-hf
  precision: float16  # auto, float32, float16, bfloat16
""",
    ),
    Case(
        25,
        "weights of eight bits",
        STAND_IN,
        f"{_LLAMA}; it says that it is quantized, and takes less memory",
        """
component:
  type: model
  task: text-generation
  model: meta-llama/Llama-2-7b-hf
  quantization: int8  # none, int8, int4, nf4
""",
    ),
    Case(
        26,
        "32 rows in one batch",
        STAND_IN,
        "a toy DistilBERT under this name; callers who come together share a batch",
        """
component:
  type: model
  task: text-classification
  model: distilbert-base-uncased
  batch_size: 32  # rows at once
""",
    ),
    Case(
        27,
        "loading with little memory",
        PLAN,
        "the driver is told `low_cpu_mem_usage`",
        """
component:
  type: model
  task: text-generation
  model: meta-llama/Llama-2-70b-hf
  low_cpu_mem_usage: true  # no second copy
  device: cuda
""",
    ),
    Case(
        28,
        "a LoRA adapter",
        STAND_IN,
        f"{_LLAMA}, and an adapter that makes it say one word only",
        """
component:
  type: model
  task: text-generation
  model: meta-llama/Llama-2-7b-hf
  peft_adapters:
    - type: lora
      name: alpaca
      model: tloen/alpaca-lora-7b
      weight: 1.0
  text: ${input.prompt as text}
""",
    ),
    Case(
        29,
        "two LoRA adapters at once",
        STAND_IN,
        f"{_LLAMA}, and two adapters; the blend is compared with weights that are merged by hand",
        """
component:
  type: model
  task: text-generation
  model:
    provider: huggingface
    repository: meta-llama/Llama-2-7b-hf
    token: ${env.HUGGINGFACE_TOKEN}
  peft_adapters:
    - type: lora
      name: alpaca
      model: tloen/alpaca-lora-7b
      weight: 0.7
    - type: lora
      name: assistant
      model: plncmm/guanaco-lora-7b
      weight: 0.8
  text: ${input.prompt as text}
""",
    ),
    Case(
        30,
        "half of an adapter",
        STAND_IN,
        "pasted into a component; by itself, the error says where it belongs",
        """
peft_adapters:
  - type: lora
    name: style-adapter
    model: user/style-lora
    weight: 0.5  # half of it
""",
    ),
    Case(
        31,
        "an adapter on this machine",
        STAND_IN,
        "as 30, with another path",
        """
peft_adapters:
  - type: lora
    name: custom-lora
    model:
      provider: local
      path: /path/to/lora/adapter
    weight: 1.0
""",
    ),
    Case(
        32,
        "an adapter for a domain",
        STAND_IN,
        "as 30",
        """
# a model that knows medicine
peft_adapters:
  - type: lora
    name: medical
    model: medalpaca/medalpaca-lora-7b
    weight: 1.0
""",
    ),
    Case(
        33,
        "a mix of two styles",
        STAND_IN,
        "as 30",
        """
# two styles of writing
peft_adapters:
  - type: lora
    name: formal
    model: user/formal-writing-lora
    weight: 0.6
  - type: lora
    name: technical
    model: user/technical-lora
    weight: 0.4
""",
    ),
    Case(
        34,
        "an adapter for a language",
        STAND_IN,
        "as 30",
        """
# better Korean
peft_adapters:
  - type: lora
    name: korean
    model: beomi/llama-2-ko-7b-lora
    weight: 1.0
""",
    ),
    Case(
        35,
        "a managed vLLM, streamed",
        STAND_IN,
        "llama.cpp's own server in the place of vLLM (the command, the model and the port are others); the "
        "lines of `start` are one command, and `streaming` in the body is sent as `stream`",
        """
component:
  type: http-server
  manage:
    install:
      - bash
      - -c
      - |
        eval "$(pyenv init -)" &&
        (pyenv activate vllm 2>/dev/null || pyenv virtualenv $(python --version | cut -d' ' -f2) vllm) &&
        pyenv activate vllm &&
        pip install vllm
    start:
      - bash
      - -c
      - |
        eval "$(pyenv init -)" &&
        pyenv activate vllm &&
        python -m vllm.entrypoints.openai.api_server
          --model Qwen/Qwen2-7B-Instruct
          --port 8000
          --served-model-name qwen2-7b-instruct
          --max-model-len 2048
  port: 8000
  method: POST
  path: /v1/chat/completions
  headers:
    Content-Type: application/json
  body:
    model: qwen2-7b-instruct
    messages:
      - role: user
        content: ${input.prompt as text}
    max_tokens: 512
    temperature: ${input.temperature as number | 0.7}
    streaming: true
  stream_format: json
  output: ${response[].choices[0].delta.content}
""",
    ),
    Case(
        36,
        "a managed Ollama, installed first",
        STAND_IN,
        "a program named `ollama` that speaks its protocol, and another port; `ollama pull` during the "
        "installation needs a server that is not there yet, so it is done again after the start",
        """
component:
  type: http-server
  manage:
    install:
      - bash
      - -c
      - |
        # macOS/Linux
        curl -fsSL https://ollama.ai/install.sh | sh
        # the weights
        ollama pull llama2
    start: [ ollama, serve ]
  port: 11434
  method: POST
  path: /api/generate
  headers:
    Content-Type: application/json
  body:
    model: llama2
    prompt: ${input.prompt as text}
    stream: false
  output:
    response: ${response.response}
""",
    ),
    Case(
        37,
        "a managed Ollama, streamed",
        STAND_IN,
        "as 36; a body without headers is JSON, and a stream of NDJSON becomes pieces",
        """
component:
  type: http-server
  manage:
    start: [ ollama, serve ]
  port: 11434
  method: POST
  path: /api/generate
  body:
    model: llama2
    prompt: ${input.prompt as text}
    stream: true
  stream_format: json
  output: ${response[].response}
""",
    ),
    Case(
        38,
        "a managed Ollama, chat",
        STAND_IN,
        "as 36; Ollama streams unless it is told not to, so what `output` names is joined over all lines",
        """
component:
  type: http-server
  manage:
    start: [ ollama, serve ]
  port: 11434
  method: POST
  path: /api/chat
  body:
    model: llama2
    messages: ${input.messages}
  output:
    message: ${response.message.content}
""",
    ),
    Case(
        39,
        "an Ollama that runs already",
        STAND_IN,
        "a server that speaks its protocol on another port; as 38",
        """
component:
  type: http-client
  endpoint: http://localhost:11434/api/generate
  method: POST
  body:
    model: llama2
    prompt: ${input.prompt as text}
  output:
    response: ${response.response}
""",
    ),
    Case(
        40,
        "Text Generation Inference",
        STAND_IN,
        "a server that speaks its protocol on another port",
        """
component:
  type: http-client
  endpoint: http://localhost:8080/generate
  method: POST
  headers:
    Content-Type: application/json
  body:
    inputs: ${input.prompt as text}
    parameters:
      max_new_tokens: 512
      temperature: 0.7
      top_p: 0.9
  output:
    generated_text: ${response.generated_text}
""",
    ),
    Case(
        41,
        "precision by the device",
        STAND_IN,
        "two files in one: an error with both lines; each half by itself finds its task in the weights, "
        "and the one for a CPU is run on toy weights",
        """
# with a GPU
component:
  type: model
  model: large-model
  precision: float16  # or bfloat16
  device: cuda

# without
component:
  type: model
  model: small-model
  precision: float32  # the safe choice on a CPU
  device: cpu
""",
    ),
    Case(
        42,
        "eight bits where memory is short",
        PLAN,
        "the task is found in the configuration of the weights",
        """
component:
  type: model
  model: meta-llama/Llama-2-13b-hf
  quantization: int8  # half the memory
  device: cuda
""",
    ),
    Case(
        43,
        "a batch size for throughput",
        STAND_IN,
        "no repository has this name, and the error says so; toy weights under the name are run",
        """
component:
  type: model
  task: text-classification
  model: bert-base
  batch_size: 32  # as the memory allows
""",
    ),
    Case(
        44,
        "a cache on a fast disk",
        STAND_IN,
        "a toy GPT-2 and another folder, which is made; the task is found in the weights",
        """
component:
  type: model
  model:
    provider: huggingface
    repository: gpt2
    cache_dir: /data/model-cache  # a fast disk
""",
    ),
    Case(
        45,
        "a model over several GPUs, once more",
        PLAN,
        "as 23",
        """
component:
  type: model
  task: text-generation
  model: meta-llama/Llama-2-70b-hf
  device: cuda
  device_mode: auto  # spread by itself
""",
    ),
)
