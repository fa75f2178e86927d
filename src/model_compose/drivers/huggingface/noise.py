"""Does a seed give the same picture in every number format?

A CPU may draw other numbers of 16 bits than of 32 for the same seed, as those with AVX-512 do. So the
pipelines of diffusers get numbers of 32 bits here, rounded to what they compute in.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import torch
from diffusers.utils.torch_utils import randn_tensor

from model_compose.errors import DriverMissing

_NAME: Final = randn_tensor.__name__


def draw_in_float32(pipe: Any) -> None:
    """Have the noise of a pipeline and of its scheduler drawn so. Raises DriverMissing for other versions."""
    modules = [sys.modules[type(part).__module__] for part in (pipe, pipe.scheduler)]
    if not hasattr(modules[0], _NAME):
        raise DriverMissing(f"this version of diffusers does not draw noise with `{_NAME}`")
    for module in modules:
        if hasattr(module, _NAME):  # many schedulers draw none
            setattr(module, _NAME, _drawn)


def _drawn(
    shape: Any,
    generator: Any = None,
    device: Any = None,
    dtype: torch.dtype | None = None,
    layout: Any = None,
) -> torch.Tensor:
    drawn: torch.Tensor = randn_tensor(shape, generator, device, torch.float32, layout)
    return drawn if dtype is None else drawn.to(dtype)
