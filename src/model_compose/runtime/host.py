"""How does a loaded model serve calls, whatever process it lives in?

`ModelHost` stands between messages and a driver. It is the same object in a worker process and in
the caller's own (`runtime: embedded`); a driver never knows which. Everything that it says goes
through `send`, which may be called from any thread.
"""

from __future__ import annotations

import asyncio
import importlib
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

import msgspec

from model_compose.drivers.contract import BatchModel, EngineModel, LoadOptions, Outcome
from model_compose.drivers.params import with_params
from model_compose.errors import (
    Cancelled,
    EngineError,
    ErrorInfo,
    ModelComposeError,
    ModelLoadError,
)
from model_compose.runtime.batching import BatchLoop
from model_compose.runtime.memory import devices, out_of_memory, resident_bytes
from model_compose.runtime.messages import (
    PROTOCOL,
    Call,
    Cancel,
    Chunk,
    Done,
    Failed,
    Hold,
    Lease,
    Leased,
    Load,
    Loaded,
    LoadFailed,
    Loading,
    Measured,
    Progress,
    Stop,
    ToGateway,
    ToWorker,
    encoder,
)

#: How often a model that is used reports its memory and its engine's metrics.
MEASURE_EVERY_S = 5.0
#: How often a load says how far it is, within a stage.
REPORT_EVERY_S = 0.2
#: Errors of CUDA behind which every call of it fails, until the process has ended.
_STAYS = (
    "device-side assert",
    "illegal memory access",
    "illegal instruction",
    "illegal address",
    "shared address space",
    "misaligned address",
    "invalid program counter",
    "hardware stack error",
    "unspecified launch failure",
    "launch timed out",
    "uncorrectable ECC",
    "uncorrectable NVLink",
    "unknown error",
)


