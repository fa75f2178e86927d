"""How do tests talk to an engine that lives in another Python? Through a worker, as the service does."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from model_compose.compose.catalog import BuiltIn
from model_compose.drivers.contract import DeviceMemory, LoadedAdapter, LoadOptions, ModelInfo
from model_compose.errors import ModelComposeError, revive
from model_compose.runtime import messages
from model_compose.runtime.process import ProcessExecutor, Reaper
from model_compose.sources.spec import LoadedSource
from model_compose.types import FinishReason, Usage

SOURCES = Path(__file__).parents[2] / "src"

#: A slow machine takes minutes to start the engine.
START_S = 600
CALL_S = 300

T = TypeVar("T")


class Ended(NamedTuple):
    """How a call ended well."""

    result: Any
    usage: Usage | None
    finish_reason: FinishReason | None
    chunks: list[Any]


def loaded(path: Path) -> LoadedSource:
    return LoadedSource(path=str(path), format=None, revision=None, origin=path.name, size_bytes=1)


class Worker:
    """A worker with a loaded model, and the calls that it serves. A `Listener` on a loop of its own."""

    def __init__(
        self,
        driver: str,
        python: str,
        task: str,
        model: Path,
        adapters: dict[str, tuple[Path, float]],
        **more: Any,
    ) -> None:
        spec = BuiltIn().task(task)
        assert spec is not None
        self._result, self._chunk = spec.result, spec.chunk
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._numbers = itertools.count()
        self._calls: dict[int, asyncio.Queue[messages.ToGateway]] = {}
        self._loaded: asyncio.Future[ModelInfo] = self._loop.create_future()
        self.ended: asyncio.Future[ModelComposeError | None] = self._loop.create_future()
        self.measured: messages.Measured | None = None
        self.devices: dict[str, DeviceMemory] | None = None
        self.info = ModelInfo(slots=1)
        self.scratch = Path(tempfile.mkdtemp(prefix="model-compose-test-"))
        self.reaper = Reaper(self.scratch)
        self.executor = ProcessExecutor(driver, self.reaper, python)
        options = LoadOptions(
            task=task,
            source=loaded(model),
            threads=int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1),
            scratch=str(self.scratch),
            adapters=tuple(
                LoadedAdapter(name, loaded(path), weight) for name, (path, weight) in adapters.items()
            ),
            **{"device": "cpu", **more},
        )
        request = f"{spec.request.__module__}:{spec.request.__qualname__}"
        implementation = spec.drivers[driver].implementation
        self.load = messages.Load(messages.PROTOCOL, implementation, request, options)

    # Listener

    def message(self, message: Any) -> None:
        match message:
            case messages.Loaded(info, _, devices):
                self.devices = devices
                self._loaded.set_result(info)
            case messages.LoadFailed(error):
                self._loaded.set_exception(revive(error))
            case messages.Measured():
                self.measured = message
            case messages.Chunk() | messages.Done() | messages.Failed():
                self._calls[message.id].put_nowait(message)

    def exited(self, error: ModelComposeError | None) -> None:
        self.ended.set_result(error)
        if not self._loaded.done():
            self._loaded.set_exception(error or RuntimeError("ended"))
        for queue in self._calls.values():
            info = (error or ModelComposeError("ended")).info()
            queue.put_nowait(messages.Failed(-1, info))

    # From the thread of the tests

    def on_loop(self, work: Coroutine[Any, Any, T], within_s: float = CALL_S) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(within_s)

    def start(self) -> ModelInfo:
        async def begin() -> ModelInfo:
            await self.executor.start(self.load, {"PYTHONPATH": str(SOURCES)}, self)
            return await self._loaded

        return self.on_loop(begin(), START_S)

    @property
    def pid(self) -> int:
        assert self.executor.pid is not None
        return self.executor.pid

    def ask(self, request: Any, *, streaming: bool = False) -> Ended:
        return self.together([request], streaming=streaming)[0]

    def together(self, requests: list[Any], *, streaming: bool = False) -> list[Ended]:
        async def all_of_them() -> list[Ended]:
            return await asyncio.gather(*(self._answer(each, streaming) for each in requests))

        return self.on_loop(all_of_them())

    async def _answer(self, request: Any, streaming: bool) -> Ended:
        number = self.begin(request, streaming=streaming)
        chunks = []
        while True:
            message = await self._calls[number].get()
            match message:
                case messages.Chunk(_, data):
                    chunks.append(msgspec.msgpack.decode(data, type=self._chunk))
                case messages.Done(_, result, usage, reason):
                    value = msgspec.msgpack.decode(result, type=self._result)
                    return Ended(value, usage, reason, chunks)
                case messages.Failed(_, error):
                    raise revive(error)

    def begin(self, request: Any, *, streaming: bool) -> int:
        """Send a call. On the loop."""
        number = next(self._numbers)
        self._calls[number] = asyncio.Queue()
        encoded = msgspec.Raw(messages.encoder.encode(request))
        self.executor.send(messages.Call(number, encoded, streaming))
        return number

    async def first(self, number: int) -> messages.ToGateway:
        """The next that comes of a call. On the loop."""
        return await self._calls[number].get()

    def left(self, request: Any) -> tuple[messages.ToGateway, int]:
        """How a stream ends whose caller goes away after the first piece, and how many came after that."""

        async def leave() -> tuple[messages.ToGateway, int]:
            number = self.begin(request, streaming=True)
            await self.first(number)
            self.executor.send(messages.Cancel(number))
            pieces = 0
            while isinstance(found := await self.first(number), messages.Chunk):
                pieces += 1
            return found, pieces

        return self.on_loop(leave())

    def close(self) -> None:
        async def end() -> None:
            await self.executor.stop(20)
            await self.reaper.close()

        with contextlib.suppress(Exception):
            self.on_loop(end(), 60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@contextlib.contextmanager
def running(driver: str, python: str, task: str, model: Path, **more: Any) -> Iterator[Worker]:
    """A worker that is ready, until the end of the block."""
    worker = Worker(driver, python, task, model, more.pop("adapters", {}), **more)
    try:
        worker.info = worker.start()
        yield worker
    finally:
        worker.close()
