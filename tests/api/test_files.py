from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.api.serving import Service, serving

#: A model that turns pictures upside down, as a user would write one.
FLIP = """
import io
from PIL import Image

class Flip:
    def prepare(self, request):
        return Image.open(io.BytesIO(request.image.data))

    def forward(self, batch):
        return [image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) for image in batch]

    def finish(self, request, image):
        out = io.BytesIO()
        image.save(out, request.output_format)
        kind = "image/" + request.output_format
        blob = {"media_type": kind, "data": out.getvalue(), "name": "flipped." + request.output_format}
        return {"image": blob, "width": image.width, "height": image.height}
"""

FILE = """
controller: {port: 0, max_body: 1MB}
component:
  id: flip
  type: model
  task: image-upscale
  implementation: ./flip.py:Flip
  runtime: embedded
workflows:
  - id: flip
    default: true
    component: flip
  - id: described
    component: flip
    output:
      picture: ${output}
      width: ${output.width}
      text: ${output as base64}
"""


def picture(top: str = "red", bottom: str = "blue") -> bytes:
    image = Image.new("RGB", (4, 2), top)
    image.paste(bottom, (0, 1, 4, 2))
    out = io.BytesIO()
    image.save(out, "png")
    return out.getvalue()


def rows(content: bytes) -> list[Any]:
    image = Image.open(io.BytesIO(content)).convert("RGB")
    return [image.getpixel((0, y)) for y in range(image.height)]


RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    (tmp_path / "flip.py").write_text(FLIP)
    async with serving(FILE, tmp_path) as found:
        yield found


async def post(service: Service, **more: Any) -> Any:
    return await service.client.post("/api/workflows/runs", **more)


def uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


async def test_an_upload_comes_back_as_an_image(service: Service) -> None:
    response = await post(
        service, files={"input[image]": ("cat.png", picture(), "image/png")}, data={"output_only": "true"}
    )
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    assert response.headers["content-disposition"] == "inline; filename*=UTF-8''flipped.png"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert rows(response.content) == [BLUE, RED]


@pytest.mark.parametrize("given", [uri(picture()), base64.b64encode(picture()).decode()])
async def test_json_carries_images_as_texts(service: Service, given: str) -> None:
    response = await service.run({"image": given, "output_format": "webp"})
    output = response.json()["output"]
    head, _, content = output.partition(",")
    assert head == "data:image/webp;base64"
    assert Image.open(io.BytesIO(base64.b64decode(content))).size == (4, 2)
    assert (await service.run(given)).json()["status"] == "completed"  # it is what the workflow is about


async def test_a_list_comes_back_in_order(service: Service) -> None:
    colours = ["red", "lime", "blue"]
    response = await service.run({"image": [uri(picture("white", c)) for c in colours]}, output_only=True)
    tops = [rows(base64.b64decode(each.partition(",")[2]))[0] for each in response.json()]
    assert tops == [RED, (0, 255, 0), BLUE]


async def test_several_uploads_of_one_field_are_a_list(service: Service) -> None:
    files = [
        ("input[image]", (f"{i}.png", picture("white", c), "image/png"))
        for i, c in enumerate(["red", "blue"])
    ]
    response = await post(service, files=files, data={"output_only": "true"})
    assert [rows(base64.b64decode(each.partition(",")[2]))[0] for each in response.json()] == [RED, BLUE]


async def test_parts_of_a_result_and_its_bytes_as_text(service: Service) -> None:
    output = (await service.run({"image": uri(picture())}, workflow_id="described")).json()["output"]
    assert output["width"] == 4
    assert output["picture"] == f"data:image/png;base64,{output['text']}"
    assert rows(base64.b64decode(output["text"])) == [BLUE, RED]


async def test_events_carry_data_uris(service: Service) -> None:
    events = await service.events({"image": uri(picture())})
    assert [name for name, _ in events] == ["message", "end"]
    assert events[0][1].startswith("data:image/png;base64,")


async def test_a_task_of_before_gives_its_image_again(service: Service) -> None:
    began = (await service.run({"image": uri(picture())})).json()
    for query, read in (("", lambda r: r.json()["output"]), ("?output_only=true", lambda r: uri(r.content))):
        response = await service.client.get(f"/api/tasks/{began['task_id']}{query}")
        assert read(response) == began["output"]


@pytest.mark.parametrize(
    ("given", "status", "message"),
    [
        ({"image": "photo.png"}, 422, "neither a data URI, base64, nor"),
        ({"image": "file:///etc/passwd"}, 422, "neither a data URI, base64, nor"),
        ({"image": "/etc/passwd"}, 422, "neither a data URI, base64, nor"),
        ({"image": "http://127.0.0.1:1/cat.png"}, 422, "no public address"),
        ({"image": {"path": "/etc/passwd"}}, 422, "is no file"),
        ({"image": []}, 422, "empty list"),
        ({}, 422, "`image` is missing"),
        ({"image": uri(b"x" * 900_000)}, 413, "larger than"),
    ],
)
async def test_what_is_refused(service: Service, given: Any, status: int, message: str) -> None:
    response = await service.run(given, output_only=True)
    assert response.status_code == status, response.text
    assert message in response.json()["detail"]


async def test_the_schema_says_that_it_is_an_image(service: Service) -> None:
    schema = (await service.client.get("/api/workflows/flip/schema")).json()
    assert next(each for each in schema["input"] if each["name"] == "image")["type"] == "image"
    document = (await service.client.get("/openapi.json")).json()
    body = document["paths"]["/api/workflows/runs"]["post"]["requestBody"]["content"]["application/json"]
    response = await post(service, json=body["examples"]["flip"]["value"])
    assert response.json()["status"] == "completed", response.text
