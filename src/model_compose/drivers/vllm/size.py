"""How much memory will vLLM take? The gateway asks before it loads a model, without the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from model_compose.drivers.contract import LoadOptions
from model_compose.drivers.huggingface.size import config_of
from model_compose.drivers.vllm.spec import VllmOptions

#: Three processes: ours, the engine's, and the one that computes; each has imported torch and vLLM.
PROCESS_BYTES: Final = 2300 << 20
LEAST_CACHE_BYTES: Final = 1 << 30
#: For models that read a text once: encoders keep nothing, others one step's worth.
READING_CACHE_BYTES: Final = 256 << 20
#: Of what a checkpoint does not say.
_DEFAULT_WIDTH: Final = 2
_WIDTHS: Final = {"float32": 4, "float16": 2, "bfloat16": 2}
_WEIGHTS: Final = (".safetensors", ".bin", ".pt", ".pth")


def estimate(load: LoadOptions) -> dict[str, int]:
    """Bytes by memory pool that loading this will probably take."""
    assert load.source is not None
    weights = weight_bytes(Path(load.source.path), load)
    total = weights + sum(adapter.source.size_bytes for adapter in load.adapters)
    total += cache_bytes(load, weights)
    if load.named_gpu is None:
        return {"host": total + PROCESS_BYTES}
    return {"host": PROCESS_BYTES, load.named_gpu: total}


def cache_bytes(load: LoadOptions, weights: int) -> int:
    """What keys and values may take, where they are not given what a GPU has left."""
    given = known_options(load).kv_cache_memory_bytes
    if given is not None:
        return given
    return max(LEAST_CACHE_BYTES, weights // 2) if load.task in GENERATES else READING_CACHE_BYTES


def weight_bytes(path: Path, load: LoadOptions) -> int:
    """What the weights take in the number format that is computed in; those in the cache are of one."""
    folder = path if path.is_dir() else path.parent
    names = [file for file in folder.glob("*") if file.suffix in _WEIGHTS]
    chosen = [file for file in names if file.suffix == ".safetensors"] or names
    stored = sum(file.stat().st_size for file in chosen)
    config = config_of(folder)
    if "quantization_config" in config:
        return stored
    written = str(config.get("dtype") or config.get("torch_dtype"))
    have = _WIDTHS.get(written, _DEFAULT_WIDTH)
    want = _WIDTHS.get(load.precision or "", min(have, _DEFAULT_WIDTH) if load.task in GENERATES else have)
    return stored * want // have


#: Tasks whose models write token by token, and keep keys and values for that.
GENERATES: Final = ("text-generation", "chat-completion")


def known_options(load: LoadOptions) -> VllmOptions:
    """The options that we know; others are the engine's alone."""
    known = VllmOptions.__struct_fields__
    return msgspec.convert({name: load.options[name] for name in known if name in load.options}, VllmOptions)
