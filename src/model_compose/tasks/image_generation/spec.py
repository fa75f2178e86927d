"""What is `task: image-generation`?"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from model_compose.config.spec import Positive, TaskDriver, TaskSpec, doc
from model_compose.tasks.generation import AdapterWeight, Seed
from model_compose.tasks.pictures import ImageOutput, Picture

_DIFFUSERS: Final = "model_compose.tasks.image_generation.huggingface:Painter"

#: Models are trained with a thousand, and cannot make more of them.
Steps = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Guidance = Annotated[float, msgspec.Meta(ge=0, le=100)]


class ImageGeneration(ImageOutput, frozen=True, kw_only=True):
    """Paint what a text describes."""

    prompt: Annotated[
        str, doc("what the image shows, or a list of such texts", aliases=("text",), many=True, min_length=1)
    ]
    negative_prompt: Annotated[str | None, doc("what it shall not show")] = None
    method: Annotated[Literal["generate"], doc("a new image", later={"inpaint": None})] = "generate"
    width: Annotated[int, doc("pixels", ge=16, le=8192)] = 1024
    height: Annotated[int, doc("pixels", ge=16, le=8192)] = 1024
    num_inference_steps: Annotated[
        Steps | None,
        doc("steps of the diffusion; unset: 28 of `flux` (4 if distilled), 30 of `sdxl`, 50 of `hunyuan`"),
    ] = None
    guidance_scale: Annotated[
        Guidance | None,
        doc("how closely the text is followed; unset: 3.5 of `flux`, 7.5 of `sdxl`, 5 of `hunyuan`"),
    ] = None
    max_sequence_length: Annotated[
        Positive | None, doc("most tokens of the prompt, with `flux`; unset: 512, 256 if distilled")
    ] = None
    num_images_per_prompt: Annotated[int, doc("how many images of one prompt", ge=1, le=16)] = 1
    seed: Annotated[Seed | None, doc("same seed, same image; of several images the others have the next")] = (
        None
    )
    adapters: Annotated[
        dict[str, AdapterWeight] | None,
        doc("weights of the component's `peft_adapters` for this request, by name; others count 0"),
    ] = None


SPEC = TaskSpec(
    name="image-generation",
    summary="Paints what a text describes.",
    request=ImageGeneration,
    result=Picture | list[Picture],
    main="prompt",
    verb="generate-image",
    example={"prompt": "a lighthouse at dusk", "width": 512, "height": 512, "seed": 7},
    default_driver="huggingface",
    drivers={
        name: TaskDriver(
            _DIFFUSERS,
            families=dict.fromkeys(("auto", "flux", "sdxl", "hunyuan"), _DIFFUSERS),
            modules=("diffusers", "torch", "transformers", "PIL"),
            extra="image",
        )
        for name in ("huggingface", "custom")
    },
)
