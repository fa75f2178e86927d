"""How is a picture taken apart for a network, and how do the parts that come back become a picture?

Networks know colours, or grey, and nothing of transparency, which is resized by itself. A canvas holds 16
bits of each channel, so that mixing tiles rounds nothing that is seen, and takes up each tile as it comes:
no more than a picture and a tile are in memory.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model_compose.errors import InvalidInput
from model_compose.tasks.image_upscale.spec import ImageUpscale
from model_compose.tasks.images import Pixels

#: A picture of so many pixels takes 1.5 GB while its tiles come in.
MOST_OUTPUT_PIXELS: Final = 256_000_000
_DEEPEST: Final = 65535
#: Rows that are worked on at a time, so that what is between stays in the caches.
_ROWS: Final = 64


class Original(msgspec.Struct, frozen=True):
    """A picture that came.

    pixels  uint8 or uint16 [height, width, 1 or 3]
    alpha   how opaque it is, if that was said
    """

    pixels: NDArray[Any]
    alpha: Image.Image | None

    @classmethod
    def of(cls, image: Image.Image) -> Original:
        """Take it apart; `image` has a mode that `decode` gives."""
        alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
        colours = image.convert({"LA": "L", "RGBA": "RGB"}[image.mode]) if alpha is not None else image
        pixels = np.asarray(colours)
        return cls(pixels[..., None] if pixels.ndim == 2 else pixels, alpha)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        height, width = self.pixels.shape[:2]
        return width, height

    @property
    def deep(self) -> bool:
        """Whether it has 16 bits of grey."""
        return self.pixels.dtype == np.uint16


class Canvas:
    """What becomes of one picture.

    factor  how many times larger the network makes it
    size    width and height that it shall have in the end
    """

    def __init__(self, original: Original, factor: int, size: tuple[int, int]) -> None:
        self.original = original
        self.size = size
        width, height = original.size
        shape = (height * factor, width * factor)
        self._planes = [np.zeros(shape, np.uint16) for _ in range(original.pixels.shape[2])]
        self._seen: set[int] = set()

    @property
    def seen(self) -> int:
        """How many parts have come."""
        return len(self._seen)

    def add(self, number: int, top: int, left: int, part: NDArray[np.uint16]) -> None:
        """Add a part: `in_16_bits`, [channels, height, width]. What lies beyond the edge is left out.

        A part that comes a second time, because a pass was repeated, counts once.
        """
        if number in self._seen:
            return
        for plane, channel in zip(self._planes, part, strict=True):
            place = plane[top : top + channel.shape[0], left : left + channel.shape[1]]
            channel = channel[: place.shape[0], : place.shape[1]]
            place += channel
        self._seen.add(number)

    def picture(self) -> Image.Image:
        """The picture, of the size asked for; once."""
        planes, self._planes = self._planes, []
        image = _deep(planes[0], self.size) if self.original.deep else _shallow(planes, self.size)
        if self.original.alpha is not None:
            image.putalpha(self.original.alpha.resize(self.size, Image.Resampling.LANCZOS))
        return image


def _shallow(planes: list[NDArray[np.uint16]], size: tuple[int, int]) -> Image.Image:
    """Planes of 16 bits, which are used up, as a picture of 8, of a size."""
    pixels = np.empty((*planes[0].shape, len(planes)), np.uint8)
    for channel in range(len(planes)):
        plane = planes.pop(0)
        for top in range(0, len(plane), _ROWS):
            part = plane[top : top + _ROWS].astype(np.uint32)
            # The nearest to a 257th, as libpng has it.
            pixels[top : top + _ROWS, :, channel] = (part * 255 + 32895) >> 16
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def _deep(plane: NDArray[np.uint16], size: tuple[int, int]) -> Image.Image:
    if (plane.shape[1], plane.shape[0]) == size:
        return Image.fromarray(plane)
    resized = Image.fromarray(plane.astype(np.float32)).resize(size, Image.Resampling.LANCZOS)
    return Image.fromarray(np.asarray(resized).round().clip(0, _DEEPEST).astype(np.uint16))


def in_16_bits(pixels: Pixels, weights: Pixels | None = None) -> NDArray[np.uint16]:
    """Numbers from 0 to 1, which are used up, as a canvas takes them, each times its weight.

    Cut off and not rounded, after half of one has been added before weighing: so parts whose weights add up
    to 1 never add up to more than 65535, and a whole is the nearest.
    """
    pixels *= _DEEPEST
    pixels += 0.5
    if weights is not None:
        pixels *= weights
    return pixels.astype(np.uint16)


def wanted_size(request: ImageUpscale, size: tuple[int, int], factor: int) -> tuple[int, int]:
    """Width and height of what is asked for. Raises InvalidInput if that, or the way there, is too large."""
    width, height = size
    scale = request.scale or factor
    for times, field in ((factor, "image"), (scale, "scale")):
        if width * times * height * times > MOST_OUTPUT_PIXELS:
            raise InvalidInput(
                f"{width} x {height} pixels, {times:g} times as wide and high, are more than "
                f"{MOST_OUTPUT_PIXELS:,}",
                field=field,
                hint="send a smaller image" + ("" if field == "image" else ", or ask for a smaller `scale`"),
            )
    return max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))
