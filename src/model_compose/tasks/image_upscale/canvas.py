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
#: From 16 bits to 8.
_TO_8_BITS: Final = ((np.arange(_DEEPEST + 1) + 128) // 257).astype(np.uint8)


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

    def add(self, number: int, top: int, left: int, part: NDArray[Any]) -> None:
        """Add a part: numbers up to 65535, [channels, height, width]. What lies beyond the edge is left out.

        A part that comes a second time, because a pass was repeated, counts once.
        """
        if number in self._seen:
            return
        for plane, channel in zip(self._planes, part, strict=True):
            place = plane[top : top + channel.shape[0], left : left + channel.shape[1]]
            channel = channel[: place.shape[0], : place.shape[1]]
            np.minimum(place + channel, _DEEPEST, out=place, casting="unsafe")
        self._seen.add(number)

    def picture(self) -> Image.Image:
        """The picture, of the size asked for; once."""
        bands = []
        while self._planes:
            bands.append(self._band(self._planes.pop(0)))
        image = bands[0] if len(bands) == 1 else Image.merge("RGB", bands)
        if self.original.alpha is not None:
            image.putalpha(self.original.alpha.resize(self.size, Image.Resampling.LANCZOS))
        return image

    def _band(self, plane: NDArray[np.uint16]) -> Image.Image:
        wanted = (self.size[1], self.size[0])
        if not self.original.deep:
            band = Image.fromarray(_TO_8_BITS[plane])
            return band if plane.shape == wanted else band.resize(self.size, Image.Resampling.LANCZOS)
        if plane.shape == wanted:
            return Image.fromarray(plane)
        resized = Image.fromarray(plane.astype(np.float32)).resize(self.size, Image.Resampling.LANCZOS)
        return Image.fromarray(np.asarray(resized).round().clip(0, _DEEPEST).astype(np.uint16))


def in_16_bits(pixels: Pixels) -> NDArray[Any]:
    """Numbers from 0 to 1 as a canvas takes them."""
    return (pixels * _DEEPEST).round().astype(np.int32)


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
