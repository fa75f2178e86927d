"""Do the blocks with images do what they promise?"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import onnx_files, tiny_vision
from tests.compose.apps import output_of, run_of
from tests.conformance.blocks import Hub, answered, block, planned, running
from tests.conformance.repositories import esrgan, files_in
from tests.fakes.weights import Shelf, packed

from model_compose.sources.known import KNOWN
from model_compose.types import Blob

BLIP = "Salesforce/blip-image-captioning-large"
FLUX = "black-forest-labs/FLUX.1-dev"


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Shelf]:
    """Who has known weights; there are none yet."""
    for name in ("MODEL_COMPOSE_MODELS", "HF_HUB_OFFLINE", "UV_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MODEL_COMPOSE_CACHE", str(tmp_path / "cache"))
    with Shelf() as shelf:
        yield shelf


def size_of(image: Any) -> tuple[int, int]:
    from PIL import Image

    assert isinstance(image, Blob)
    return Image.open(io.BytesIO(image.data)).size


async def test_18_a_caption_begins_with_the_prompt(hub: Hub, in_process: None, tmp_path: Path) -> None:
    hub.offer(BLIP)
    image = tiny_vision.image(1)
    async with running(block(18), tmp_path) as app:
        begun = await run_of(app, {"image": image, "prompt": "a photo of"})
        free = await run_of(app, {"image": image})
    assert isinstance(begun.output.plain(), str)
    assert isinstance(free.output.plain(), str)
    assert begun.usage is not None
    assert free.usage is not None
    assert begun.usage.prompt_tokens > free.usage.prompt_tokens


async def test_19_the_size_and_the_steps_are_those_of_the_file(
    hub: Hub, in_process: None, tmp_path: Path
) -> None:
    hub.offer(FLUX)
    model, options = planned(block(19), tmp_path)
    assert options.architecture == "flux"
    (action,) = model.component.actions
    values = action.values
    assert (values["width"], values["height"], values["num_inference_steps"]) == (1024, 1024, 50)
    steps: list[tuple[int, int]] = []
    text = block(
        19,
        **{
            "num_inference_steps: 50": "num_inference_steps: 2",
            "width: 1024": "width: 256",
            "height: 1024": "height: 512",
        },
    )
    async with running(text, tmp_path) as app:
        workflow = app.workflow(None)
        run, value = app.begin(workflow, {"prompt": "a lighthouse"})
        run.on_progress = lambda done, total: steps.append((done, total))
        image = await app.execute(run, workflow, value, streaming=False)
    assert size_of(image.plain()) == (256, 512)
    assert steps[-1] == (2, 2)


async def test_20_an_image_is_four_times_as_large(
    shelf: Shelf, in_process: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = esrgan(tmp_path / "RealESRGAN_x4plus.pth", scale=4).read_bytes()
    monkeypatch.setitem(KNOWN, "RealESRGAN_x4plus", shelf.add("RealESRGAN_x4plus.pth", weights))
    image = await answered(block(20), tmp_path, {"image": tiny_vision.image(2, side=24)})
    assert size_of(image) == (96, 96)
    assert len(shelf.requests) == 1


async def test_21_a_face_is_a_vector(
    shelf: Shelf, in_process: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pack").mkdir()
    onnx_files.pack(tmp_path / "pack", "from torch")
    # It sees by chance, and a small one sees few.
    onnx_files.scrfd(tmp_path / "pack" / "det_10g.onnx", sizes=(1, 3, 64, 64))
    files = files_in(tmp_path / "pack")
    shutil.rmtree(tmp_path / "pack")
    monkeypatch.setitem(KNOWN, "buffalo_l", shelf.add("buffalo_l.zip", packed(files), members=files))
    async with running(block(21), tmp_path) as app:
        found = await output_of(app, {"image": tiny_vision.image(3, side=96)})
    assert (found["width"], found["height"]) == (96, 96)
    assert found["faces"]
    assert found["embedding"] == found["faces"][0]["embedding"]
    assert len(found["embedding"]) == 16  # the real pack has 512
    assert {"bounding_box", "score"} <= set(found["faces"][0])
    assert len(shelf.requests) == 1
