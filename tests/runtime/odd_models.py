"""Models that no driver should be like. Workers import them by name."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model_compose.drivers.contract import CancelToken, Item, LoadOptions, ModelInfo, Outcome, Sink, Step
from model_compose.errors import ModelLoadError
from model_compose.tasks.generation import Completion, TextDelta
from model_compose.tasks.text_embedding.spec import Embedding


class _Engine:
    async def load(self, options: LoadOptions) -> ModelInfo:
        return ModelInfo(slots=4)

    async def run(self, request: Any, sink: Sink, cancel: CancelToken) -> Outcome:
        return Outcome(Completion(request.prompt))

    async def close(self) -> None:
        pass


class Parent(_Engine):
    """Starts a process that outlives it, holds its output open, and says its number."""

    async def load(self, options: LoadOptions) -> ModelInfo:
        self._child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])  # noqa: ASYNC220
        return ModelInfo(slots=4, details={"child": str(self._child.pid)})


class Garbler(_Engine):
    """Gives what its prompt asks for instead of a completion."""

    async def run(self, request: Any, sink: Sink, cancel: CancelToken) -> Outcome:
        if request.prompt == "what no message can hold":
            return Outcome(object())
        if request.prompt == "what no completion is":
            return Outcome({"text": 3})
        if request.prompt == "a chunk that no delta is":
            sink.emit([3])
        if request.prompt == "a cancellation of its own":
            raise asyncio.CancelledError
        return await super().run(request, sink, cancel)


class Stubborn(_Engine):
    """Does not stop when it is told to, because it keeps the event loop to itself."""

    async def run(self, request: Any, sink: Sink, cancel: CancelToken) -> Outcome:
        await asyncio.to_thread(sink.emit, TextDelta("begun"))
        time.sleep(30)  # noqa: ASYNC251
        return await super().run(request, sink, cancel)


class Talkative(_Engine):
    """Prints much, and then its last words."""

    async def load(self, options: LoadOptions) -> ModelInfo:
        for i in range(100):
            print(f"line {i}", file=sys.stderr)  # noqa: T201
        sys.stdout.write("x" * 200_000 + "\n")
        sys.stdout.flush()
        sys.stderr.write("the very last words")
        sys.stderr.flush()
        os._exit(3)


class Raiser(_Engine):
    """Raises while it loads what no driver should raise."""

    async def load(self, options: LoadOptions) -> ModelInfo:
        raise ZeroDivisionError("in the middle of it")


class OutOfMemory(_Engine):
    """Raises a load error that names its reason and the way out."""

    async def load(self, options: LoadOptions) -> ModelInfo:
        raise ModelLoadError("4 GiB do not fit", hint="take a smaller one")


class Steps:
    """A `BatchModel` that streams, reports and notices who left: `wait:FILE` waits for a file."""

    def load(self, options: LoadOptions) -> ModelInfo:
        return ModelInfo(slots=1, threads=options.threads, elastic=True)

    def budget(self) -> tuple[int, int]:
        return 4, 10_000

    def prepare(self, request: Any) -> list[Item]:
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
