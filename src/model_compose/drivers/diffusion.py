"""Which settings does diffusers have, whichever driver a file reaches it by? Light: nothing here needs it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from model_compose.config.spec import doc


class DiffusionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What saves memory, at the price of time."""

    cpu_offload: Annotated[
        bool, doc("image-generation: parts of the model wait in RAM for their turn on the GPU")
    ] = False
    vae_tiling: Annotated[
        bool,
        doc("image-generation: make the pixels tile by tile, which needs less memory; seams are blended"),
    ] = False
    vae_slicing: Annotated[
        bool, doc("image-generation: make the pixels of one image after the other, which needs less memory")
    ] = False
