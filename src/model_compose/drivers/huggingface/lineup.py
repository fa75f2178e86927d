"""Which sequences share the next forward pass, and who waits?

Continuous batching: sequences join and leave between any two tokens. Pure: neither torch nor a thread.
Those that run lie in the first slots of the cache, in their order; those whose prompt is being computed
lie behind them. When one leaves, the last takes its slot, so that there are never holes.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

#: Prompts are computed together if the longest has not more than this factor of the shortest's tokens.
_ALIKE: Final = 2


class Member(Protocol):
    """What the lineup knows and keeps of a sequence.

    length  tokens that are known: the prompt, and what has been said
    most    tokens that it may come to have
    pad     empty cells before its first
    cells   cells of the cache that are filled, the empty ones included
    """

    pad: int
    cells: int

    @property
    def length(self) -> int: ...

    @property
    def most(self) -> int: ...


M = TypeVar("M", bound=Member)


class Move(NamedTuple):
    """Copy the first `cells` cells of one slot to another."""

    source: int
    target: int
    cells: int


class Prompt(NamedTuple, Generic[M]):
    """A pass over the prompts of some sequences: `width` cells of each from `start` on."""

    members: list[M]
    first_slot: int
    start: int
    width: int

    @property
    def complete(self) -> bool:
        """Whether it reaches the end of the prompts, so that tokens can be chosen."""
        member = self.members[0]
        return self.start + self.width == member.pad + member.length


class Lineup(Generic[M]):
    """The sequences of one model.

    max_rows      sequences that run at once
    max_cells     cells that all of them may take, padding included; one alone may exceed it
    prompt_batch  tokens of prompts that are computed in one pass
    """

    def __init__(self, max_rows: int, max_cells: int, prompt_batch: int) -> None:
        self._max_rows = max_rows
        self._max_cells = max_cells
        self._prompt_batch = prompt_batch
        self._limit = max_rows
        self.waiting: deque[M] = deque()
        self.filling: list[M] = []
        self.running: list[M] = []

    def __len__(self) -> int:
        return len(self.waiting) + len(self.filling) + len(self.running)

    def add(self, member: M) -> None:
        """A sequence comes, and waits."""
        if not self:
            self._limit = self._max_rows
        self.waiting.append(member)

    def prompt(self) -> Prompt[M] | None:
        """The next pass over prompts, if there is anybody whose prompt can be computed."""
        if not self.filling:
            self.filling = self._joining()
        if not self.filling:
            return None
        first = self.filling[0]
        left = first.pad + first.length - first.cells
        width = min(left, max(1, self._prompt_batch // len(self.filling)))
        return Prompt(list(self.filling), len(self.running), first.cells, width)

    def prompted(self, prompt: Prompt[M]) -> None:
        """That pass is over."""
        for member in prompt.members:
            member.cells = prompt.start + prompt.width
        if prompt.complete:
            self.running += self.filling
            self.filling = []

    def leave(self, member: M) -> list[Move]:
        """A sequence ends, wherever it is; -> what to move in the cache, in this order."""
        if member in self.waiting:
            self.waiting.remove(member)
            return []
        moves: list[Move] = []
        if member in self.running:
            slot = self.running.index(member)
            self._fill_slot(self.running, slot, 0, moves)
            if self.filling:
                # The slot behind those that run is free: the last of those that fill takes it.
                last = self.filling.pop()
                moves.append(Move(len(self.running) + len(self.filling) + 1, len(self.running), last.cells))
                self.filling.insert(0, last)
        elif member in self.filling:
            self._fill_slot(self.filling, self.filling.index(member), len(self.running), moves)
        return [move for move in moves if move.source != move.target]

    def _fill_slot(self, rows: list[M], place: int, before: int, moves: list[Move]) -> None:
        last = rows.pop()
        if place < len(rows):
            moves.append(Move(before + len(rows), before + place, last.cells))
            rows[place] = last

    def start_over(self, rows: int) -> None:
        """Have all sequences wait again, in their order, because the cache is lost.

        No more than `rows` run at once from now on, until none is left.
        """
        back = [*self.running, *self.filling]
        for member in back:
            member.cells = member.pad = 0
        self.running, self.filling = [], []
        self.waiting.extendleft(reversed(back))
        self._limit = rows

    def _joining(self) -> list[M]:
        """Those that wait and fit, in the order in which they came, while they are alike."""
        group: list[M] = []
        longest = shortest = 0
        while self.waiting:
            member = self.waiting[0]
            longer, shorter = max(longest, member.length), min(shortest or member.length, member.length)
            if group and (longer * (len(group) + 1) > self._prompt_batch or longer > _ALIKE * shorter):
                break
            if not self._fits([*group, member], longer):
                break
            group.append(self.waiting.popleft())
            longest, shortest = longer, shorter
        for member in group:
            member.pad = longest - member.length
            member.cells = 0
        return group

    def _fits(self, group: list[M], longest: int) -> bool:
        rows = len(self.running) + len(group)
        if rows == 1:
            return True
        most = max(
            *(member.pad + member.most for member in self.running),
            *(longest - member.length + member.most for member in group),
            0,
        )
        return rows <= self._limit and rows * most <= self._max_cells
