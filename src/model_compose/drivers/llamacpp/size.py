"""How many requests at once, how long, and how much memory will that take?

The gateway asks before it loads a model, the worker when it does; both get the same answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from model_compose.drivers.contract import LoadOptions
from model_compose.drivers.llamacpp import gguf
from model_compose.drivers.llamacpp.spec import LlamaCppOptions
from model_compose.errors import ModelLoadError

#: Unless the file says so, no context is longer: the cache of one is as large as many a model.
LONGEST_DEFAULT_CONTEXT: Final = 4096
MOST_DEFAULT_SLOTS: Final = 8
#: Without `batch_size`, the key-value caches may take this, or half of what the weights take.
DEFAULT_CACHE_BYTES: Final = 1 << 30
#: Of those who come together, whoever is first waits for all tokens of a batch. A CPU is busy with 64, and
#: 512 are no faster.
PROMPT_BATCH_ON_CPU: Final = 96
PROMPT_BATCH_ON_GPU: Final = 512
#: Python, the engine's library and its small buffers.
PROCESS_BYTES: Final = 60 << 20

_BYTES: Final = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
}


class Layout(msgspec.Struct, frozen=True):
    """How a model will be loaded. `context_length` is for each of the `slots`; bytes are estimates."""

    context_length: int
    slots: int
    prompt_batch: int
    size_bytes: int


def layout(
    model: gguf.Gguf, batch_size: int | None, options: LlamaCppOptions, *, on_gpu: bool = False
) -> Layout:
    """Plan for a file and the settings of its component."""
    trained = model.context_length or LONGEST_DEFAULT_CONTEXT
    context = options.context_length or min(trained, LONGEST_DEFAULT_CONTEXT)
    per_token = model.layers * (
        model.key_width * _BYTES[options.key_cache_type]
        + model.value_width * _BYTES[options.value_cache_type]
    )
    cache = 0 if model.embeds else int(per_token * context)
    room = max(DEFAULT_CACHE_BYTES, model.size_bytes // 2)
    slots = batch_size or max(1, min(MOST_DEFAULT_SLOTS, room // max(cache, 1)))
    batch = options.prompt_batch or (PROMPT_BATCH_ON_GPU if on_gpu else PROMPT_BATCH_ON_CPU)
    logits = batch * model.vocabulary * 4
    total = model.size_bytes + cache * slots + logits + (options.prompt_cache_mib << 20) + PROCESS_BYTES
    return Layout(context, slots, batch, total)


def estimate(load: LoadOptions) -> dict[str, int]:
    """Bytes by memory pool that loading this will probably take."""
    assert load.source is not None
    options = msgspec.convert(load.options, LlamaCppOptions)
    model = gguf.read(model_file(Path(load.source.path)))
    plan = layout(model, load.batch_size, options, on_gpu=load.named_gpu is not None or load.device == "mps")
    adapters = sum(adapter.source.size_bytes for adapter in load.adapters)
    return {load.named_gpu or "host": plan.size_bytes + adapters}


def model_file(path: Path) -> Path:
    """The GGUF file that a source means: the file itself, or the only one (or first part) in a folder."""
    if path.is_file():
        return path
    files = sorted(p for p in path.glob("*.gguf") if "mmproj" not in p.name)
    first = [f for f in files if "-00001-of-" in f.name] or files
    if len(first) == 1:
        return first[0]
    raise ModelLoadError(
        f"`{path}` holds {'no' if not first else len(first)} GGUF files",
        hint="name one: " + ", ".join(f"`{f.name}`" for f in first) if first else "name the file itself",
    )