class LoadReports:
    """The `LoadProgress` of one load: tells the gateway of each stage, and now and then how far it is."""

    def __init__(
        self, send: Callable[[ToGateway], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._send = send
        self._clock = clock
        self._lock = threading.Lock()
        self._last = Loading("", 0, 0)
        self._sent_at = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report; from any thread, in the order in which it is called."""
        report = Loading(stage, done, total)
        with self._lock:
            last, now = self._last, self._clock()
            news = stage != last.stage or (done >= total) != (last.done >= last.total)
            if report != last and (news or now - self._sent_at >= REPORT_EVERY_S):
                self._last, self._sent_at = report, now
                self._send(report)


class Token:
    """A `CancelToken`: set from the loop, read and waited for from anywhere."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self.cancelled = False

    def cancel(self) -> None:
        """Say that nobody waits any more."""
        with self._lock:
            self.cancelled = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call back once on cancellation; at once if it has happened."""
        with self._lock:
            if not self.cancelled:
                self._callbacks.append(callback)
                return
        callback()


class CallSink:
    """The `Sink` of one call: chunks go out in order until its caller goes away."""

    def __init__(self, call: Call, send: Callable[[ToGateway], None]) -> None:
        self._id = call.id
        self._send = send
        self._flowing = threading.Event()
        self._flowing.set()
        self.streaming = call.streaming
        self.token = Token()
        self.token.on_cancel(self._flowing.set)

    @property
    def ready(self) -> bool:
        """Whether `emit` would return at once."""
        return self._flowing.is_set()

    def emit(self, chunk: Any) -> bool:
        """Pass a chunk on; waits while the reader is behind. False means: cancelled, stop."""
        if not self._flowing.is_set():
            self._flowing.wait()
        if self.token.cancelled:
            return False
        self._send(Chunk(self._id, msgspec.Raw(encoder.encode(chunk))))
        return True

    def post(self, chunk: Any) -> None:
        """Pass a chunk on and never wait: others are in the same forward pass, and an output has an end."""
        if not self.token.cancelled:
            self._send(Chunk(self._id, msgspec.Raw(encoder.encode(chunk))))

    def progress(self, done: int, total: int) -> None:
        """Report how far the call is."""
        self._send(Progress(self._id, done, total))

    def hold(self, held: bool) -> None:
        """Stop the flow, or let it run again."""
        if held and not self.token.cancelled:
            self._flowing.clear()
        else:
            self._flowing.set()


class _Serving(Protocol):
    """The two ways of serving calls: an engine's, and the batch loop's."""

    def serve(self, call: Call, requests: list[Any], sink: CallSink) -> None: ...

    def cancel(self, call: int) -> None: ...

    def lease(self, threads: int) -> None: ...

    async def close(self) -> None: ...


class ModelHost:
    """One model and the calls that it serves. All methods belong to one event loop.

    shares_process  somebody else lives here too, so what the process takes is not what the model takes
    lost            called with what CUDA says when it answers nothing any more in this process
    """

    def __init__(
        self,
        send: Callable[[ToGateway], None],
        *,
        shares_process: bool = False,
        lost: Callable[[str], None] = lambda why: None,
    ) -> None:
        self._send = send
        self._shares_process = shares_process
        self._lost = lost
        self._model: BatchModel | EngineModel | None = None
        self._serving: _Serving | None = None
        self._decoder: msgspec.msgpack.Decoder[Any] | None = None
        self._decoder_of_lists: msgspec.msgpack.Decoder[list[Any]] | None = None
        self._sinks: dict[int, CallSink] = {}
        self._measuring: asyncio.TimerHandle | None = None
        self._loading: asyncio.Task[None] | None = None

    def take(self, message: ToWorker) -> None:
        """Act on a message."""
        match message:
            case Call():
                self._call(message)
            case Cancel(call):
                if call in self._sinks and self._serving:
                    self._sinks[call].token.cancel()
                    self._serving.cancel(call)
            case Hold(call, held):
                if call in self._sinks:
                    self._sinks[call].hold(held)
            case Lease(threads):
                if self._serving:
                    self._serving.lease(threads)
            case Load():
                self._loading = asyncio.get_running_loop().create_task(self._load(message))
            case Stop():
                raise ValueError("`Stop` is for the process that hosts the model: see `close`")

    async def _load(self, message: Load) -> None:
        try:
            if message.protocol != PROTOCOL:
                raise ModelLoadError(
                    f"the worker speaks protocol {PROTOCOL}, the gateway {message.protocol}",
                    hint="install the same version of model-compose in both environments",
                )
            request: Any = named(message.request)
            if message.options.implementation is not None:
                request = with_params(request)
            self._decoder = msgspec.msgpack.Decoder(request)
            self._decoder_of_lists = msgspec.msgpack.Decoder(list[request])
            model = named(message.implementation)()
            info = await self._load_model(model, message.options)
            self._model = model
            loaded = Loaded(info, self._memory(), devices())
        except ModelComposeError as error:
            self._send(LoadFailed(error.info()))
            return
        except Exception as error:  # noqa: BLE001  whatever an engine raises means that it did not load
            refused = ModelLoadError(f"the engine refused the model: {type(error).__name__}: {error}")
            self._send(LoadFailed((out_of_memory(error) or refused).info()))
            return
        self._send(loaded)

    async def _load_model(self, model: Any, options: LoadOptions) -> Any:
        progress = LoadReports(self._send)
        if hasattr(model, "forward"):
            info = await asyncio.to_thread(model.load, options, progress)
            loop = BatchLoop(model, info, self._end, self._send)
            self._serving = loop
            return msgspec.structs.replace(info, slots=loop.slots, lists=True)
        info = await model.load(options, progress)
        self._serving = _Engine(model, self._end, self._send)
        return info

    def _call(self, message: Call) -> None:
        assert self._serving is not None
        assert self._decoder is not None
        assert self._decoder_of_lists is not None
        requests: list[Any]
        try:
            if message.several:
                requests = self._decoder_of_lists.decode(message.request)
            else:
                requests = [self._decoder.decode(message.request)]
        except msgspec.DecodeError as error:
            info = EngineError(f"the worker cannot read the request: {error}").info()
            self._send(Failed(message.id, info))
            return
        sink = CallSink(message, self._send)
        self._sinks[message.id] = sink
        self._serving.serve(message, requests, sink)
        if self._measuring is None:
            self._measuring = asyncio.get_running_loop().call_later(MEASURE_EVERY_S, self._measure)

    def _end(self, call: int, outcome: Outcome | BaseException) -> None:
        """The one way in which a call ends."""
        sink = self._sinks.pop(call)
        if sink.token.cancelled:
            self._send(Failed(call, Cancelled("the caller went away").info()))
        elif isinstance(outcome, Outcome):
            self._send(_done(call, outcome))
        else:
            self._send(Failed(call, error_info(outcome)))
        if isinstance(outcome, BaseException) and (why := _lost_gpu(outcome)) is not None:
            self._lost(why)

    def _measure(self) -> None:
        self._measuring = None
        metrics = getattr(self._model, "metrics", None)
        self._send(Measured(self._memory(), dict(metrics()) if metrics else {}, devices()))
        if self._sinks:
            self._measuring = asyncio.get_running_loop().call_later(MEASURE_EVERY_S, self._measure)

    def _memory(self) -> dict[str, int]:
        """Bytes by pool: those of the process, unless it is somebody else's, and what the model knows of."""
        process = {} if self._shares_process else {"host": resident_bytes()}
        known = getattr(self._model, "memory", None)
        return {**process, **known()} if known else process

    async def close(self) -> None:
        """End all calls and let go of the model."""
        if self._loading is not None:
            await self._loading
        if self._measuring is not None:
            self._measuring.cancel()
        for call, sink in list(self._sinks.items()):
            sink.token.cancel()
            if self._serving:
                self._serving.cancel(call)
        if self._serving is not None:
            await self._serving.close()


class _Engine:
    """Serves calls with an engine that batches for itself: one task for each call."""

    def __init__(
        self,
        model: EngineModel,
        end: Callable[[int, Outcome | BaseException], None],
        send: Callable[[ToGateway], None],
    ) -> None:
        self._model = model
        self._end = end
        self._send = send
        self._tasks: set[asyncio.Task[None]] = set()
        self._leasing: asyncio.Task[None] | None = None

    def serve(self, call: Call, requests: list[Any], sink: CallSink) -> None:
        (request,) = requests  # an engine has its slots for single ones
        self._begin(self._run(call.id, request, sink))

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self, call: int, request: Any, sink: CallSink) -> None:
        outcome: Outcome | BaseException
        try:
            # What comes behind a lease computes with that, from its first step on.
            await self._leased(self._leasing)
            outcome = await self._model.run(request, sink, sink.token)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  it goes to this one caller
            outcome = error
        self._end(call, outcome)

    def cancel(self, call: int) -> None:
        """Nothing more to do: the engine looks at the token."""

    def lease(self, threads: int) -> None:
        """Pass it on: only an engine that can change its thread count is told to."""
        self._leasing = self._begin(self._lease(threads, self._leasing))

    async def _lease(self, threads: int, before: asyncio.Task[None] | None) -> None:
        await self._leased(before)
        await self._model.lease(threads)
        self._send(Leased(threads))

    async def _leased(self, lease: asyncio.Task[None] | None) -> None:
        if lease is not None and not lease.done():
            await asyncio.wait([lease])

    async def close(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._model.close()


def _done(call: int, outcome: Outcome) -> Done | Failed:
    try:
        result = msgspec.Raw(encoder.encode(outcome.result))
    except Exception as error:  # noqa: BLE001  the call must end, whatever the engine gave
        return Failed(call, EngineError(f"the engine gave a result that cannot be sent: {error}").info())
    return Done(call, result, outcome.usage, outcome.finish_reason)


def error_info(error: BaseException) -> ErrorInfo:
    """Any exception as an error that can cross to the caller."""
    if isinstance(error, ModelComposeError):
        return error.info()
    known = out_of_memory(error) or EngineError(f"{type(error).__name__}: {error}")
    return known.info()


def _lost_gpu(error: BaseException) -> str | None:
    """What CUDA says behind which it answers nothing any more in this process."""
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen)
        if isinstance(seen, RuntimeError) and "CUDA error: " in text and any(each in text for each in _STAYS):
            return text.splitlines()[0]
        seen = seen.__cause__ or seen.__context__
    return None


def named(name: str) -> Any:
    """What `package.module:Name` names. Raises ImportError, AttributeError."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
