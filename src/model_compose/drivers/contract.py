"""What must an engine do to hold a model, and what does it get to do it with?

A driver fills one of two protocols for each task that it can do. `BatchModel` is for models that
compute one batch at a time (encoders, classifiers, image models): the runtime queues, sorts and cuts
batches for it. `EngineModel` is for engines that batch for themselves (llama.cpp, vLLM): the runtime
hands it up to `ModelInfo.slots` requests at once. Neither knows whether it runs in a worker process
or inside the caller's.

This module is imported in workers that may run in another Python environment, so it needs nothing
but msgspec and the standard library.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol, TypeAlias

import msgspec
from msgspec import Meta

from model_compose.sources.spec import LoadedSource
from model_compose.types import FinishReason, Usage

#: Told while a model loads: what is done (`weights`, `warm-up`), how far it is, and of how much (0 where
#: nobody knows). May be called from any thread, and as often as one likes.
LoadProgress: TypeAlias = Callable[[str, int, int], None]


class Quantization(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Smaller weights: how, and what is computed with them."""

    type: Annotated[
        Literal["int8", "int4", "fp4", "nf4"], Meta(description="number format that the weights are kept in")
    ]
    compute_dtype: Annotated[
        Literal["float32", "float16", "bfloat16"] | None,
        Meta(description="number format to compute in; default: that of `precision`; not with `int8`"),
    ] = None
    double_quant: Annotated[
        bool, Meta(description="with `fp4` and `nf4`: quantize the scales of the weights too")
    ] = False

    def __post_init__(self) -> None:
        if self.double_quant and self.type not in ("fp4", "nf4"):
            raise ValueError("`double_quant` goes with `fp4` and `nf4` only")


class LoadedAdapter(msgspec.Struct, frozen=True):
    """A LoRA adapter on disk. `weight` applies to requests that name no blend of their own."""

    name: str
    source: LoadedSource
    weight: float = 1.0
    precision: str | None = None


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a driver needs to load a model. Fields keep the names of the file.

    task        the task's name, such as `chat-completion`
    threads     CPU threads that the worker may use while it computes
    scratch     a private folder that is removed with the service, for sockets and the like
    warmup      compute once before `load` returns
    implementation  the user's own class, `/path/to/file.py:Class` or `package.module:Class`
    options     the driver's own settings, checked against its options class
    """

    task: str
    source: LoadedSource | None
    threads: int
    scratch: str
    device: str = "auto"
    device_mode: str = "single"
    precision: str | None = None
    quantization: Quantization | None = None
    architecture: str | None = None
    implementation: str | None = None
    low_cpu_mem_usage: bool = False
    fast_tokenizer: bool = True
    max_seq_length: int | None = None
    batch_size: int | None = None
    adapters: tuple[LoadedAdapter, ...] = ()
    warmup: bool = False
    options: dict[str, Any] = {}

    @property
    def named_gpu(self) -> str | None:
        """The memory pool of the GPU that `device` names; None where it names none (`auto` does not)."""
        if not self.device.startswith("cuda") or sys.platform == "darwin":
            return None
        return self.device if ":" in self.device else "cuda:0"


class DeviceMemory(msgspec.Struct, frozen=True):
    """Bytes of a GPU: all of it, what nobody had taken at a moment, and what the process held that asked."""

    total: int
    free: int
    held: int


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a loaded model says of itself.

    slots           requests that it takes at once; further ones wait in the gateway
    threads         CPU threads that it computes with
    elastic         it can change that number while it is loaded (`Step.threads`, `EngineModel.lease`)
    context_length  tokens of prompt and completion that one request may have
    lists           one call may carry several requests; the runtime says so of every `BatchModel`
    details         shown by `ps`: quantization, device, ...
    """

    slots: int
    threads: int = 1
    elastic: bool = False
    context_length: int | None = None
    lists: bool = False
    details: dict[str, str] = {}


class Outcome(msgspec.Struct, frozen=True):
    """How a request ended well: the task's result and what it cost."""

    result: Any
    usage: Usage | None = None
    finish_reason: FinishReason | None = None


class CancelToken(Protocol):
    """Tells a running request that nobody waits for it any more."""

    @property
    def cancelled(self) -> bool:
        """True from the moment that the caller went away."""

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call back once on cancellation, at once if it has happened; from any thread."""


class Sink(Protocol):
    """Takes what a running request gives before its end. Its methods may be called from any thread."""

    @property
    def streaming(self) -> bool:
        """Whether anybody wants chunks; without, an engine may save the work."""

    @property
    def ready(self) -> bool:
        """Whether `emit` would return at once, because the reader is not behind."""

    def emit(self, chunk: Any) -> bool:
        """Pass one chunk on. Blocks while the reader is slow; False means: cancelled, stop."""

    def progress(self, done: int, total: int) -> None:
        """Report how far the request is, in units of the task (steps, tiles, tokens)."""


class Item(msgspec.Struct, frozen=True):
    """One row of a batch.

    cost     what the batch budget counts: tokens, pixels
    key      only items with equal keys share a forward pass: image size, number of steps
    payload  what `forward` needs
    """

    cost: int
    key: Hashable
    payload: Any


class Step(Protocol):
    """One forward pass as its model sees it; `i` is the index of the item in the batch."""

    @property
    def threads(self) -> int:
        """CPU threads leased for this pass."""

    def emit(self, i: int, chunk: Any) -> None:
        """Stream one chunk of item `i`, if anybody wants chunks. Never waits for a slow reader."""

    def progress(self, i: int, done: int, total: int) -> None:
        """Report how far item `i` is."""

    def cancelled(self, i: int) -> bool:
        """Whether the caller of item `i` went away; its raw result is thrown away."""


class BatchModel(Protocol):
    """A model that computes one batch at a time.

    `prepare` and `finish` run on a CPU thread beside the device: the next batch is prepared while
    this one computes.
    """

    def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        """Load weights; `slots` is ignored. Raises ModelLoadError, DriverMissing."""

    def prepare(self, request: Any) -> list[Item]:
        """Turn a request into rows: tokenize, decode. Raises InvalidInput, RequestTooLong."""

    def budget(self) -> tuple[int, int]:
        """The most rows and the most padded cost (rows times the longest) of one forward pass."""

    def forward(self, items: Sequence[Item], step: Step) -> Sequence[Any]:
        """Compute; an exception in the place of a row fails that row alone.

        Raises OutOfMemory (or MemoryError) when the batch is too much; its halves are tried then.
        """

    def finish(self, request: Any, raws: Sequence[Any]) -> Outcome:
        """Turn the raw rows of one request into its result."""

    def memory(self) -> Mapping[str, int]:
        """Bytes that the model takes now, by pool (`cuda:0`). Optional: for what is not in RAM."""


class EngineModel(Protocol):
    """An engine that batches for itself."""

    async def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        """Load weights. Raises ModelLoadError, DriverMissing."""

    async def run(self, request: Any, sink: Sink, cancel: CancelToken) -> Outcome:
        """Serve one request, beside up to `slots - 1` others. Raises InvalidInput, EngineError."""

    async def close(self) -> None:
        """Let go of everything; the process ends next, unless the host is embedded."""

    def metrics(self) -> Mapping[str, float]:
        """Counters and gauges of the engine, by our metric names."""

    def memory(self) -> Mapping[str, int]:
        """Bytes that the model takes now, by pool (`cuda:0`). Optional: for what is not in RAM."""

    async def lease(self, threads: int) -> None:
        """Compute with this many CPU threads from now on; returns once that holds. For `elastic` ones."""
