"""How far does a network see, and how much memory does a pixel take?

Both are tried out. A strip is computed whole, and its right half once more by itself: as far from the cut as
the two differ, a tile needs its neighbours. Meanwhile the largest thing that any layer makes is noted.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import torch
from torch import Tensor, nn

#: The farthest that is looked, in pixels: a network that sees farther sees little there.
_FARTHEST: Final = 48
_HEIGHT: Final = 16
#: What nobody sees, of numbers from 0 to 1: less than a level of 8 bits.
_UNSEEN: Final = 0.5 / 255
#: A layer has what it gets and what it makes, both once more as the library likes them to lie.
_COPIES: Final = 4


class Reach(msgspec.Struct, frozen=True):
    """What was found.

    pixels             how far a tile must reach into its neighbours
    numbers_per_pixel  how many numbers are in memory at once, for each pixel of the input
    """

    pixels: int
    numbers_per_pixel: int


def tried_out(network: Any, multiple: int, device: torch.device) -> Reach:
    """Try a loaded network; sizes are multiples of `multiple`."""
    half = _up(_FARTHEST, multiple)
    strip = _picture(_up(_HEIGHT, multiple), 2 * half).to(device)
    with _watched(network.model) as largest:
        whole = network(strip)
    cut = network(strip[..., half:])
    differs = (whole[..., half * network.scale :] - cut).abs().amax((0, 1, 2)) > _UNSEEN
    columns = int(differs.nonzero().max()) + 1 if bool(differs.any()) else 0
    pixels = min(math.ceil(columns / network.scale), _FARTHEST)
    return Reach(pixels, max(1, _COPIES * largest[0] // strip[0, 0].numel()))


def _picture(height: int, width: int) -> Tensor:
    """A picture with something of every size in it: float32 from 0 to 1, [1, 3, height, width]."""
    chance = torch.Generator().manual_seed(0)
    found = torch.zeros(1, 3, height, width)
    for size in (1, 2, 4, 8, 16):
        noise = torch.rand((1, 3, -(-height // size), -(-width // size)), generator=chance)
        grown = nn.functional.interpolate(noise, scale_factor=size, mode="nearest")
        found += grown[..., :height, :width] / 5
    low, high = found.amin(), found.amax()
    return (found - low) / (high - low)


@contextlib.contextmanager
def _watched(model: nn.Module) -> Iterator[list[int]]:
    """-> a list whose one number is that of the numbers in the largest output of any layer."""
    largest = [0]

    def note(_module: nn.Module, _given: Any, made: Any) -> None:
        if isinstance(made, Tensor):
            largest[0] = max(largest[0], made.numel())

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        yield largest
    finally:
        for hook in hooks:
            hook.remove()


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
