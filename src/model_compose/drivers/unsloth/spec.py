"""What can `driver: unsloth` do? Light: nothing here needs the engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from model_compose.config.spec import DriverSpec, Report
from model_compose.drivers.huggingface.spec import GENERATION_REFUSES as HUGGINGFACE_REFUSES
from model_compose.drivers.huggingface.spec import CacheMib, ChatTemplate, PromptBatch

#: Parameters of tasks that generate text which this driver does not have.
GENERATION_REFUSES: Final[Mapping[str, str]] = HUGGINGFACE_REFUSES

_ELSEWHERE: Final = "`driver: huggingface` has it"


class UnslothOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of what serves Unsloth's models: the same as those of driver `huggingface`."""

    prompt_batch: PromptBatch = 512
    cache_mib: CacheMib = None
    chat_template: ChatTemplate = None


def _check(config: Any, options: Any, report: Report) -> None:
    if config.device == "mps":
        report.error("Unsloth's models are not computed on `mps` here", "device", hint=_ELSEWHERE)
    if config.embedded:
        report.error(
            "driver `unsloth` changes transformers for its whole process, and cannot be embedded",
            "runtime",
            hint="leave `runtime` out, or name a Python environment that has Unsloth",
        )
    chosen = config.quantized
    if chosen is not None:
        if chosen.type != "nf4" or not chosen.double_quant:
            report.error(
                "Unsloth quantizes to `nf4` with `double_quant: true`, and to nothing else",
                "quantization",
                hint=f"write `{{type: nf4, double_quant: true}}`; of any other, {_ELSEWHERE}",
            )
        if chosen.compute_dtype not in (None, config.precision):
            report.error(
                "Unsloth computes in the number format of the model",
                "quantization",
                "compute_dtype",
                hint="write `precision`",
            )
    for i, adapter in enumerate(config.peft_adapters):
        if adapter.precision not in (None, "auto"):
            message = "Unsloth chooses the number format of adapters"
            report.error(message, "peft_adapters", i, "precision", hint="leave it out")


SPEC = DriverSpec(
    name="unsloth",
    summary="Unsloth's models in a worker process: 4-bit checkpoints and LoRA adapters as it makes them.",
    options=UnslothOptions,
    modules=("unsloth",),
    requirements=("unsloth>=2026.10,<2027",),
    reads=("safetensors", "pytorch"),
    refuses={
        "low_cpu_mem_usage": "Unsloth reads weights in its own way",
        "fast_tokenizer": "Unsloth's models have fast tokenizers",
        "architecture": "the configuration of the weights says it",
    },
    estimate="model_compose.drivers.unsloth.size:estimate",
    check=_check,
)
