"""How much memory will a model of Unsloth take? The gateway asks before it loads one."""

from __future__ import annotations

from typing import Final

from model_compose.drivers.contract import LoadOptions
from model_compose.drivers.huggingface import size

#: Blends of adapters that stay in memory for the next request.
KEPT: Final = 4
#: They are kept in float32; files are in half of that, mostly.
_WIDER: Final = 2
#: Python, torch, transformers, trl and what else Unsloth imports, beyond what driver `huggingface` does.
MORE_BYTES: Final = 500 << 20


def estimate(load: LoadOptions) -> dict[str, int]:
    """Bytes by memory pool that loading this will probably take: options have the same names there."""
    found = size.estimate(load)
    where = next((pool for pool in found if pool != "host"), "host")
    found[where] += _WIDER * KEPT * sum(adapter.source.size_bytes for adapter in load.adapters)
    return {**found, "host": found["host"] + MORE_BYTES}
