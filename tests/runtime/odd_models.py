"""Models that no driver should be like. Workers import them by name."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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
from model_compose.errors import Cancelled, InvalidInput, ModelLoadError, OutOfMemory
from model_compose.tasks.generation import Completion, TextDelta
from model_compose.tasks.text_embedding.spec import Embedding


class _Engine:
    async def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        return ModelInfo(slots=4)

    async def run(self, request: Any, sink: Sink, cancel: CancelToken) -> Outcome:
        return Outcome(Completion(request.prompt))

    async def close(self) -> None:
        pass


class Parent(_Engine):
    """Starts a process that outlives it, holds its output open, and says its number."""

    async def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        self._child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])  # noqa: ASYNC220
        return ModelInfo(slots=4, details={"child": str(self._child.pid)})


class Gorged(_Engine):
    """Finds no memory to load into."""

    async def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        raise MemoryError("20 GiB were asked for")


class Garbler(_Engine):
    """Gives what its prompt asks for instead of a completion."""

    async def run(self, request: Any, sink: Sink, cancel: CancelToken) -> Outcome:
        if request.prompt == "what CUDA says of a kernel that went astray":
            try:
                raise RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be")
            except RuntimeError as error:
                raise ValueError("the engine says it in its own words") from error
        if request.prompt == "what CUDA says of memory":
            raise RuntimeError("CUDA error: out of memory")
        if request.prompt == "what no message can hold":
            return Outcome(object())
        if request.prompt == "what no completion is":
            return Outcome({"text": 3})
        if request.prompt == "a chunk that no delta is":
            sink.emit([3])
        if request.prompt == "a cancellation of its own":
            raise asyncio.CancelledError
        if request.prompt == "more memory than there is":
            bytearray(1 << 62)
        return await super().run(request, sink, cancel)


class Stubborn(_Engine):
    """Does not stop when it is told to, because it keeps the event loop to itself."""

    async def run(self, request: Any, sink: Sink, cancel: CancelToken) -> Outcome:
        await asyncio.to_thread(sink.emit, TextDelta("begun"))
        time.sleep(30)  # noqa: ASYNC251
        return await super().run(request, sink, cancel)


class Talkative(_Engine):
    """Prints much, and then its last words."""

    async def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        for i in range(100):
            print(f"line {i}", file=sys.stderr)  # noqa: T201
        sys.stdout.write("x" * 200_000 + "\n")
        sys.stdout.flush()
        sys.stderr.write("the very last words")
        sys.stderr.flush()
        os._exit(3)


class Raiser(_Engine):
    """Raises while it loads what no driver should raise."""

    async def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        raise ZeroDivisionError("in the middle of it")


class TooLarge(_Engine):
    """Raises a load error that names its reason and the way out."""

    async def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        raise ModelLoadError("4 GiB do not fit", hint="take a smaller one")


class Reporter(_Engine):
    """Says how far its load is, from a thread and thousands of times, and again when that is over."""

    async def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        go = Path(options.options["go"])

        def report() -> None:
            for i in range(20_001):
                progress("weights", i, 20_000)
            progress("warm-up", 0, 1)
            while not go.exists():
                time.sleep(0.002)

        self._progress = progress
        await asyncio.to_thread(report)
        return ModelInfo(slots=4)

    async def run(self, request: Any, sink: Sink, cancel: CancelToken) -> Outcome:
        self._progress("too late", 1, 2)
        return await super().run(request, sink, cancel)


class Measurer(_Engine):
    """Knows what it takes of memory that the process does not show."""

    def memory(self) -> Mapping[str, int]:
        return {"cuda:0": 3 << 30}


class Elastic(_Engine):
    """Writes down, in a file that it shares with others, what it computes with and when.

    Changing the threads takes it a moment, as it does engines that have to end a step first.
    """

    async def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        self._name, self._diary = options.options["who"], options.options["diary"]
        self._threads = options.threads
        self._busy = 0
        return ModelInfo(slots=4, threads=options.threads, elastic=True)

    async def run(self, request: Any, sink: Sink, cancel: CancelToken) -> Outcome:
        self._busy += 1
        self._write()
        command, _, path = request.prompt.partition(":")
        while command == "wait" and not Path(path).exists():
            if cancel.cancelled:
                raise Cancelled("the caller went away")
            await asyncio.sleep(0.002)
        self._busy -= 1
        said = self._threads
        self._write()
        return Outcome(Completion(str(said)))

    async def lease(self, threads: int) -> None:
        await asyncio.sleep(0.02 / threads)  # smaller ones take longer, and must not be overtaken
        self._threads = threads
        self._write()

    def _write(self) -> None:
        line = f"{self._name} {self._threads if self._busy else 0}\n"
        file = os.open(self._diary, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, line.encode())  # one write: lines of two processes do not mix
        os.close(file)


class Steps:
    """A `BatchModel` that streams, reports and notices who left: `wait:FILE` waits for a file."""

    def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        return ModelInfo(slots=1, threads=options.threads, elastic=True)

    def budget(self) -> tuple[int, int]:
        return 4, 10_000

    def prepare(self, request: Any) -> list[Item]:
        if request.text == "refused":
            raise InvalidInput("`text` is refused", field="text")
        # A text of several words is several rows.
        return [Item(1, None, word) for word in request.text.split()]

    def forward(self, items: Sequence[Item], step: Step) -> Sequence[Any]:
        raws = []
        for i, item in enumerate(items):
            step.progress(i, 1, 2)
            step.emit(i, f"piece of {item.payload}")
            command, _, path = item.payload.partition(":")
            while command == "wait" and not Path(path).exists() and not step.cancelled(i):
                time.sleep(0.002)
            if item.payload == "short":
                return []
            if item.payload == "raise":
                raise RuntimeError("the device is on fire")
            raws.append(ValueError("a bad row") if item.payload == "bad" else float(len(items)))
        return raws

    def finish(self, request: Any, raws: Sequence[Any]) -> Outcome:
        if "unfinished" in request.text:
            raise RuntimeError("cannot finish")
        return Outcome(Embedding([float(raw) for raw in raws]))


class Slow(Steps):
    """Takes a moment for each forward pass."""

    def forward(self, items: Sequence[Item], step: Step) -> Sequence[Any]:
        time.sleep(0.02)
        return super().forward(items, step)


class _Activations:
    """What a pass has in memory while it computes."""


class Hungry(Steps):
    """Runs out of memory above `most` rows, and in each pass with `huge` in it. Says how the passes were.

    It must not find the memory of an earlier pass still taken.
    """

    def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        self._most = options.options["most"]
        self._error = options.options.get("error", "ours")
        self._before: weakref.ref[_Activations] | None = None
        return super().load(options, progress)

    def budget(self) -> tuple[int, int]:
        return 8, 10_000

    def forward(self, items: Sequence[Item], step: Step) -> Sequence[Any]:
        assert self._before is None or self._before() is None, "the tensors of the last pass live on"
        activations = _Activations()
        self._before = weakref.ref(activations)
        words = [item.payload for item in items]
        for i, word in enumerate(words):
            if word == "streams":
                step.emit(i, "a piece")
        if len(items) > self._most or "huge" in words:
            if self._error == "python":
                bytearray(1 << 62)
            raise OutOfMemory(f"{len(items)} rows", needed_bytes=len(items), free_bytes=1, hint="fewer")
        return super().forward(items, step)


class Patient(Steps):
    """Prepares `prepare:FILE` only when the file exists; remembers in `FILE.computed` what it computed."""

    def prepare(self, request: Any) -> list[Item]:
        command, _, path = request.text.partition(":")
        Path(f"{path}.preparing").touch()
        while command == "prepare" and not Path(path).exists():
            time.sleep(0.002)
        return super().prepare(request)

    def forward(self, items: Sequence[Item], step: Step) -> Sequence[Any]:
        for item in items:
            Path(f"{item.payload.partition(':')[2]}.computed").touch()
        return super().forward(items, step)
