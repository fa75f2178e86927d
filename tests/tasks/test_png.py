from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model_compose.tasks.png import png

CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}


def noise(mode: str, width: int, height: int) -> Image.Image:
    chance = np.random.default_rng(0)
    if mode == "I;16":
        return Image.fromarray(chance.integers(0, 65536, (height, width), dtype=np.uint16))
    bands = chance.integers(0, 256, (CHANNELS[mode], height, width), dtype=np.uint8)
    found = [Image.fromarray(band) for band in bands]
    return found[0] if len(found) == 1 else Image.merge(mode, found)


@given(mode=st.sampled_from([*CHANNELS, "I;16"]), width=st.integers(1, 40), height=st.integers(1, 40))
def test_what_is_written_is_read_again(mode: str, width: int, height: int) -> None:
    image = noise(mode, width, height)
    with Image.open(io.BytesIO(png(image))) as again:
        assert (again.mode, again.size) == (mode, image.size)
        assert np.array_equal(np.asarray(again), np.asarray(image))


@pytest.mark.parametrize("mode", [*CHANNELS, "I;16"])
def test_strips_are_one_stream(mode: str) -> None:
    image = noise(mode, 1500, 1401)
    with Image.open(io.BytesIO(png(image))) as again:
        again.verify()
    with Image.open(io.BytesIO(png(image))) as again:
        assert np.array_equal(np.asarray(again), np.asarray(image))


def test_a_photograph_is_hardly_larger_than_what_pillow_makes_of_it() -> None:
    smooth = noise("RGB", 30, 20).resize((900, 600), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    smooth.save(out, "png")
    assert len(png(smooth)) < 1.2 * len(out.getvalue())


def test_what_is_flat_is_small() -> None:
    assert len(png(Image.new("RGB", (2000, 1000), "red"))) < 60_000
