"""Which parts of a picture are computed one by one, and how do they become one picture again?

All tiles of a picture have one size, so that they share forward passes, and begin at multiples of what the
network wants. Neighbours overlap: what lies near the cut edge of a tile is computed without what is beyond
it, so there the neighbour counts. Between them a linear ramp leads from one to the other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]


class Axis(msgspec.Struct, frozen=True):
    """The tiles along one side of a picture.

    size    of each
    starts  where each begins, from 0 on
    ramp    how far the mixing of two neighbours reaches, to either side of the middle of their overlap
    """

    size: int
    starts: tuple[int, ...]
    ramp: float

    @property
    def length(self) -> int:
        """What the tiles cover."""
        return self.starts[-1] + self.size

    def weights(self, i: int, scale: int) -> Weights:
        """How much each pixel of tile `i` counts, when the tile is so many times larger."""
        position = self.starts[i] + (np.arange(self.size * scale) + 0.5) / scale
        found = np.ones(position.shape)
        if i > 0:
            found *= self._rise(position, i)
        if i + 1 < len(self.starts):
            found *= 1 - self._rise(position, i + 1)
        return found.astype(np.float32)

    def _rise(self, position: NDArray[np.float64], i: int) -> NDArray[np.float64]:
        """From 0 in the tile before `i` to 1 in tile `i`."""
        middle = (self.starts[i - 1] + self.size + self.starts[i]) / 2
        if self.ramp == 0:
            return (position > middle).astype(np.float64)
        found: NDArray[np.float64] = np.clip((position - middle) / (2 * self.ramp) + 0.5, 0, 1)
        return found


class Tile(NamedTuple):
    """One part: its place in the grid, and its upper left corner in pixels."""

    row: int
    column: int
    top: int
    left: int


class Grid(msgspec.Struct, frozen=True):
    """All tiles of a picture, which may cover a little more than it has."""

    down: Axis
    across: Axis

    def __len__(self) -> int:
        return len(self.down.starts) * len(self.across.starts)

    def tiles(self) -> Iterator[Tile]:
        """Row by row."""
        for row, top in enumerate(self.down.starts):
            for column, left in enumerate(self.across.starts):
                yield Tile(row, column, top, left)

    def part(self, pixels: NDArray[Any], tile: Tile) -> NDArray[Any]:
        """The pixels of a tile; beyond the edge of the picture they are reflected."""
        height, width = self.down.size, self.across.size
        found = pixels[tile.top : tile.top + height, tile.left : tile.left + width]
        missing = ((0, height - found.shape[0]), (0, width - found.shape[1]), (0, 0))
        return np.pad(found, missing, mode="reflect") if any(map(any, missing)) else found


def divide(height: int, width: int, tile: int, pad: int, *, multiple: int = 1, minimum: int = 1) -> Grid:
    """Tiles for a picture.

    tile      their most pixels to a side, without what they reach into their neighbours; 0: all in one
    pad       how far they reach into their neighbours
    multiple  of which their places and sizes are
    minimum   of their sizes
    """
    lengths = (_up(max(side, minimum), multiple) for side in (height, width))
    return Grid(*(_axis(length, tile, pad, multiple, minimum) for length in lengths))


def _axis(length: int, tile: int, pad: int, multiple: int, minimum: int) -> Axis:
    size = _up(max(max(tile, multiple) + 2 * pad, minimum), multiple)
    if tile == 0 or size >= length:
        return Axis(length, (0,), 0.0)
    gaps = math.ceil((length - size) / _step(size, pad, multiple))
    # As many tiles, each no larger than it must be.
    while size - multiple >= minimum and _covered(gaps, size - multiple, pad, multiple) >= length:
        size -= multiple
    span = (length - size) // multiple
    starts = tuple(i * span // gaps * multiple for i in range(gaps + 1))
    closest = min(after - before for before, after in itertools.pairwise(starts))
    return Axis(size, starts, min(pad, closest) / 2)


def _covered(gaps: int, size: int, pad: int, multiple: int) -> int:
    """How far tiles of a size reach, with so many gaps between their starts."""
    return gaps * _step(size, pad, multiple) + size


def _step(size: int, pad: int, multiple: int) -> int:
    """How far apart tiles may be that reach so far into their neighbours."""
    return max(0, size - 2 * pad) // multiple * multiple


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
