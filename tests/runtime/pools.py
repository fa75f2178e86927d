"""How do tests get a pool of echo models, in real worker processes?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import psutil

from model_compose.drivers.contract import LoadOptions, LoadProgress, Outcome
from model_compose.errors import ModelComposeError
from model_compose.runtime.call import Call, Decoders
from model_compose.runtime.messages import PROTOCOL, Load
from model_compose.runtime.model import LoadStage, ModelPlan, State
from model_compose.runtime.pool import ComponentStatus, ModelPool, ModelSetup, Prepared
from model_compose.runtime.process import Reaper
from model_compose.tasks.generation import Completions, TextDelta
from model_compose.tasks.text_embedding.spec import Embedding, TextEmbedding
from model_compose.tasks.text_generation.spec import TextGeneration

Kind = Literal["generate", "embed"]

_KINDS: dict[Kind, tuple[str, type[msgspec.Struct], Any, Any]] = {
    "generate": ("echo_driver:EchoGenerator", TextGeneration, Completions, TextDelta),
    "embed": ("echo_driver:EchoEmbedder", TextEmbedding, Embedding, object),
}


def echo(
    name: str = "echo",
    kind: Kind = "generate",
    *,
    size: int = 0,
    threads: int = 1,
    keep_alive_s: float | None = None,
    max_queue: int = 256,
    embedded: bool = False,
    implementation: str | None = None,
    load_timeout_s: float | None = None,
    prepare: Callable[[LoadProgress], None] | None = None,
    environment: Mapping[str, str] | None = None,
    python: str | None = None,
    **options: Any,
) -> ModelSetup:
    """An echo model; `size` is its estimate in bytes, `options` are those of the driver."""
    how, request, result, chunk = _KINDS[kind]
    load = Load(
        PROTOCOL,
        implementation or how,
        f"{request.__module__}:{request.__qualname__}",
        LoadOptions(
            task="echo", source=None, threads=threads, scratch="", options={**options, "threads": threads}
        ),
    )

    async def prepared(progress: LoadProgress) -> Prepared:
        if prepare is not None:
            await asyncio.to_thread(prepare, progress)
        return Prepared(load, environment or {}, {"host": size} if size else {}, python)

    return ModelSetup(
        ModelPlan(name, preload=False, keep_alive_s=keep_alive_s, max_queue=max_queue),
        Decoders.of(result, chunk),
        prepared,
        embedded=embedded,
        load_timeout_s=load_timeout_s,
    )


class Seen:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.calls: list[tuple[Call, ModelComposeError | None]] = []
        self.states: list[tuple[str, State]] = []
        self.stages: list[tuple[str, LoadStage]] = []

    def ended(self, call: Call, error: ModelComposeError | None) -> None:
        self.calls.append((call, error))

    def changed(self, model: str, state: State) -> None:
        self.states.append((model, state))

    def loading(self, model: str, stage: LoadStage) -> None:
        self.stages.append((model, stage))


class Models:
    """A pool and the ways in which tests use it."""

    def __init__(self, pool: ModelPool, seen: Seen, scratch: Path) -> None:
        self.pool = pool
        self.seen = seen
        self.scratch = scratch

    def ask(
        self, prompt: str, model: str = "echo", *, streaming: bool = False, bounded: bool = False
    ) -> Call:
        return self.pool.submit(model, TextGeneration(prompt=prompt), streaming=streaming, bounded=bounded)

    def embed(self, text: str, model: str = "echo", *, streaming: bool = False) -> Call:
        return self.pool.submit(model, TextEmbedding(text=text), streaming=streaming, bounded=False)

    async def answer(self, prompt: str, model: str = "echo") -> str:
        return str((await self.ask(prompt, model).outcome()).result.text)

    async def load(self, model: str = "echo") -> psutil.Process:
        """Load a model and wait for it; -> its worker."""
        self.pool.want(model)
        await self.state(model, "ready")
        return self.worker(model)

    async def state(self, model: str, state: State) -> None:
        async with asyncio.timeout(30):
            await self.pool.until(lambda: self.pool.state(model) == state)

    def status(self, model: str = "echo") -> ComponentStatus:
        return next(status for status in self.pool.status() if status.name == model)

    def worker(self, model: str = "echo") -> psutil.Process:
        pid = self.status(model).pid
        assert pid is not None
        return psutil.Process(pid)


@contextlib.asynccontextmanager
async def running(*setups: ModelSetup, budget: int | None = None, cores: int = 64) -> AsyncIterator[Models]:
    """A pool until the end of the block; nothing is loaded yet."""
    scratch = Path(tempfile.mkdtemp(prefix="model-compose-test-"))
    seen = Seen()
    budgets = {} if budget is None else {"host": budget}
    reaper = Reaper(scratch)
    pool = ModelPool(setups, budgets=budgets, cores=cores, reaper=reaper, observer=seen)
    try:
        yield Models(pool, seen, scratch)
    finally:
        async with asyncio.timeout(30):
            await pool.close()
            await reaper.close()


async def eventually(condition: Callable[[], bool], what: str, within_s: float = 20) -> None:
    """Wait until a condition holds, looking often; fail with `what` when it does not in time."""
    ends = asyncio.get_running_loop().time() + within_s
    while not condition():
        assert asyncio.get_running_loop().time() < ends, f"not in {within_s} s: {what}"
        await asyncio.sleep(0.002)


def gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return True


def stopped(pid: int) -> bool:
    """Whether a process is paused: state T."""
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


async def settled(calls: list[Call]) -> list[Outcome | ModelComposeError]:
    """How calls end, in their order."""
    ends: list[Outcome | ModelComposeError] = []
    for call in calls:
        try:
            ends.append(await call.outcome())
        except ModelComposeError as error:
            ends.append(error)
    return ends


def files(folder: Path, *names: str) -> list[Path]:
    """Paths that do not exist yet, for prompts to touch or to wait for."""
    return [folder / name for name in names]


def alive(group: int) -> list[int]:
    """The processes of a group that have not ended."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and not gone(process.pid):
                found.append(process.pid)
    return found
