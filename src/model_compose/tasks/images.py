"""How does a file become pixels, and pixels a file?

Files come from strangers: the size is read from the header, and checked, before a pixel is decoded, and
only decoders of common formats are tried.
"""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from model_compose.errors import InvalidInput
from model_compose.tasks.pictures import ImageOutput
from model_compose.tasks.png import png
from model_compose.types import Blob

#: float32, height by width by channels, from 0 to 1.
Pixels = NDArray[np.float32]

_FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
# The library's own limit is above ours, and it only warns where ours refuses.
Image.MAX_IMAGE_PIXELS = None

#: A picture of 64 million pixels takes 192 MB as RGB, and four times that as numbers.
MOST_PIXELS: Final = 64_000_000
_EXTENSIONS: Final = {"jpeg": "jpg", "webp": "webp"}
#: Grey of 16 bits, in its spellings of byte order; the first is what a pixel is divided by.
_DEEP: Final = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_DEEPEST: Final = 65535.0


def decode(blob: Blob, field: str = "image", most_pixels: int = MOST_PIXELS) -> Image.Image:
    """The picture in a file, upright; of several frames the first. Raises InvalidInput.

    Its mode is one of `L`, `LA`, `RGB`, `RGBA` and `I;16`.
    """
    try:
        with Image.open(io.BytesIO(blob.data), formats=_FORMATS) as found:
            _check_size(found, field, most_pixels)
            found.load()
            return _usual(ImageOps.exif_transpose(found))
    except InvalidInput:
        raise
    except UnidentifiedImageError:
        names = ", ".join(_FORMATS[:-1])
        raise InvalidInput(
            f"`{field}` is no image that can be read",
            field=field,
            hint=f"send {names} or {_FORMATS[-1]}",
        ) from None
    except Exception as error:  # noqa: BLE001  a decoder that meets a broken file raises whatever it likes
        raise InvalidInput(f"`{field}` is a broken image: {error}", field=field) from None


def _check_size(found: Image.Image, field: str, most_pixels: int) -> None:
    if found.width * found.height > most_pixels:
        raise InvalidInput(
            f"`{field}` has {found.width} x {found.height} pixels, and {most_pixels:,} are the most",
            field=field,
            hint="send a smaller one",
        )


def _usual(image: Image.Image) -> Image.Image:
    """A picture in one of the few modes that the rest of us knows."""
    if image.mode in _DEEP:
        return image if image.mode == "I;16" else _deep(np.asarray(image))
    transparent = image.mode in ("LA", "La", "PA", "RGBa", "RGBA") or "transparency" in image.info
    if image.mode in ("1", "L", "LA", "La"):
        return image.convert("LA" if transparent else "L")
    return image.convert("RGBA" if transparent else "RGB")


def _deep(pixels: Any) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, _DEEPEST).astype(np.uint16))


def rgb(image: Image.Image) -> Image.Image:
    """A picture for a model that knows three colours: on white, where it is transparent."""
    if image.mode == "I;16":
        image = Image.fromarray((np.asarray(image) / (_DEEPEST / 255)).round().astype(np.uint8))
    if image.mode in ("LA", "RGBA"):
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def to_pixels(image: Image.Image) -> Pixels:
    """A picture as numbers: as many channels as its mode has."""
    pixels = np.asarray(image)
    scale = _DEEPEST if pixels.dtype == np.uint16 else 255.0
    pixels = pixels.astype(np.float32) / np.float32(scale)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def from_pixels(pixels: Pixels, *, deep: bool = False) -> Image.Image:
    """Numbers as a picture; `deep` keeps 16 bits of a single channel."""
    kept = np.clip(pixels, 0.0, 1.0)
    if deep:
        return _deep((kept[..., 0] * _DEEPEST).round())
    small = (kept * 255.0).round().astype(np.uint8)
    return Image.fromarray(small[..., 0] if small.shape[-1] == 1 else small)


def encode(image: Image.Image, wanted: ImageOutput, name: str = "image", *, threads: int = 1) -> Blob:
    """A picture as a file; JPEG has no transparency, so it stands on white there.

    threads  how many may work on it
    """
    kind = wanted.output_format
    if kind == "png":
        return Blob("image/png", png(image, threads), f"{name}.png")
    if kind == "jpeg" and image.mode not in ("L", "RGB"):
        image = rgb(image)
    elif kind == "webp" and image.mode not in ("RGB", "RGBA"):
        image = image.convert("RGBA") if image.mode == "LA" else rgb(image)
    out = io.BytesIO()
    image.save(out, kind, quality=wanted.output_quality)
    return Blob(f"image/{kind}", out.getvalue(), f"{name}.{_EXTENSIONS[kind]}")
