"""What is `task: image-upscale`?"""

from __future__ import annotations

from typing import Annotated

from model_compose.config.spec import Natural, Positive, PositiveFloat, TaskDriver, TaskSpec, doc
from model_compose.tasks.generation import Seed
from model_compose.tasks.pictures import ImageOutput, Picture
from model_compose.types import Blob

_NETWORK = "model_compose.tasks.image_upscale.custom:Upscaler"
_LATENT = "model_compose.tasks.image_upscale.latent:LatentUpscaler"


class ImageUpscale(ImageOutput, frozen=True, kw_only=True):
    """Make an image larger, with the detail that a network imagines."""

    image: Annotated[Blob, doc("the image, or a list of images", many=True, media="image")]
    scale: Annotated[
        PositiveFloat | None,
        doc(
            "how many times wider and higher; unset: what the network was trained for. Another factor is "
            "reached by resizing what the network gives"
        ),
    ] = None
    tile_size: Annotated[
        Natural | None,
        doc(
            "side of the parts that are computed one by one, in pixels; 0 is the whole image at once; "
            "unset: as large as memory allows",
            aliases=("tile",),
        ),
    ] = None
    tile_pad_size: Annotated[
        Natural | None,
        doc(
            "how far a part reaches into its neighbours, in pixels; unset: as far as the network sees",
            aliases=("tile_overlap",),
        ),
    ] = None
    num_inference_steps: Annotated[
        Positive | None, doc("steps of the diffusion, with `ldsr`; unset: 100", aliases=("steps",))
    ] = None
    eta: Annotated[float | None, doc("noise added in each step, from 0 to 1, with `ldsr`; unset: 0")] = None
    seed: Annotated[Seed | None, doc("same seed, same image, with `ldsr`")] = None


SPEC = TaskSpec(
    name="image-upscale",
    summary="Makes an image larger, with detail.",
    request=ImageUpscale,
    result=Picture,
    main="image",
    verb="upscale",
    example={"output_format": "png"},
    default_driver="custom",
    drivers={
        "custom": TaskDriver(
            _NETWORK,
            families={
                **dict.fromkeys(("real-esrgan", "esrgan", "swinir"), _NETWORK),
                "ldsr": _LATENT,
            },
            modules=("PIL", "numpy"),
            extra="image",
        )
    },
)
