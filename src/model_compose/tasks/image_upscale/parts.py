"""Into which tiles does a request divide its picture, and how does each find its way back into it?"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_compose.drivers.contract import Item
from model_compose.errors import InvalidInput
from model_compose.tasks.image_upscale.canvas import Canvas, Original, wanted_size
from model_compose.tasks.image_upscale.spec import ImageUpscale
from model_compose.tasks.image_upscale.tiles import Grid, Tile, Weights, divide
from model_compose.tasks.images import Pixels, decode

#: Of a tile that nobody asked for, without what it reaches into its neighbours: what is computed twice shall
#: not be most of it.
SMALLEST_CORE: Final = 64
#: Of a request: smaller tiles, or more of them, compute little but their overlaps.
_SMALLEST_TILE: Final = 16
_MOST_TILES: Final = 20_000

_LATENT_ONLY: Final = ("num_inference_steps", "eta", "seed")


class Tiling(NamedTuple):
    """How a network wants its tiles.

    scale     how many times larger it makes them
    window    the side of one that nobody asked for, with what it reaches into its neighbours
    reach     how far that is
    multiple  of which places and sizes are
    minimum   of sizes
    """

    scale: int
    window: int
    reach: int
    multiple: int
    minimum: int


class Part(NamedTuple):
    """A tile of a picture."""

    canvas: Canvas
    grid: Grid
    tile: Tile

    @property
    def grey(self) -> bool:
        """Whether its picture has no colours."""
        return bool(self.canvas.original.pixels.shape[2] == 1)

    def numbers(self) -> Pixels:
        """From 0 to 1, [3, height, width]; grey is three equal colours."""
        original = self.canvas.original
        pixels = self.grid.part(original.pixels, self.tile).transpose(2, 0, 1)
        pixels = np.broadcast_to(pixels, (3, *pixels.shape[1:]))
        found: Pixels = np.divide(pixels, 65535 if original.deep else 255, dtype=np.float32)
        return found

    def weights(self, scale: int) -> Weights | None:
        """How much each pixel of it counts, [height, width]; None where it is the whole picture."""
        if len(self.grid) == 1:
            return None
        down = self.grid.down.weights(self.tile.row, scale)
        across = self.grid.across.weights(self.tile.column, scale)
        return np.multiply.outer(down, across)

    def add(self, whole: NDArray[np.uint16], scale: int) -> None:
        """Add what was made of it to the picture: `in_16_bits`, with its weights."""
        number = self.tile.row * len(self.grid.across.starts) + self.tile.column
        self.canvas.add(number, self.tile.top * scale, self.tile.left * scale, whole)


def divided(request: ImageUpscale, tiling: Tiling, most_pixels: int) -> list[Item]:
    """The picture of a request, decoded, as items whose payload is a `Part`. Raises InvalidInput."""
    for field in _LATENT_ONLY:
        if getattr(request, field) is not None:
            raise InvalidInput(
                f"`{field}` belongs to `ldsr`, and this network computes once",
                field=field,
                hint="leave it out",
            )
    original = Original.of(decode(request.image, most_pixels=most_pixels))
    size = wanted_size(request, original.size, tiling.scale)
    grid = _grid(request, original, tiling)
    canvas = Canvas(original, tiling.scale, size)
    key = (grid.down.size, grid.across.size)
    return [Item(math.prod(key), key, Part(canvas, grid, tile)) for tile in grid.tiles()]


def _grid(request: ImageUpscale, original: Original, tiling: Tiling) -> Grid:
    tile, pad = request.tile_size, request.tile_pad_size
    pad = tiling.reach if pad is None else pad
    tile = max(tiling.window - 2 * pad, SMALLEST_CORE) if tile is None else tile
    _check(tile, pad)
    width, height = original.size
    grid = divide(height, width, tile, pad, multiple=tiling.multiple, minimum=tiling.minimum)
    if len(grid) > _MOST_TILES:
        raise InvalidInput(
            f"{width} x {height} pixels are {len(grid):,} tiles, and {_MOST_TILES:,} are the most",
            field="image" if request.tile_size is None else "tile_size",
            hint="choose a larger `tile_size`, or send a smaller image",
        )
    return grid


def _check(tile: int, pad: int) -> None:
    if 0 < tile < _SMALLEST_TILE:
        raise InvalidInput(
            f"`tile_size` is {tile}, and {_SMALLEST_TILE} is the least",
            field="tile_size",
            hint="0 is the whole image at once",
        )
    if tile and pad > 2 * tile:
        raise InvalidInput(
            f"`tile_pad_size` is {pad}: tiles of {tile} pixels would compute little but their overlaps",
            field="tile_pad_size",
            hint=f"{2 * tile} is the most with this `tile_size`",
        )
