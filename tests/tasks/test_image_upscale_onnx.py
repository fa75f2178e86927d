"""image-upscale by a graph in an ONNX file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests import onnx_files
from tests.tasks.batches import load_options, started

from model_compose.drivers.alone import Alone
from model_compose.errors import InvalidInput, ModelLoadError
from model_compose.tasks.image_upscale.custom import Upscaler
from model_compose.tasks.image_upscale.onnx import OnnxUpscaler
from model_compose.tasks.image_upscale.spec import ImageUpscale
from model_compose.types import Blob


def load(path: Path, **more: Any) -> Any:
    return started(OnnxUpscaler(), load_options(path, "image-upscale", **more))


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(onnx_files.upscaler(tmp_path_factory.mktemp("upscaler") / "model.onnx"))


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    image = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    return image.convert(mode)


def request(image: Image.Image, **more: Any) -> ImageUpscale:
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return ImageUpscale(image=Blob("image/png", file.getvalue()), **more)


def upscaled(model: Any, wanted: ImageUpscale) -> Image.Image:
    items = model.prepare(wanted)
    raws = [raw for item in items for raw in model.forward([item], Alone(1))]
    result = model.finish(wanted, raws).result
    image = Image.open(io.BytesIO(result.image.data))
    assert image.size == (result.width, result.height)
    return image


def test_a_picture_becomes_what_the_graph_makes_of_it(upscaler: Any) -> None:
    image = picture(60, 44)
    found = upscaled(upscaler, request(image, tile_size=0))
    assert found.size == (120, 88)
    given = (np.asarray(image, np.float32) / 255).transpose(2, 0, 1)[None]
    expected = upscaler._graph.grown(given)[0].transpose(1, 2, 0) * 255
    assert np.abs(np.asarray(found) - expected).max() <= 0.51


def test_tiles_leave_no_trace(upscaler: Any) -> None:
    image = picture(150, 90)
    assert len(upscaler.prepare(request(image, tile_size=32))) > 4
    whole = np.asarray(upscaled(upscaler, request(image, tile_size=0)), int)
    tiled = np.asarray(upscaled(upscaler, request(image, tile_size=32)), int)
    # Its weights are as large at their edges as in the middle: no network that was trained sees so far.
    assert np.abs(whole - tiled).max() <= 5
    assert np.abs(whole - tiled).mean() < 0.1
    cut = np.asarray(upscaled(upscaler, request(image, tile_size=32, tile_pad_size=0)), int)
    assert np.abs(whole - cut).max() > 20


def test_how_far_the_graph_sees_is_tried_out(tmp_path: Path, upscaler: Any) -> None:
    assert 2 <= upscaler._graph.reach <= 4  # two layers of 5 x 5
    near = load(onnx_files.upscaler(tmp_path / "near.onnx", kernel=1))
    assert (near._graph.reach, near._graph.multiple, near._graph.scale) == (0, 1, 2)
    large = load(onnx_files.upscaler(tmp_path / "large.onnx", factor=4))
    assert large._graph.scale == 4


def test_tiles_of_several_callers_share_a_pass(upscaler: Any) -> None:
    wanted = [request(picture(40, 30)), request(picture(40, 30).transpose(Image.Transpose.ROTATE_180))]
    items = [item for each in wanted for item in upscaler.prepare(each)]
    assert items[0].key == items[1].key
    together = upscaler.forward(items, Alone(1))
    for each, raw in zip(wanted, together, strict=True):
        image = Image.open(io.BytesIO(upscaler.finish(each, [raw]).result.image.data))
        assert np.abs(np.asarray(image, int) - np.asarray(upscaled(upscaler, each), int)).max() <= 1


@pytest.mark.parametrize("sizes", [(1, 3, 48, 48), ("n", 3, 48, 48), (2, 3, "h", "w")], ids=str)
def test_fixed_sizes_are_kept(tmp_path: Path, upscaler: Any, sizes: Any) -> None:
    model = load(onnx_files.upscaler(tmp_path / "fixed.onnx", sizes=sizes))
    for width, height in ((100, 70), (20, 9)):
        image = picture(width, height)
        found = np.asarray(upscaled(model, request(image)), int)
        expected = np.asarray(upscaled(upscaler, request(image, tile_size=0)), int)
        inside = (slice(0, -8), slice(0, -8)) if sizes[2] == 48 else (slice(None), slice(None))
        assert found.shape == expected.shape
        assert np.abs(found[inside] - expected[inside]).max() <= 1  # filled up at the right and below
    if sizes[2] == 48:
        with pytest.raises(InvalidInput, match="tiles of 48 pixels and nothing else"):
            model.prepare(request(picture(60, 60), tile_size=32))
        with pytest.raises(InvalidInput, match="too large for tiles of 48 pixels") as caught:
            model.prepare(request(picture(60, 60), tile_pad_size=20))
        assert caught.value.field == "tile_pad_size"


def test_the_scale_asked_for_is_reached(upscaler: Any) -> None:
    assert upscaled(upscaler, request(picture(40, 30), scale=3)).size == (120, 90)


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_grey_stays_grey_and_transparency_stays(upscaler: Any, mode: str) -> None:
    assert upscaled(upscaler, request(picture(20, 20, mode))).mode == mode


def test_what_it_cannot_do_is_refused(upscaler: Any, tmp_path: Path) -> None:
    for more, field in (
        ({"seed": 1}, "seed"),
        ({"tile_size": 5}, "tile_size"),
        ({"tile_size": 32, "tile_pad_size": 99}, "tile_pad_size"),
    ):
        with pytest.raises(InvalidInput) as caught:
            upscaler.prepare(request(picture(90, 90), **more))
        assert caught.value.field == field
    with pytest.raises(ModelLoadError, match="has not one input and one output"):
        load(onnx_files.classifier(tmp_path / "text.onnx"))
    with pytest.raises(ModelLoadError, match="makes no picture larger"):
        load(onnx_files.of_faces(tmp_path / "faces.onnx"))
    with pytest.raises(ModelLoadError, match=r"`options\.max_batch_tokens` means nothing"):
        load(onnx_files.upscaler(tmp_path / "m.onnx"), options={"max_batch_tokens": 5})


def test_weights_choose_their_engine(tmp_path: Path) -> None:
    from msgspec.structs import replace

    path = onnx_files.upscaler(tmp_path / "model.onnx")
    options = load_options(path, "image-upscale", warmup=True)
    assert options.source is not None
    options = replace(options, source=replace(options.source, format="onnx"))
    model: Any = started(Upscaler(), options)
    assert upscaled(model, request(picture(20, 20))).size == (40, 40)
    assert model.budget()[0] == 4
    assert model.metrics()["rows"] == 2
    assert model.memory() == {}
