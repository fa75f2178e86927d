"""`POST /v1/images/generations`: what does a text look like?

Source: https://platform.openai.com/docs/api-reference/images
"""

from __future__ import annotations

import asyncio
import base64
import re
from typing import Annotated, Any, Final, Literal

import msgspec
from starlette.types import Scope

from model_compose.api.calls import Order
from model_compose.api.names import Model
from model_compose.api.openai.fields import Fields, Given, only
from model_compose.api.openai.models import IMAGE, Models
from model_compose.compose.run import Run
from model_compose.config.spec import Positive, doc
from model_compose.errors import InvalidInput
from model_compose.tasks.pictures import Picture

Percent = Annotated[int, msgspec.Meta(ge=1, le=100)]

_SIZE: Final = re.compile(r"(\d{1,5})x(\d{1,5})")


class ImageRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A text to paint. Own parameters of the task (`seed`, `guidance_scale`) may stand beside."""

    model: Annotated[str, doc("the id of a model, as `/v1/models` lists them")]
    prompt: Annotated[str, doc("what the image shows")]
    n: Annotated[Positive | None, doc("how many images")] = None
    size: Annotated[str | None, doc("`WIDTHxHEIGHT` in pixels, or `auto`")] = None
    response_format: Annotated[
        Literal["b64_json", "url"] | None, doc("`url` gives a data URI: images are not kept")
    ] = None
    output_format: Annotated[Literal["png", "jpeg", "webp"] | None, doc("how the image is written")] = None
    output_compression: Annotated[
        Percent | None, doc("with `jpeg` and `webp`: how much is kept, in percent")
    ] = None
    quality: Annotated[Literal["auto", "standard"] | None, doc("see `num_inference_steps`")] = None
    background: Annotated[Literal["auto", "opaque"] | None, doc("accepted, and changes nothing")] = None
    moderation: Annotated[Literal["auto", "low"] | None, doc("accepted, and changes nothing")] = None
    stream: Annotated[bool | None, doc("false, if anything")] = None
    partial_images: Annotated[int | None, doc("0, if anything")] = None
    user: Annotated[str | None, doc("accepted, and changes nothing")] = None


REFUSED: Final = {
    "style": "say it in the `prompt`",
    "input_fidelity": "there are no images to be like",
}

FIELDS: Final = Fields(ImageRequest, REFUSED)


def take_images(scope: Scope, body: bytes, models: Models) -> Order:
    """Read a request for images."""
    request, own = FIELDS.read(scope, body)
    model = models.find(request.model, IMAGE)
    given = Given(model, own, FIELDS.names)
    given.put("prompt", "prompt", request.prompt)
    given.put("num_images_per_prompt", "n", request.n)
    width, height = _size(request.size)
    given.put("width", "size", width)
    given.put("height", "size", height)
    given.put("output_format", "output_format", request.output_format)
    given.put("output_quality", "output_compression", request.output_compression)
    only("stream", request.stream, False, why="an image comes in one piece")
    only("partial_images", request.partial_images, 0, why="an image comes in one piece")
    answer = _Images(model, request.response_format or "b64_json")
    return Order(model.workflow, given.values, given.names, answer)


def _size(size: str | None) -> tuple[int | None, int | None]:
    if size in (None, "auto"):
        return None, None
    found = _SIZE.fullmatch(size or "")
    if found is None:
        raise InvalidInput(f"`size` is `{size}`", field="size", hint="write `512x512`, or `auto`")
    return int(found[1]), int(found[2])


class _Images(msgspec.Struct, frozen=True):
    """What images become."""

    model: Model
    form: Literal["b64_json", "url"]

    async def body(self, run: Run, output: Any) -> bytes:
        pictures: list[Picture] = output if isinstance(output, list) else [output]
        return await asyncio.to_thread(self._encoded, run, pictures)

    def _encoded(self, run: Run, pictures: list[Picture]) -> bytes:
        data = [self._one(each) for each in pictures]
        return msgspec.json.encode({"created": int(run.created), "data": data})

    def _one(self, picture: Picture) -> dict[str, Any]:
        if self.form == "url":
            found: dict[str, Any] = {"url": picture.image.data_uri()}
        else:
            found = {"b64_json": base64.b64encode(picture.image.data).decode("ascii")}
        return found if picture.seed is None else {**found, "seed": picture.seed}

    def events(self, run: Run) -> Any:
        raise NotImplementedError  # no request asks for them
