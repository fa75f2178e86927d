from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests import tiny_diffusion
from tests.api.openai.clients import post, refused, served

# A scheduler of diffusers asks numpy for what newer ones of it do otherwise.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> str:
    weights = tiny_diffusion.sdxl(tmp_path_factory.mktemp("painter"))
    return f"""
controller: {{port: 0}}
component:
  id: painter
  type: model
  task: image-generation
  model: {weights}
  num_inference_steps: 1
  runtime: embedded
"""


def size_of(data: str) -> tuple[int, int]:
    return Image.open(io.BytesIO(base64.b64decode(data))).size


async def test_images_are_painted(painter: str, tmp_path: Path) -> None:
    async with served(painter, tmp_path) as (service, client):
        found = await client.images.generate(model="painter", prompt="a cat", n=2, size="32x16")
        again = await client.images.generate(
            model="painter",
            prompt="a cat",
            size="32x16",
            response_format="url",
            extra_body={"seed": found.data and found.data[1].model_dump()["seed"]},
        )
        for field, value, says in REFUSED:
            error = await refused(
                service, "images/generations", **{"model": "painter", "prompt": "a cat", field: value}
            )
            assert says in error["message"], error
            assert error["param"] == field
        wrong = await post(service, "images/generations", model="painter")
    assert found.data is not None
    assert again.data is not None
    assert [size_of(image.b64_json or "") for image in found.data] == [(32, 16)] * 2
    assert again.data[0].url == f"data:image/png;base64,{found.data[1].b64_json}"
    assert wrong.json()["error"]["param"] == "prompt"


REFUSED: list[tuple[str, Any, str]] = [
    ("size", "huge", "512x512"),
    ("size", "1x1", "`size`"),
    ("style", "vivid", "`prompt`"),
    ("quality", "hd", "quality"),
    ("stream", True, "one piece"),
    ("n", 99, "`n`"),
    ("stepps", 3, "unknown field"),
]
