"""A small catalog that no new task, driver or component type changes, for tests of what a check says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from model_compose.components.model.spec import SPEC as MODEL
from model_compose.config.spec import ComponentSpec, DriverSpec, Positive, TaskDriver, TaskSpec, doc
from model_compose.sources.spec import Source
from model_compose.types import Result, Usage


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """Continue a text."""

    prompt: Annotated[str, doc("the text to continue", aliases=("text",), many=True, min_length=1)]
    max_output_length: Annotated[int, doc("most new tokens", ge=1)] = 1024
    temperature: Annotated[float, doc("0 is greedy", ge=0, le=5)] = 0.7
    top_p: Annotated[float, doc("share of the probability", gt=0, le=1)] = 0.9
    num_beams: Annotated[int, doc("beams of a beam search", ge=1)] = 1
    stop_sequences: Annotated[tuple[str, ...] | str, doc("texts that end the output", aliases=("stop",))] = ()
    seed: Annotated[Positive | None, doc("same seed, same output")] = None
    format: Annotated[Literal["text", "json"], doc("form of the output")] = "text"
    adapters: Annotated[dict[str, float] | None, doc("weights of the adapters")] = None


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One message."""

    role: Annotated[Literal["system", "user", "assistant"], doc("who speaks")]
    content: Annotated[str | None, doc("what is said")]


class Talk(msgspec.Struct, frozen=True, kw_only=True):
    """Answer in a conversation."""

    messages: Annotated[
        list[Message],
        doc("the conversation", aliases=("prompt",), also=str | Message, many=True, min_length=1),
    ]
    temperature: Annotated[float, doc("0 is greedy", ge=0, le=5)] = 0.7


class Embed(msgspec.Struct, frozen=True, kw_only=True):
    """Turn texts into vectors."""

    text: Annotated[str, doc("the text", many=True)]
    normalize: Annotated[bool, doc("scale to length 1")] = True


class Written(Result, frozen=True):
    text: str
    usage: Usage = Usage()


class Piece(Result, frozen=True):
    text: str
    logprob: float = 0.0


class Vector(Result, frozen=True):
    embedding: list[float]


class LlamaOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the engine."""

    context_length: Annotated[Positive | None, doc("tokens of one request")] = None
    threads: Annotated[Positive | None, doc("threads")] = None


class NoOptions(msgspec.Struct, frozen=True, kw_only=True):
    """It has none."""


def _task(name: str, request: type[msgspec.Struct], result: Any, main: str, **more: Any) -> TaskSpec:
    able = more.pop("able", ("llamacpp", "torch"))
    how = {driver: TaskDriver("nowhere:Nothing", more.pop(driver, {})) for driver in able}
    return TaskSpec(name, f"{name}.", request, result, main, how, **more)


_TASKS = (
    _task(
        "text-generation",
        Write,
        Written | list[Written],
        "prompt",
        chunk=Piece,
        llamacpp={"num_beams": "it has no beam search"},
        default_driver="torch",
    ),
    _task("chat-completion", Talk, Written, "messages", chunk=Piece, default_driver="torch"),
    _task("text-embedding", Embed, Vector, "text", default_driver="torch"),
    _task("token-counting", Embed, Any, "text", able=("llamacpp",)),
)
_DRIVERS = (
    DriverSpec(
        "llamacpp",
        "Runs GGUF files.",
        LlamaOptions,
        formats=("gguf",),
        reads=("gguf",),
        refuses={"precision": "the file fixes it", "quantization": "the file is quantized already"},
    ),
    DriverSpec("torch", "Runs the rest.", NoOptions),
)
_LATER = ("http-client", "vector-store")


class FixedCatalog:
    """A `Catalog` with models, four tasks and two drivers."""

    def __init__(self, extra: Mapping[str, ComponentSpec] | None = None) -> None:
        self._components = {"model": MODEL, **(extra or {})}
        self._tasks = {task.name: task for task in _TASKS}
        self._drivers = {driver.name: driver for driver in _DRIVERS}

    def component(self, name: str) -> ComponentSpec | None:
        return self._components.get(name)

    def task(self, name: str) -> TaskSpec | None:
        return self._tasks.get(name)

    def driver(self, name: str) -> DriverSpec | None:
        return self._drivers.get(name)

    def components(self) -> tuple[str, ...]:
        return tuple(sorted(self._components))

    def tasks(self) -> tuple[str, ...]:
        return tuple(sorted(self._tasks))

    def drivers(self) -> tuple[str, ...]:
        return tuple(sorted(self._drivers))

    def infer_task(self, source: Source) -> str | None:
        return None

    def family(self, task: str, name: str) -> str | None:
        return None

    def later(self, name: str) -> bool:
        return name in _LATER
