"""What can `driver: custom` do? Light: nothing here needs an engine."""

from __future__ import annotations

from typing import Annotated, Any

from model_compose.config.spec import DriverSpec, Positive, Report, doc
from model_compose.drivers.diffusion import DiffusionOptions
from model_compose.sources.spec import format_of, parse_source


class CustomOptions(DiffusionOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the engines behind this driver. A class of your own has options of its own instead."""

    max_image_pixels: Annotated[
        int, doc("images: most pixels of one that a client sends", ge=1, le=178_000_000)
    ] = 64_000_000
    max_batch_tokens: Annotated[
        Positive | None, doc("texts: most tokens in one forward pass, padding included")
    ] = None
    providers: Annotated[
        tuple[str, ...],
        doc("onnxruntime's execution providers, in order; unset: the one that belongs to `device`"),
    ] = ()


_FIXED = ("onnx", "tensorrt")


def _check(config: Any, options: Any, report: Report) -> None:
    """A file that was exported has its numbers in it."""
    if config.model is None:
        return
    source = parse_source(config.model) if isinstance(config.model, str) else config.model
    if format_of(source) not in _FIXED:
        return
    for name in ("precision", "quantization"):
        if getattr(config, name) not in (None, "auto", "none"):
            hint = "export the model in the numbers that you want"
            report.error(f"`{name}` cannot be chosen: the file has it", name, hint=hint)


SPEC = DriverSpec(
    name="custom",
    summary="ONNX files, TensorRT engines, families of image models, and Python classes of your own.",
    options=CustomOptions,
    formats=("onnx", "tensorrt"),
    reads=("onnx", "tensorrt", "pytorch", "safetensors"),
    refuses={
        "device_mode": "its engines compute on one device",
        "peft_adapters": "merge adapters into the weights first: `model-compose merge`",
    },
    own="model_compose.drivers.custom.own:OwnModel",
    check=_check,
)
