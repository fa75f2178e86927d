"""What do all tasks that give images have in common? Light: nothing here decodes one."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from model_compose.config.spec import doc
from model_compose.types import Blob, Result


class ImageOutput(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of every task that gives images."""

    output_format: Annotated[
        Literal["png", "jpeg", "webp"], doc("how the image is written; `png` loses nothing")
    ] = "png"
    output_quality: Annotated[int, doc("with `jpeg` and `webp`: how much is kept", ge=1, le=100)] = 90


class Picture(Result, frozen=True, omit_defaults=True):
    """An image that a model made; `seed` gives it again, where chance took part."""

    image: Blob
    width: int
    height: int
    seed: int | None = None

    def plain(self) -> Any:
        """The image itself."""
        return self.image
