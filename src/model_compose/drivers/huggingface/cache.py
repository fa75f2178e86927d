"""Where do the keys and values of many sequences lie, so that one forward pass reads all of them?

Each sequence has a slot, a row of one buffer for each layer; its cells are written in place. The library's
own cache would copy all of it for every token. A sequence that joins beside others may begin behind
empty cells (`pad`), so that those that joined together end at the same cell.
"""

from __future__ import annotations

import model_compose.drivers.huggingface.lean  # isort: skip  # noqa: F401  before all of the library

from collections.abc import Sequence
from typing import Any, Final

import torch
from transformers.cache_utils import Cache

#: A sequence gets so many cells more than it needs, or half as many again as it had.
_CELLS: Final = 64


class SlotCache(Cache):
    """Keys and values, `[slots, heads, cells, head width]` for each layer.

    `aim` says which slots the next forward pass computes, and where it writes.

    most_cells  of all slots together; more are had when they are needed, and none in advance
    """

    def __init__(self, most_cells: int) -> None:
        super().__init__(layers=[])
        self._most_cells = most_cells
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []
        self._slots = 0
        self._cells = 0
        self._first = 0
        self._at: int | torch.Tensor = 0
        self._end = 0

    def reserve(self, slots: int, cells: int) -> None:
        """Have room for so many sequences of such a length."""
        if slots <= self._slots and cells <= self._cells:
            return
        needed = max(slots, self._slots), max(cells, self._cells)
        # All is copied whenever it grows, so it grows by more than is needed now, where that is allowed.
        ample = (
            needed[0] if slots <= self._slots else max(slots, 2 * self._slots),
            needed[1] if cells <= self._cells else max(cells + _CELLS, self._cells + self._cells // 2),
        )
        self._slots, self._cells = ample if ample[0] * ample[1] <= self._most_cells else needed
        for buffers in (self._keys, self._values):
            for i, old in enumerate(buffers):
                new = old.new_zeros((self._slots, old.shape[1], self._cells, old.shape[3]))
                new[: old.shape[0], :, : old.shape[2]] = old
                buffers[i] = new

    def aim(self, first: int, starts: Sequence[int], width: int) -> None:
        """The next pass computes the slots from `first` on: `width` cells of each, from its start on.

        Only passes of one cell may start at different places.
        """
        self._first = first
        self._end = max(starts) + width
        same = all(start == starts[0] for start in starts)
        self._at = starts[0] if same else torch.tensor(starts)
        self.reserve(first + len(starts), self._end)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Called by the attention of each layer: write what is new, give all of it back."""
        if layer_idx == len(self._keys):
            for buffers, states in ((self._keys, key_states), (self._values, value_states)):
                shape = (self._slots, states.shape[1], self._cells, states.shape[3])
                buffers.append(states.new_zeros(shape))
        return self._write(self._keys[layer_idx], key_states), self._write(
            self._values[layer_idx], value_states
        )

    def _write(self, buffer: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        rows = buffer[self._first : self._first + states.shape[0]]
        if isinstance(self._at, int):
            rows[:, :, self._at : self._at + states.shape[2]] = states
        else:
            rows[torch.arange(states.shape[0]), :, self._at] = states[:, :, 0]
        return rows[:, :, : self._end]

    def move(self, source: int, target: int, cells: int) -> None:
        """Copy a sequence of so many cells to another slot."""
        for buffer in (*self._keys, *self._values):
            buffer[target, :, :cells] = buffer[source, :, :cells]

    def forget(self, slot: int) -> None:
        """Empty a slot: what is no number would spoil those who come after, though they do not look at it."""
        for buffer in (*self._keys, *self._values):
            buffer[slot] = 0

    def clear(self) -> None:
        """Let go of all memory."""
        self._keys, self._values = [], []
        self._slots = self._cells = 0

    @property
    def size_bytes(self) -> int:
        """What the buffers take."""
        return sum(buffer.nbytes for buffer in (*self._keys, *self._values))

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Cells before those that are computed now."""
        return self._at if isinstance(self._at, int) else self._end - 1

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        """Length and offset of the cells that are read."""
        return self._end, 0
