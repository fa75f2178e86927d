"""A driver for tests: deterministic, instant, and as badly behaved as a prompt asks it to be.

It is found by its entry point, as any driver from another package is: put this folder on PYTHONPATH.
A text prompt is answered with itself. These words in it do something else first:

    chunks:N     stream N chunks `0 `, `1 `, ... instead (the result is all of them)
    steps:N      report N steps, one after the other
    wait:NAME    wait until the file NAME exists (or the request is cancelled)
    touch:NAME   create the file NAME when the request begins
    call:NAME    call a tool, with `{"a": 1}`, in two pieces where it streams; text comes before it
    fail         raise an error that the engine did not expect
    crash        end the process at once, without a word
    die:NAME     end the process, unless the file NAME exists; create it first
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from model_compose.config.spec import DriverSpec, TaskDriver, doc
from model_compose.drivers.contract import (
    CancelToken,
    Item,
    LoadOptions,
    LoadProgress,
    ModelInfo,
    Outcome,
    Sink,
    Step,
)
from model_compose.errors import Cancelled, InvalidInput, ModelLoadError
from model_compose.tasks.generation import Completion, TextDelta
from model_compose.tasks.pictures import Picture
from model_compose.tasks.text_embedding.spec import Embedding
from model_compose.types import Usage


class EchoOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the model shall be like.

    load_fails      loading raises a ModelLoadError with this text
    load_waits_for  loading stays at 40 % of the weights until this file exists
    load_crashes    the process ends while it loads
    memory          what its estimated size is, in bytes
    """

    slots: Annotated[int, doc("requests at once", ge=1)] = 4
    load_fails: Annotated[str | None, doc("fail to load, with this text")] = None
    load_waits_for: Annotated[str | None, doc("a file to wait for")] = None
    load_crashes: Annotated[bool, doc("end the process while loading")] = False
    memory: Annotated[int, doc("estimated size in bytes")] = 0
    rows: Annotated[int, doc("batches: most rows")] = 8
    forward_s: Annotated[float, doc("batches: seconds of one forward pass")] = 0.0
    threads: Annotated[int, doc("threads that it says it computes with")] = 1


def _load(options: LoadOptions, progress: LoadProgress) -> EchoOptions:
    echo = msgspec.convert(options.options, EchoOptions)
    progress("weights", 2, 5)
    while echo.load_waits_for and not Path(echo.load_waits_for).exists():
        time.sleep(0.005)
    if echo.load_crashes:
        os._exit(7)
    if echo.load_fails:
        raise ModelLoadError(echo.load_fails)
    progress("weights", 5, 5)
    return echo


class EchoGenerator:
    """An `EngineModel` for text-generation and chat-completion."""

    async def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        echo = await asyncio.to_thread(_load, options, progress)
        return ModelInfo(slots=options.batch_size or echo.slots, threads=echo.threads, context_length=1000)

    async def run(self, request: Any, sink: Sink, cancel: CancelToken) -> Outcome:
        prompt = request.prompt if hasattr(request, "prompt") else request.messages[-1].content or ""
        text = prompt
        calls: list[dict[str, Any]] = []
        for word in prompt.split():
            command, _, value = word.partition(":")
            if command == "crash":
                os._exit(9)
            elif command == "fail":
                raise RuntimeError("the engine is not in the mood")
            elif command == "die" and not Path(value).exists():
                Path(value).touch()
                os._exit(9)
            elif command == "call":
                calls.append(_call(len(calls), value, '{"a": 1}'))
            elif command == "steps":
                for i in range(int(value)):
                    sink.progress(i + 1, int(value))
            elif command == "touch":
                Path(value).touch()
            elif command == "wait":
                while not Path(value).exists():
                    if cancel.cancelled:
                        raise Cancelled("the caller went away")
                    await asyncio.sleep(0.005)
            elif command == "chunks":
                text = "".join(f"{i} " for i in range(int(value)))
                if sink.streaming:
                    await asyncio.to_thread(_emit, sink, int(value))
        if sink.streaming and "chunks:" not in prompt:
            sink.emit(TextDelta(text))
        for i, call in enumerate(calls if sink.streaming else ()):
            sink.emit(TextDelta("", tool_calls=[{"index": i, **_call(i, call["function"]["name"], "")}]))
            arguments = {"arguments": call["function"]["arguments"]}
            sink.emit(TextDelta("", tool_calls=[{"index": i, "function": arguments}]))
        usage = Usage(len(prompt.split()), len(text.split()))
        return Outcome(Completion(text, "stop", usage, tool_calls=calls or None), usage, "stop")

    async def close(self) -> None:
        pass

    def metrics(self) -> dict[str, float]:
        return {}


def _call(index: int, name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": f"call_{index}", "type": "function", "function": function}


def _emit(sink: Sink, count: int) -> None:
    for i in range(count):
        if not sink.emit(TextDelta(f"{i} ")):
            return


class EchoEmbedder:
    """A `BatchModel` for text-embedding: length of the text, rows of its batch, threads of the pass."""

    def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        self._echo = _load(options, progress)
        self._rows = options.batch_size or self._echo.rows
        return ModelInfo(slots=1, threads=options.threads, elastic=True)

    def budget(self) -> tuple[int, int]:
        return self._rows, 10_000

    def prepare(self, request: Any) -> list[Item]:
        if request.text == "refuse":
            raise InvalidInput("`text` is refused", field="text")
        return [Item(len(request.text), None, request.text)]

    def forward(self, items: Sequence[Item], step: Step) -> Sequence[Any]:
        if any(item.payload == "crash" for item in items):
            os._exit(9)
        time.sleep(self._echo.forward_s)
        return [
            ValueError("a bad row")
            if item.payload == "bad"
            else [float(item.cost), float(len(items)), step.threads]
            for item in items
        ]

    def finish(self, request: Any, raws: Sequence[Any]) -> Outcome:
        return Outcome(Embedding(list(map(float, raws[0]))), Usage(len(request.text)))


class Mirror:
    """A family of image-upscale for driver `custom`: a `BatchModel` that gives the file as it came."""

    def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        self._width = int(options.options.get("width", 1))
        return ModelInfo(slots=1)

    def budget(self) -> tuple[int, int]:
        return 4, 10_000

    def prepare(self, request: Any) -> list[Item]:
        return [Item(1, None, request.image)]

    def forward(self, items: Sequence[Item], step: Step) -> Sequence[Any]:
        return [item.payload for item in items]

    def finish(self, request: Any, raws: Sequence[Any]) -> Outcome:
        return Outcome(Picture(raws[0], self._width, 1))


SPEC = DriverSpec(
    name="echo",
    summary="Answers with the question. For tests.",
    options=EchoOptions,
    tasks={
        "text-generation": TaskDriver("echo_driver:EchoGenerator"),
        "chat-completion": TaskDriver("echo_driver:EchoGenerator"),
        "text-embedding": TaskDriver("echo_driver:EchoEmbedder"),
    },
    estimate="echo_driver:estimate",
    needs_model=False,
)


def estimate(options: LoadOptions) -> dict[str, int]:
    memory = msgspec.convert(options.options, EchoOptions).memory
    return {"host": memory} if memory else {}
