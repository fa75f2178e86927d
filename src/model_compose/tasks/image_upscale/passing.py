"""What do networks of every kind share in a worker: settings, and what stands around a forward pass?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import msgspec
import torch

from model_compose.drivers.contract import LoadOptions
from model_compose.drivers.custom.spec import CustomOptions
from model_compose.drivers.huggingface.load import choose_dtype
from model_compose.drivers.huggingface.memory import memory_guarded
from model_compose.errors import ModelLoadError


def own_options(options: LoadOptions) -> CustomOptions:
    """The driver's own settings. Raises ModelLoadError for what networks for images do not have."""
    own = msgspec.convert(options.options, CustomOptions)
    without = {
        "quantization": options.quantization,
        "max_seq_length": options.max_seq_length,
        "options.max_batch_tokens": own.max_batch_tokens,
        "options.providers": own.providers,
    }
    for name, value in without.items():
        if value:
            raise ModelLoadError(
                f"`{name}` means nothing to a network that upscales images", hint="leave it out"
            )
    return own


def number_format(precision: str | None, device: torch.device) -> torch.dtype:
    """What to compute in. Raises ModelLoadError for what this CPU would take ages with."""
    dtype = choose_dtype(precision, device, None)
    if device.type == "cpu" and not convolves(dtype):
        raise ModelLoadError(
            f"this CPU has no `{precision}`: it would take many times as long as `float32`",
            hint="leave `precision` out",
        )
    return dtype


def convolves(dtype: torch.dtype) -> bool:
    """Whether the library that computes convolutions on a CPU has this format; yes if it does not say."""
    asked = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}
    known = getattr(torch.ops.mkldnn, asked[dtype], None) if dtype in asked else None
    return known is None or bool(known())


@contextlib.contextmanager
def passing(device: torch.device, threads: int) -> Iterator[None]:
    """Around a forward pass: threads, memory, no gradients."""
    if device.type == "cpu" and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    with memory_guarded(device), torch.inference_mode():
        yield
