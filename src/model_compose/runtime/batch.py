"""Which rows go into the next forward pass?

Natural batching: what queued while the device was busy goes together, up to a budget. A lone caller
never waits. Pure: no clock, no thread; the worker's device thread asks `next` whenever it is free.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from typing import Final

import msgspec

#: After a batch of more than one row, its callers get this long to come back with their next
#: request; otherwise closed-loop clients swing between batches of 1 and of all the others.
RETURN_WAIT_S: Final = 0.002
RETURN_WAIT_SHARE: Final = 0.05


class Row(msgspec.Struct, frozen=True):
    """One item of one call, as the batcher sees it: `call` and `index` say whose it is."""

    call: int
    index: int
    cost: int
    key: Hashable
    alone: bool = False


class Wait(msgspec.Struct, frozen=True):
    """Nothing yet: ask again at `until` (seconds on the caller's clock) or when a row comes."""

    until: float


class Batcher:
    """Collects rows and hands them out in batches.

    max_rows  the most rows in one forward pass
    max_cost  the most padded cost: rows times the longest of them; a single row may exceed it

    The oldest row is always in the next batch, so nothing starves; it is joined by rows with the same
    key whose cost is nearest to its own, which keeps padding small.
    """

    def __init__(self, max_rows: int, max_cost: int) -> None:
        self._max_rows = max_rows
        self._max_cost = max_cost
        self._rows: deque[Row] = deque()
        self._returning: frozenset[int] = frozenset()
        self._wait_until = 0.0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, rows: Sequence[Row]) -> None:
        """Queue rows behind those that wait."""
        self._rows.extend(rows)

    def cancel(self, call: int) -> int:
        """Drop the waiting rows of a call; -> how many there were."""
        before = len(self._rows)
        self._rows = deque(row for row in self._rows if row.call != call)
        return before - len(self._rows)

    def computed(self, batch: Sequence[Row], now: float, took_s: float) -> None:
        """A batch ended at `now` after `took_s` seconds: its callers may return in a moment."""
        callers = {row.call for row in batch}
        self._wait_until = now + min(RETURN_WAIT_S, RETURN_WAIT_SHARE * took_s) if len(callers) > 1 else now
        self._returning = frozenset(callers) if len(callers) > 1 else frozenset()

    def next(self, now: float) -> list[Row] | Wait | None:
        """The rows of the next forward pass, longest first; None when no row waits."""
        if not self._rows:
            return None
        anchor = self._rows[0]
        if anchor.alone:
            return self._take([anchor])
        batch = self._together(anchor)
        if len(batch) < min(len(self._returning), self._max_rows) and now < self._wait_until:
            return Wait(self._wait_until)
        return self._take(batch)

    def _together(self, anchor: Row) -> list[Row]:
        others = [r for r in self._rows if r is not anchor and r.key == anchor.key and not r.alone]
        # A stable sort: of rows equally near, the older goes first.
        others.sort(key=lambda row: abs(row.cost - anchor.cost))
        batch, longest = [anchor], anchor.cost
        for row in others:
            if len(batch) == self._max_rows:
                break
            longest_then = max(longest, row.cost)
            if longest_then * (len(batch) + 1) > self._max_cost:
                continue
            batch.append(row)
            longest = longest_then
        return batch

    def _take(self, batch: list[Row]) -> list[Row]:
        taken = {id(row) for row in batch}
        self._rows = deque(row for row in self._rows if id(row) not in taken)
        return sorted(batch, key=lambda row: -row.cost)
