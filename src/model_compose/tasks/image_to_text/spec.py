"""What is `task: image-to-text`?"""

from __future__ import annotations

from typing import Annotated

from model_compose.config.spec import TaskDriver, TaskSpec, doc
from model_compose.drivers.huggingface.spec import GENERATION_REFUSES
from model_compose.tasks.generation import Completions, Generation, TextDelta, streams
from model_compose.types import Blob


class ImageToText(Generation, frozen=True, kw_only=True):
    """Say in words what an image shows."""

    image: Annotated[Blob, doc("the image, or a list of images", many=True, media="image")]
    prompt: Annotated[
        str | None, doc("how the text begins, or a question, as the model was trained", aliases=("text",))
    ] = None
    temperature: Annotated[float, doc("0 is greedy; higher is less predictable", ge=0, le=5)] = 1.0


SPEC = TaskSpec(
    name="image-to-text",
    summary="Says in words what an image shows.",
    request=ImageToText,
    result=Completions,
    chunk=TextDelta,
    streams=streams,
    main="image",
    verb="caption",
    example={"max_output_length": 30},
    default_driver="huggingface",
    drivers={
        "huggingface": TaskDriver(
            "model_compose.tasks.image_to_text.huggingface:Captioner",
            refuses={
                **GENERATION_REFUSES,
                "logprobs": "they are given by text-generation and chat-completion",
                "adapters": "one blend for all requests: see `peft_adapters`",
            },
            families=dict.fromkeys(
                ("auto", "blip", "git", "vit-gpt2"), "model_compose.tasks.image_to_text.huggingface:Captioner"
            ),
            modules=("PIL",),
            extra="image",
        )
    },
)
