"""Who turns calls into batches, computes them and turns the rows back into results?

One thread owns the device; a second prepares the next batch and finishes the last one meanwhile, so
that tokenizing and encoding overlap computing. `batch.py` decides what goes together.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import operator
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from model_compose.drivers.contract import BatchModel, Item, ModelInfo, Outcome
from model_compose.errors import Cancelled, EngineError, OutOfMemory
from model_compose.runtime.batch import Batcher, Row, Wait
from model_compose.runtime.memory import out_of_memory
from model_compose.runtime.messages import Call, Leased, ToGateway

if TYPE_CHECKING:
    from model_compose.runtime.host import CallSink


class _Pending:
    """A call between `prepare` and `finish`: its requests, and the rows of each."""

    def __init__(self, call: Call, requests: Sequence[Any], sink: CallSink, rows: list[list[Item]]) -> None:
        self.sink = sink
        self.items = [item for items in rows for item in items]
        self.raws: list[Any] = [None] * len(self.items)
        self.missing = len(self.items)
        self._several = call.several
        self._requests = requests
        self._sizes = [len(items) for items in rows]
        self._owners = [i for i, items in enumerate(rows) for _ in items]
        self._done: dict[int, tuple[int, int]] = {}

    def progress(self, row: int, done: int, total: int) -> None:
        """Report how far the request of a row is; of several, how far those are that have begun."""
        self._done[self._owners[row]] = (done, total)
        self.sink.progress(*map(sum, zip(*self._done.values(), strict=True)))

    def outcome(self, finish: Callable[[Any, Sequence[Any]], Outcome]) -> Outcome:
        """What comes of its rows. Raises what the first of those failed with, or what `finish` raises."""
        for raw in self.raws:
            if isinstance(raw, BaseException):
                raise raw
        raws = iter(self.raws)
        found = [
            finish(request, list(itertools.islice(raws, size)))
            for request, size in zip(self._requests, self._sizes, strict=True)
        ]
        if not self._several:
            return found[0]
        usages = [outcome.usage for outcome in found if outcome.usage is not None]
        usage = functools.reduce(operator.add, usages) if usages else None
        return Outcome([outcome.result for outcome in found], usage)


class _Step:
    """One forward pass as the model sees it."""

    def __init__(self, rows: Sequence[tuple[Row, _Pending]], threads: int) -> None:
        self._rows = rows
        self._begun: set[int] = set()
        self.threads = threads

    @property
    def items(self) -> list[Item]:
        """What the model gets."""
        return [pending.items[row.index] for row, pending in self._rows]

    def emit(self, i: int, chunk: Any) -> None:
        sink = self._rows[i][1].sink
        if sink.streaming:
            self._begun.add(i)
            sink.post(chunk)

    def again(self) -> list[int]:
        """Rows that can be computed again: nobody has seen anything of them."""
        return [i for i in range(len(self._rows)) if i not in self._begun]

    def part(self, chosen: Sequence[int]) -> _Step:
        """A pass over some of the rows."""
        return _Step([self._rows[i] for i in chosen], self.threads)

    def progress(self, i: int, done: int, total: int) -> None:
        row, pending = self._rows[i]
        pending.progress(row.index, done, total)

    def cancelled(self, i: int) -> bool:
        return self._rows[i][1].sink.token.cancelled


class BatchLoop:
    """Serves calls with a `BatchModel`. `end(call, outcome)` is called once for each, on the loop."""

    def __init__(
        self,
        model: BatchModel,
        info: ModelInfo,
        end: Callable[[int, Outcome | BaseException], None],
        send: Callable[[ToGateway], None],
    ) -> None:
        self._model = model
        self._end = end
        self._send = send
        self._loop = asyncio.get_running_loop()
        rows, cost = model.budget()
        #: Calls that the worker takes at once: a running batch and a prepared one.
        self.slots = 2 * rows
        self._batcher = Batcher(rows, cost)
        self._calls: dict[int, _Pending] = {}
        self._wake = threading.Condition()
        self._closing = False
        self._threads = info.threads
        self._leased: int | None = None  # a lease that the device thread has not seen
        self._beside = ThreadPoolExecutor(1, "prepare")
        self._device = threading.Thread(target=self._compute, name="device", daemon=True)
        self._device.start()

    def serve(self, call: Call, requests: list[Any], sink: CallSink) -> None:
        self._beside.submit(self._prepare, call, requests, sink)

    def cancel(self, call: int) -> None:
        with self._wake:
            pending = self._calls.get(call)
            if pending is None:
                return
            pending.missing -= self._batcher.cancel(call)
            if pending.missing == 0:
                del self._calls[call]
                self._ends(call, Cancelled("the caller went away"))

    def lease(self, threads: int) -> None:
        with self._wake:
            self._leased = threads
            self._wake.notify()

    async def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._device.join)
        self._beside.shutdown(wait=True)

    def _prepare(self, call: Call, requests: list[Any], sink: CallSink) -> None:
        try:
            if _cancelled(sink):
                raise Cancelled("the caller went away")
            pending = _Pending(call, requests, sink, [self._model.prepare(each) for each in requests])
            if not pending.items:
                self._ends(call.id, pending.outcome(self._model.finish))
                return
        except Exception as error:  # noqa: BLE001  it goes to the caller of this one request
            self._ends(call.id, error)
            return
        with self._wake:
            if _cancelled(sink):  # while it was prepared, when `cancel` did not know it yet
                self._ends(call.id, Cancelled("the caller went away"))
                return
            self._calls[call.id] = pending
            rows = [Row(call.id, i, item.cost, item.key, call.alone) for i, item in enumerate(pending.items)]
            self._batcher.add(rows)
            self._wake.notify()

    def _compute(self) -> None:
        while True:
            with self._wake:
                if self._leased is not None:
                    self._threads, self._leased = self._leased, None
                    self._send(Leased(self._threads))
                if self._closing:
                    return
                batch = self._batcher.next(time.monotonic())
                if not isinstance(batch, list):
                    until = batch.until - time.monotonic() if isinstance(batch, Wait) else None
                    self._wake.wait(until if until is None else max(until, 0.0))
                    continue
                rows = [(row, self._calls[row.call]) for row in batch]
                step = _Step(rows, self._threads)
            began = time.monotonic()
            raws = self._forward(step)
            now = time.monotonic()
            with self._wake:
                self._batcher.computed(batch, now, now - began)
                for (row, pending), raw in zip(rows, raws, strict=True):
                    pending.raws[row.index] = raw
                    pending.missing -= 1
                    if pending.missing == 0:
                        del self._calls[row.call]
                        self._beside.submit(self._finish, row.call, pending)

    def _forward(self, step: _Step) -> Sequence[Any]:
        """Compute a batch; where memory does not suffice for it, each half of it once more."""
        raws = self._pass(step)
        if not isinstance(raws, OutOfMemory):
            return raws
        ended: list[Any] = [raws] * len(step.items)
        again = step.again()
        if len(step.items) == 1 or not again:
            return ended
        middle = (len(again) + 1) // 2
        for half in filter(None, (again[:middle], again[middle:])):
            found = self._pass(step.part(half))
            for i, raw in zip(
                half, [found] * len(half) if isinstance(found, OutOfMemory) else found, strict=True
            ):
                ended[i] = raw
        return ended

    def _pass(self, step: _Step) -> Sequence[Any] | OutOfMemory:
        """One forward pass. An error that is given back holds nothing of the pass in memory any more."""
        items = step.items
        try:
            raws = self._model.forward(items, step)
            if len(raws) != len(items):
                raise EngineError(f"the model gave {len(raws)} rows for {len(items)}")
        except OutOfMemory as error:
            return _bare(error)
        except Exception as error:  # noqa: BLE001  the batch fails; the worker goes on
            return out_of_memory(error) or [error] * len(items)
        return raws

    def _finish(self, call: int, pending: _Pending) -> None:
        outcome: Outcome | BaseException
        try:
            outcome = pending.outcome(self._model.finish)
        except Exception as error:  # noqa: BLE001  it goes to the caller of this one request
            outcome = error
        self._ends(call, outcome)

    def _ends(self, call: int, outcome: Outcome | BaseException) -> None:
        self._loop.call_soon_threadsafe(self._end, call, outcome)


def _bare(error: OutOfMemory) -> OutOfMemory:
    """The error without its traceback: the frames in it hold the tensors that took the memory."""
    return OutOfMemory(
        error.message,
        needed_bytes=error.needed_bytes,
        free_bytes=error.free_bytes,
        pool=error.pool,
        hint=error.hint,
    )


def _cancelled(sink: CallSink) -> bool:
    return sink.token.cancelled
