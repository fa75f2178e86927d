from __future__ import annotations

import importlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model_compose.errors import InvalidInput
from model_compose.tasks import png as png_files
from model_compose.tasks.images import decode, encode, from_pixels, rgb, to_pixels
from model_compose.tasks.pictures import ImageOutput
from model_compose.types import Blob


def file(image: Image.Image, form: str = "png", **more: object) -> Blob:
    out = io.BytesIO()
    image.save(out, form, **more)
    return Blob("application/octet-stream", out.getvalue())


def noise(mode: str, width: int = 9, height: int = 5) -> Image.Image:
    chance = np.random.default_rng(0)
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
    pixels = chance.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels, mode)


@pytest.mark.filterwarnings("ignore:.*mode.*:DeprecationWarning")
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_a_png_keeps_every_pixel_and_its_channels(mode: str) -> None:
    before = noise(mode)
    after = decode(file(before))
    assert after.mode == mode
    again = decode(encode(from_pixels(to_pixels(after)), ImageOutput()))
    assert np.array_equal(np.asarray(again), np.asarray(before))


@pytest.mark.filterwarnings("ignore:.*mode.*:DeprecationWarning")
@given(
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    mode=st.sampled_from(["L", "LA", "RGB", "RGBA", "I;16"]),
    stripe=st.integers(1, 200),
    threads=st.integers(1, 3),
)
def test_a_png_in_stripes_is_the_same_picture(
    width: int, height: int, mode: str, stripe: int, threads: int
) -> None:
    if mode == "I;16":
        numbers = np.random.default_rng(0).integers(0, 65536, (height, width)).astype(np.uint16)
        before = Image.fromarray(numbers)
    else:
        before = noise(mode, width, height)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(png_files, "_STRIPE_PIXELS", stripe)
        written = png_files.png(before, threads)
    after = Image.open(io.BytesIO(written))
    after.load()
    assert (after.mode, after.size) == (mode, (width, height))
    assert np.array_equal(np.asarray(after), np.asarray(before))


def test_a_photograph_is_hardly_larger_than_the_library_makes_it() -> None:
    photo = Image.fromarray(importlib.import_module("skimage.data").astronaut())
    theirs = file(photo, compress_level=1, compress_type=zlib.Z_RLE)
    assert len(png_files.png(photo)) < 1.03 * len(theirs.data)
    blank = Image.new("RGB", (2000, 1000), "white")
    assert len(png_files.png(blank, threads=2)) < 40_000


def test_grey_of_16_bits_keeps_them() -> None:
    pixels = np.arange(0, 60000, 1000, dtype=np.uint16).reshape(6, 10)
    after = decode(file(Image.fromarray(pixels)))
    assert after.mode == "I;16"
    assert np.array_equal(np.asarray(from_pixels(to_pixels(after), deep=True)), pixels)
    assert rgb(after).getpixel((9, 5)) == (round(59000 / 257),) * 3


@pytest.mark.parametrize("form", ["png", "jpeg", "webp", "gif", "bmp", "tiff"])
def test_the_formats_that_are_read(form: str) -> None:
    assert decode(file(Image.new("RGB", (4, 3), "red"), form)).size == (4, 3)


def test_a_photo_stands_upright() -> None:
    photo = Image.new("RGB", (40, 20), "white")
    exif = photo.getexif()
    exif[0x0112] = 6  # lies on its side
    assert decode(file(photo, "jpeg", exif=exif)).size == (20, 40)


def test_a_palette_with_transparency_becomes_colours() -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 255, 0, 0])
    assert decode(file(palette)).mode == "RGB"
    assert decode(file(palette, transparency=1)).mode == "RGBA"


def png(width: int, height: int) -> bytes:
    """A PNG whose header promises more than its few bytes hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def test_a_bomb_is_refused_by_its_header() -> None:
    with pytest.raises(InvalidInput, match="20000 x 20000 pixels, and 64,000,000 are the most"):
        decode(Blob("image/png", png(20000, 20000)))
    with pytest.raises(InvalidInput):
        decode(Blob("image/png", png(2**31 - 1, 2**31 - 1)))


def test_a_broken_file_is_an_error_of_its_sender() -> None:
    whole = file(noise("RGB", 64, 64)).data
    for content in (whole[: len(whole) // 2], png(8, 8), b"", b"<svg onload=alert(1)>", b"%PDF-1.7"):
        with pytest.raises(InvalidInput, match="`photo`"):
            decode(Blob("image/png", content), "photo")


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a"]))
def test_no_bytes_do_more_than_be_refused(content: bytes, beginning: bytes) -> None:
    with pytest.raises(InvalidInput, match="`image`"):
        decode(Blob("image/png", beginning + content))


@pytest.mark.filterwarnings("ignore:.*mode.*:DeprecationWarning")
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_every_kind_of_picture_is_written_in_every_format(mode: str, form: str) -> None:
    blob = encode(noise(mode), ImageOutput(output_format=form), "cat")  # type: ignore[arg-type]
    assert (blob.media_type, blob.name) == (f"image/{form}", f"cat.{'jpg' if form == 'jpeg' else form}")
    assert decode(blob).size == (9, 5)


def test_what_is_transparent_stands_on_white() -> None:
    assert rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)
    jpeg = encode(Image.new("LA", (8, 8), (0, 0)), ImageOutput(output_format="jpeg"))
    assert decode(jpeg).getpixel((4, 4)) == (255, 255, 255)
