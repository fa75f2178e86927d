"""Which workers may compute now, and with how many threads each?

Compute engines spin while they wait for their own threads: two of them on the same cores are many
times slower than one after the other. So the threads of workers that compute never exceed the cores.
A worker that can change its thread count between batches (`elastic`) gets a share; one whose count is
fixed at start (llama.cpp) gets all of its threads or none. Where they do not fit together, they take
turns, as a gang scheduler does: a worker whose turn is over is paused, whole process, for a slice.

Pure: the runtime performs the effects (`Grant` is a message to the worker, `Pause` and `Resume` are
SIGSTOP and SIGCONT) and calls back at `WakeAt`. A worker alone is never paused.
"""

from __future__ import annotations

from typing import Final

import msgspec

#: Long enough that switching costs nothing beside it, short enough that a reader does not see it.
SLICE_S: Final = 0.05
#: A timer may fire so much before its time, because some event loops count whole milliseconds.
EARLY_S: Final = 0.001


class Grant(msgspec.Struct, frozen=True):
    """An elastic worker shall compute with this many threads from its next batch on."""

    worker: str
    threads: int


class Pause(msgspec.Struct, frozen=True):
    """The worker's turn is over."""

    worker: str


class Resume(msgspec.Struct, frozen=True):
    """The worker's turn comes, or it has nothing to do and may listen."""

    worker: str


class WakeAt(msgspec.Struct, frozen=True):
    """Call `tick` at this time."""

    at: float


Effect = Grant | Pause | Resume | WakeAt


class _Worker(msgspec.Struct):
    threads: int
    elastic: bool
    held: int  # the most threads that it may be computing with
    target: int  # threads that it has been told to use
    busy: bool = False
    paused: bool = False
    fresh: bool = False  # busy, but has not computed since: a grant applies to its very first batch


class Leases:
    """The state of all loaded workers on `cores` CPU threads; methods give the effects to perform."""

    def __init__(self, cores: int) -> None:
        self._cores = cores
        self._workers: dict[str, _Worker] = {}
        self._turns: list[str] = []  # busy workers; those at the front run
        self._slice_ends: float | None = None

    def add(self, worker: str, threads: int, *, elastic: bool, now: float) -> list[Effect]:
        """A worker is loaded and idle. `threads` is what it computes with unless told otherwise."""
        threads = min(threads, self._cores)
        self._workers[worker] = _Worker(threads, elastic, held=threads, target=threads)
        return self._settle(now)

    def remove(self, worker: str, now: float) -> list[Effect]:
        """A worker is gone."""
        self._workers.pop(worker, None)
        if worker in self._turns:
            self._turns.remove(worker)
        return self._settle(now)

    def busy(self, worker: str, now: float) -> list[Effect]:
        """A worker has calls to compute."""
        state = self._workers[worker]
        if not state.busy:
            state.busy = state.fresh = True
            self._turns.append(worker)
        return self._settle(now)

    def idle(self, worker: str, now: float) -> list[Effect]:
        """A worker has no calls left; one that was removed before is no matter."""
        state = self._workers.get(worker)
        if state is not None and state.busy:
            state.busy = False
            self._turns.remove(worker)
        return self._settle(now)

    def leased(self, worker: str, threads: int, now: float) -> list[Effect]:
        """An elastic worker computes with this many threads now; one that was removed is no matter."""
        state = self._workers.get(worker)
        if state is not None:
            # An answer to an older, smaller grant must not hide a larger one that is on its way.
            state.held = max(threads, state.target)
        return self._settle(now)

    def tick(self, now: float) -> list[Effect]:
        """Time has passed."""
        if self._slice_ends is not None and now >= self._slice_ends - EARLY_S:
            ran = [name for name in self._turns if not self._workers[name].paused]
            self._turns = [name for name in self._turns if name not in ran] + ran
            self._slice_ends = None
        return self._settle(now)

    def running(self) -> dict[str, int]:
        """Threads of each worker that computes now; their sum never exceeds the cores."""
        return {n: w.held for n, w in self._workers.items() if w.busy and not w.paused}

    def _settle(self, now: float) -> list[Effect]:
        grants = self._share()
        run = self._who_runs()
        # Pauses first, so that at no time too many compute.
        effects: list[Effect] = []
        for name, worker in self._workers.items():
            if worker.busy and not worker.paused and name not in run:
                worker.paused = True
                effects.append(Pause(name))
        effects += grants
        for name, worker in self._workers.items():
            if worker.paused and (not worker.busy or name in run):
                worker.paused = False
                effects.append(Resume(name))
            if name in run:
                worker.fresh = False
        if len(run) == len(self._turns):
            self._slice_ends = None
        elif self._slice_ends is None:
            self._slice_ends = now + SLICE_S
            effects.append(WakeAt(self._slice_ends))
        return effects

    def _who_runs(self) -> set[str]:
        run: set[str] = set()
        free = self._cores
        for name in self._turns:
            if self._workers[name].held <= free:
                run.add(name)
                free -= self._workers[name].held
        return run

    def _share(self) -> list[Effect]:
        """Divide what fixed workers leave among the elastic ones that are busy, at least one each."""
        elastic = [w for w in self._turns if self._workers[w].elastic]
        if not elastic:
            return []
        fixed = sum(self._workers[w].threads for w in self._turns if not self._workers[w].elastic)
        free = max(self._cores - fixed, 0) or self._cores
        effects: list[Effect] = []
        for i, name in enumerate(elastic):
            worker = self._workers[name]
            share = max(1, free // len(elastic) + (i < free % len(elastic)))
            share = min(share, worker.threads)
            if share != worker.target:
                worker.target = share
                effects.append(Grant(name, share))
            worker.held = share if worker.fresh else max(worker.held, share)
        return effects
