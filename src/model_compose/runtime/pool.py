"""Who does what the scheduler decides?

`ModelPool` is the thin, imperative side: it turns messages, deaths and clocks into events, and
effects into processes, signals and messages. It makes no decisions of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from model_compose.drivers.contract import LoadProgress, ModelInfo
from model_compose.errors import (
    Cancelled,
    Interrupted,
    ModelComposeError,
    ModelLoadError,
    Overloaded,
    SourceOffline,
    revive,
)
from model_compose.runtime import events, leases, messages
from model_compose.runtime.call import Call, Decoders
from model_compose.runtime.executor import Executor
from model_compose.runtime.interpreter import Interpreter
from model_compose.runtime.leases import Leases
from model_compose.runtime.local import LocalExecutor
from model_compose.runtime.model import LoadStage, ModelPlan, State
from model_compose.runtime.process import ProcessExecutor, Reaper
from model_compose.runtime.scheduler import Scheduler

log = logging.getLogger(__name__)

#: What a worker gets to end by itself before it is killed.
STOP_GRACE_S = 5.0

#: Bytes of all requests that wait or run: queues are bounded by number, and requests may hold images.
MOST_HELD_BYTES = 1 << 30

#: The stage of a load before there is a worker.
DOWNLOADING: Final = "downloading"


class Prepared(msgspec.Struct, frozen=True):
    """A model whose weights are on disk: what its worker is told, and what it will probably take.

    python  the interpreter that runs the worker; None: the service's
    """

    load: messages.Load
    environment: Mapping[str, str]
    size: Mapping[str, int]
    python: str | None = None


class ModelSetup(msgspec.Struct, frozen=True):
    """A model as the pool needs it.

    `prepare` gets the weights, says how far it is, and may take as long as it likes.
    """

    plan: ModelPlan
    decoders: Decoders
    prepare: Callable[[LoadProgress], Awaitable[Prepared]]
    embedded: bool = False
    load_timeout_s: float | None = None


class ComponentStatus(msgspec.Struct, frozen=True):
    """A component as `ps` shows it.

    loading  how far it is, while it loads and says so
    python   what runs its worker, if that is not what runs the service
    """

    name: str
    state: State
    memory: Mapping[str, int]
    waiting: int
    active: int
    pid: int | None = None
    info: ModelInfo | None = None
    error: str | None = None
    metrics: Mapping[str, float] = {}
    loading: LoadStage | None = None
    type: str = "model"
    python: Interpreter | None = None

    def __str__(self) -> str:
        """The state in words: `ready`, `loading weights 40%`, `downloading 40%`."""
        if self.loading is None:
            return self.state
        return str(self.loading) if self.loading.stage == DOWNLOADING else f"{self.state} {self.loading}"


class Observer(Protocol):
    """Who wants to know what happens, for metrics and logs."""

    def ended(self, call: Call, error: ModelComposeError | None) -> None:
        """A call ended; its `times` are complete."""

    def changed(self, model: str, state: State) -> None:
        """A model has a new state."""

    def loading(self, model: str, stage: LoadStage) -> None:
        """The worker of a model says how far its load is."""


class _Fetch:
    """Weights on their way. Told by the threads that get them; those of an earlier try have their own."""

    def __init__(self) -> None:
        self.stage: LoadStage | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.stage = LoadStage(stage, done, total)


class _Loaded:
    """A model that has a host. It hears what the host says and passes it to the pool."""

    def __init__(self, name: str, executor: Executor, pool: ModelPool) -> None:
        self.name = name
        self.executor = executor
        self.info: ModelInfo | None = None
        self.stage: LoadStage | None = None
        self.metrics: Mapping[str, float] = {}
        self._pool = pool
        self.starting = pool._begin(pool._start(self), name)

    async def stop(self) -> None:
        """End the host; one that still loads listens to nobody, and has nothing to put in order."""
        await self.executor.stop(STOP_GRACE_S if self.info is not None else 0.0)

    def message(self, message: messages.ToGateway) -> None:
        self._pool._heard(self, message)

    def exited(self, error: ModelComposeError | None) -> None:
        self._pool._exited(self, error)


class ModelPool:
    """All models of a project and the calls to them. Everything happens on one event loop.

    budgets  bytes by memory pool that all loaded models together may take
    cores    CPU threads that all computing models together may use
    reaper   kills the workers when this process is gone
    """

    def __init__(
        self,
        setups: Iterable[ModelSetup],
        *,
        budgets: Mapping[str, int],
        cores: int,
        reaper: Reaper,
        observer: Observer,
    ) -> None:
        self._setups = {setup.plan.name: setup for setup in setups}
        self._scheduler = Scheduler((setup.plan for setup in self._setups.values()), budgets)
        self._leases = Leases(cores)
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._reaper = reaper
        self._numbers = itertools.count(1)
        self._calls: dict[int, Call] = {}
        self._held_bytes = 0
        self._loaded: dict[str, _Loaded] = {}
        self._prepared: dict[str, Prepared] = {}
        self._fetches: dict[str, _Fetch] = {}
        self._states: dict[str, State] = dict.fromkeys(self._setups, "unloaded")
        self._work: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._closing = False

    # For components

    def submit(
        self, model: str, request: Any, *, streaming: bool, bounded: bool, several: bool = False
    ) -> Call:
        """Queue a request, or with `several` a list of them. Errors come out of the call; none is raised."""
        number = next(self._numbers)
        setup = self._setups[model]
        call = Call(
            number,
            model,
            msgspec.Raw(messages.encoder.encode(request)),
            setup.decoders,
            streaming=streaming,
            several=several,
            hold=lambda held: self._hold(number, held),
        )
        if self._closing:
            call.fail(Interrupted("the service is stopping"))
            return call
        size_bytes = len(memoryview(call.request))
        if bounded and self._held_bytes + size_bytes > MOST_HELD_BYTES:
            held = f"{MOST_HELD_BYTES >> 20} MiB of requests wait or run"
            call.fail(Overloaded(f"{held}, and this one has {size_bytes:,} bytes"))
            return call
        self._held_bytes += size_bytes
        self._calls[number] = call
        self._on(events.Submit(number, model, bounded))
        return call

    def cancel(self, call: Call) -> None:
        """Nobody waits for this call any more; its slot is free as soon as the engine lets go."""
        if call.done:
            return
        gone = Cancelled("the caller went away")
        call.fail(gone)
        self._on(events.Cancel(call.number))
        if call.times.served == 0.0:
            self._end(call, gone)

    def _hold(self, number: int, held: bool) -> None:
        call = self._calls.get(number)
        loaded = self._loaded.get(call.model) if call else None
        if loaded is not None:
            loaded.executor.send(messages.Hold(number, held))

    # For whoever runs the service

    def want(self, model: str) -> None:
        """Load a model without a request."""
        self._on(events.Want(model))

    def release(self, model: str, *, stay: bool) -> None:
        """Unload a model when its calls have ended; `stay` until somebody wants it."""
        self._on(events.Release(model, stay))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition over the states of models."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def state(self, model: str) -> State:
        """The state of a model."""
        return self._scheduler.state(model)

    def error(self, model: str) -> ModelComposeError | None:
        """Why a model has failed."""
        return self._scheduler.error(model)

    def wanted(self, model: str) -> bool:
        """Whether it is being loaded, or is to be."""
        return self._scheduler.wanted(model)

    def room(self, model: str) -> int:
        """How many more requests it would take now, served at once or queued."""
        return self._scheduler.room(model)

    def takes_lists(self, model: str) -> bool:
        """Whether a loaded model takes several requests in one call."""
        loaded = self._loaded.get(model)
        return bool(loaded and loaded.info and loaded.info.lists)

    def slots(self, model: str) -> int:
        """How many requests its worker takes at once; 0 while there is none."""
        loaded = self._loaded.get(model)
        return loaded.info.slots if loaded and loaded.info else 0

    def status(self) -> Sequence[ComponentStatus]:
        """Every model, in the order of the file."""
        return [self.component(name) for name in self._setups]

    def component(self, name: str) -> ComponentStatus:
        """One of them."""
        scheduler, loaded = self._scheduler, self._loaded.get(name)
        error = scheduler.error(name)
        return ComponentStatus(
            name,
            scheduler.state(name),
            scheduler.size(name) if loaded else {},
            scheduler.waiting(name),
            scheduler.active(name),
            loaded.executor.pid if loaded else None,
            loaded.info if loaded else None,
            str(error) if error else None,
            loaded.metrics if loaded else {},
            self._stage(name) if scheduler.state(name) == "loading" else None,
            python=loaded.executor.interpreter if loaded else None,
        )

    def _stage(self, name: str) -> LoadStage | None:
        at = self._loaded.get(name) or self._fetches.get(name)
        return at.stage if at else None

    async def close(self) -> None:
        """Fail what is left, and end every host."""
        self._closing = True
        for call in list(self._calls.values()):
            self._end(call, Interrupted("the service is stopping"))
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        await asyncio.gather(*(loaded.stop() for loaded in self._loaded.values()))

    # Events in, effects out

    def _on(self, event: events.Event) -> None:
        if self._closing:
            return
        for effect in self._scheduler.on(event, self._loop.time()):
            self._do(effect)
        self._notice()

    def _do(self, effect: events.Effect) -> None:
        match effect:
            case events.Serve(number, model, alone):
                self._serve(number, model, alone)
            case events.Fail(number, error):
                self._end(self._calls[number], error)
            case events.Withdraw(number, model):
                self._loaded[model].executor.send(messages.Cancel(number))
            case events.Fetch(model):
                self._begin(self._fetch(model), model)
            case events.Load(model):
                self._loaded[model] = _Loaded(model, self._executor(model), self)
            case events.Unload(model):
                self._begin(self._stop(self._loaded[model]), model)
            case events.WakeAt(at):
                self._loop.call_at(at, self._on, events.Wake())

    def _executor(self, model: str) -> Executor:
        if self._setups[model].embedded:
            return LocalExecutor()
        return ProcessExecutor(model, self._reaper, self._prepared[model].python)

    def _serve(self, number: int, model: str, alone: bool) -> None:
        call, loaded = self._calls[number], self._loaded[model]
        call.times.served = time.monotonic()
        if call.on_served is not None:
            call.on_served()
        # The lease goes first: an elastic worker shall have it when it cuts its first batch.
        self._lease(self._leases.busy(model, self._loop.time()))
        loaded.executor.send(messages.Call(number, call.request, call.streaming, alone, call.several))

    def _lease(self, effects: Iterable[leases.Effect]) -> None:
        if self._closing:
            return  # who is to end shall not be paused
        for effect in effects:
            match effect:
                case leases.Grant(model, threads):
                    self._loaded[model].executor.send(messages.Lease(threads))
                case leases.Pause(model):
                    self._loaded[model].executor.pause()
                case leases.Resume(model):
                    self._loaded[model].executor.resume()
                case leases.WakeAt(at):
                    self._loop.call_at(at, self._tick)

    def _tick(self) -> None:
        self._lease(self._leases.tick(self._loop.time()))

    def _notice(self) -> None:
        """Tell who waits for it that a model has another state."""
        for name, before in self._states.items():
            state = self._scheduler.state(name)
            if state != before:
                self._states[name] = state
                self._observer.changed(name, state)
                self._changed.set()

    def _begin(self, work: Coroutine[Any, Any, None], model: str) -> asyncio.Task[None]:
        task = self._loop.create_task(work, name=f"model {model}")
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

    async def _fetch(self, model: str) -> None:
        fetch = self._fetches[model] = _Fetch()
        try:
            prepared = await self._setups[model].prepare(fetch)
        except SourceOffline as error:
            self._on(events.Exited(model, error))  # the network may come back: try again, a few times
        except ModelComposeError as error:
            self._on(events.LoadFailed(model, error))
        except Exception as error:
            log.exception("cannot prepare `%s`", model)
            self._on(events.LoadFailed(model, ModelLoadError(f"{type(error).__name__}: {error}")))
        else:
            self._prepared[model] = prepared
            self._fetches.pop(model, None)
            self._on(events.Fetched(model, prepared.size))

    async def _start(self, loaded: _Loaded) -> None:
        prepared, timeout_s = self._prepared[loaded.name], self._setups[loaded.name].load_timeout_s
        try:
            await loaded.executor.start(prepared.load, prepared.environment, loaded)
        except ModelComposeError as error:
            self._on(events.LoadFailed(loaded.name, error))
            self._exited(loaded, None)
            return
        if timeout_s is not None:
            self._loop.call_later(timeout_s, self._took_too_long, loaded, timeout_s)

    def _took_too_long(self, loaded: _Loaded, timeout_s: float) -> None:
        if loaded.info is None and self._loaded.get(loaded.name) is loaded:
            message = f"`{loaded.name}` did not load within {timeout_s:g} seconds"
            self._on(events.LoadFailed(loaded.name, ModelLoadError(message, hint="raise `load_timeout`")))

    async def _stop(self, loaded: _Loaded) -> None:
        await asyncio.wait([loaded.starting])
        if self._loaded.get(loaded.name) is loaded:  # else it has ended by itself
            self._lease(self._leases.remove(loaded.name, self._loop.time()))
            await loaded.stop()

    # What hosts say

    def _heard(self, loaded: _Loaded, message: messages.ToGateway) -> None:
        if self._loaded.get(loaded.name) is not loaded:
            return  # an embedded model may say something after its end
        match message:
            case messages.Chunk() | messages.Done() | messages.Failed() | messages.Progress():
                call = self._calls.get(message.id)
                if call is not None:  # else it ended here, because the service is stopping
                    self._heard_of(call, message)
            case messages.Loading(stage, done, total):
                if self._scheduler.state(loaded.name) == "loading":  # a thread may report behind the end
                    loaded.stage = LoadStage(stage, done, total)
                    self._observer.loading(loaded.name, loaded.stage)
            case messages.Loaded(info, memory, devices):
                loaded.info = info
                now = self._loop.time()
                self._lease(self._leases.add(loaded.name, info.threads, elastic=info.elastic, now=now))
                self._on(events.Loaded(loaded.name, info.slots, memory, devices))
            case messages.LoadFailed(error):
                self._on(events.LoadFailed(loaded.name, revive(error)))
            case messages.Measured(memory, metrics, devices):
                loaded.metrics = metrics
                self._on(events.Measured(loaded.name, memory, devices))
            case messages.Leased(threads):
                self._lease(self._leases.leased(loaded.name, threads, self._loop.time()))

    def _heard_of(
        self, call: Call, message: messages.Chunk | messages.Done | messages.Failed | messages.Progress
    ) -> None:
        match message:
            case messages.Chunk(number, data):
                if call.times.first_chunk == 0.0:
                    call.times.first_chunk = time.monotonic()
                    self._on(events.Began(number))
                call.push(data)
            case messages.Done():
                call.finish(message)
                self._ended(call)
            case messages.Failed(_, error):
                call.fail(revive(error))
                self._ended(call)
            case messages.Progress(_, done, total):
                if call.on_progress is not None:
                    call.on_progress(done, total)

    def _ended(self, call: Call) -> None:
        """The worker is done with a call."""
        self._forget(call)
        self._on(events.Ended(call.number))
        if self._scheduler.active(call.model) == 0:
            self._lease(self._leases.idle(call.model, self._loop.time()))

    def _end(self, call: Call, error: ModelComposeError) -> None:
        """A call ends without its worker."""
        call.fail(error)
        self._forget(call)

    def _forget(self, call: Call) -> None:
        if self._calls.pop(call.number, None) is not None:
            self._held_bytes -= len(memoryview(call.request))
        call.times.ended = time.monotonic()
        # What it ended with: a caller may have gone while the result was on its way.
        self._observer.ended(call, call.error())

    def _exited(self, loaded: _Loaded, error: ModelComposeError | None) -> None:
        model = loaded.name
        del self._loaded[model]
        self._lease(self._leases.remove(model, self._loop.time()))
        if error is not None:
            log.warning("%s", error)
        self._on(events.Exited(model, error))
        for call in [call for call in self._calls.values() if call.model == model]:
            if call.done:
                self._forget(call)  # withdrawn: it goes with its worker, and no effect names it
            else:
                call.times.served = 0.0  # queued again
