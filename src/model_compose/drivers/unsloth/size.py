"""How much memory will a model of Unsloth take? The gateway asks before it loads one."""

from __future__ import annotations

from typing import Final

from model_compose.drivers.contract import LoadOptions
from model_compose.drivers.huggingface import size

#: Python, torch, transformers, trl and what else Unsloth imports, beyond what driver `huggingface` does.
MORE_BYTES: Final = 500 << 20


def estimate(load: LoadOptions) -> dict[str, int]:
    """Bytes by memory pool that loading this will probably take: options have the same names there."""
    found = size.estimate(load)
    return {**found, "host": found["host"] + MORE_BYTES}
