"""What do tests of drivers need to talk to one directly, without a worker and a gateway?"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

from model_compose.compose.catalog import BuiltIn
from model_compose.drivers.contract import LoadedAdapter, LoadOptions
from model_compose.runtime.host import Token, named
from model_compose.sources.spec import LoadedSource
from tests import models
from tests.models import Word

#: Set, it is where `make test-gpu` lets models compute whose tests do not ask for a device.
DEVICE = os.environ.get("MODEL_COMPOSE_TEST_DEVICE")


def loaded(path: Path) -> LoadedSource:
    return LoadedSource(
        path=str(path), format="gguf", revision=None, origin=path.name, size_bytes=path.stat().st_size
    )


def load_options(path: Path, task: str, **more: Any) -> LoadOptions:
    """Options to load a file with one thread; `adapters` may be given as name -> (path, weight).

    Where nothing else is asked for, models compute on the `DEVICE`, as exactly as on a CPU.
    """
    adapters = more.pop("adapters", {})
    if DEVICE is not None:
        more = {"device": DEVICE, "precision": "float32", **more}
    return LoadOptions(
        task=task,
        source=loaded(path),
        threads=1,
        scratch=tempfile.gettempdir(),
        adapters=tuple(
            LoadedAdapter(name, loaded(file), weight) for name, (file, weight) in adapters.items()
        ),
        **more,
    )


def unseen(stage: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


class Engine(NamedTuple):
    """One driver of a task, with the toy that all drivers of generation load."""

    driver: str
    task: str

    def make(self) -> Any:
        """The implementation, not loaded."""
        spec = BuiltIn().task(self.task)
        assert spec is not None
        return named(spec.drivers[self.driver].implementation)()

    def options(self, *, context_length: int | None = None, **more: Any) -> LoadOptions:
        """Options to load the toy; adapters may be given by name -> (word, weight)."""
        words: dict[str, tuple[Word, float]] = more.pop("adapters", {})
        lora = models.tiny_lora if self.driver == "llamacpp" else models.tiny_peft
        if context_length is not None:
            own: dict[str, Any] = {"options": {"context_length": context_length}}
            more |= own if self.driver == "llamacpp" else {"max_seq_length": context_length}
        return load_options(
            models.tiny_chat(),
            self.task,
            adapters={name: (lora(word), weight) for name, (word, weight) in words.items()},
            **{"batch_size": 4, **more},
        )


class Collector:
    """A `Sink` that keeps what it gets. `stop_after` chunks it says that nobody wants more."""

    def __init__(self, *, streaming: bool = True, stop_after: int | None = None) -> None:
        self.streaming = streaming
        self.chunks: list[Any] = []
        self.token = Token()
        self._stop_after = stop_after

    @property
    def ready(self) -> bool:
        return True

    def emit(self, chunk: Any) -> bool:
        self.chunks.append(chunk)
        if len(self.chunks) == self._stop_after:
            self.token.cancel()
        return not self.token.cancelled

    def progress(self, done: int, total: int) -> None:
        pass


@contextlib.asynccontextmanager
async def running(model: Any, options: LoadOptions) -> AsyncIterator[Callable[..., Any]]:
    """Load a model and give a function that runs requests on it: `await run(request, sink)`."""
    await model.load(options, unseen)

    async def run(request: Any, sink: Collector | None = None) -> Any:
        sink = sink or Collector(streaming=False)
        return await model.run(request, sink, sink.token)

    try:
        yield run
    finally:
        await model.close()


def slots(engine: Any) -> list[bool]:
    """Which slots of a llama.cpp engine compute, asked from its own listener."""
    connection = http.client.HTTPConnection("engine")
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.connect(f"{engine._folder}/engine.sock")
    connection.request("GET", "/slots")
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return [slot["is_processing"] for slot in answer]


async def idle(engine: Any, within_s: float = 5.0) -> bool:
    """Whether every slot becomes free in time."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + within_s
    while any(await asyncio.to_thread(slots, engine)):
        if loop.time() > ends:
            return False
        await asyncio.sleep(0.002)
    return True
