"""How much memory will a model take? The gateway asks before it loads one, without torch."""

from __future__ import annotations

import json
import os
import struct
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import msgspec

from model_compose.drivers.contract import LoadOptions
from model_compose.drivers.huggingface.spec import HuggingFaceOptions

#: Python, torch and transformers.
PROCESS_BYTES: Final = 450 << 20
#: The same where torch was built for CUDA, and what CUDA takes of the GPU for each process.
GPU_PROCESS_BYTES: Final = 1500 << 20
CONTEXT_BYTES: Final = 750 << 20
LEAST_CACHE_BYTES: Final = 1 << 30
_MIB: Final = 1 << 20

_BITS: Final = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I8": 8, "U8": 8}
_PRECISION_BYTES: Final = {"float32": 4, "float16": 2, "bfloat16": 2}
#: Embeddings stay as they are, and kernels fill layers up: measured on a small model, which has much of both.
_QUANTIZED_BYTES: Final = {"int8": 2.5, "int4": 1.5, "fp4": 1.3, "nf4": 1.3}
#: Weights in a GGUF file are expanded to numbers: those of four bits, which most have, to 32.
_GGUF_FACTOR: Final = 8
#: Kinds of quantization whose weights stay as they are stored; others are expanded where a GPU lacks kernels.
_STAY_PACKED: Final = ("awq", "bitsandbytes", "gptq")
#: No header is longer, says the format.
_LONGEST_HEADER: Final = 100_000_000


def estimate(load: LoadOptions) -> dict[str, int]:
    """Bytes by memory pool that loading this will probably take."""
    assert load.source is not None
    gpu = _gpu(load)
    precision = load.precision if load.precision in _PRECISION_BYTES else None
    width = _PRECISION_BYTES[precision or ("float16" if gpu else "float32")]
    numbers = _numbers(Path(load.source.path), load.source.size_bytes)
    each = _QUANTIZED_BYTES[load.quantization.type] if load.quantization else float(width)
    weights = stored_if_quantized(Path(load.source.path)) or int(numbers * each)
    weights += sum(adapter.source.size_bytes for adapter in load.adapters)
    options = msgspec.convert(load.options, HuggingFaceOptions)
    cache = cache_bytes(options, weights) if load.task in ("text-generation", "chat-completion") else 0
    if gpu is None:
        return {"host": weights + cache + PROCESS_BYTES}
    return {"host": GPU_PROCESS_BYTES, gpu: weights + cache + CONTEXT_BYTES}


def _gpu(load: LoadOptions) -> str | None:
    """The GPU that a device means, as far as can be told without torch; None where it is none."""
    return "cuda:0" if load.device == "auto" and gpu_expected() else load.named_gpu


def gpu_expected() -> bool:
    """Whether torch will probably find an NVIDIA GPU: one is there, and this torch is not built for CPUs."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1") or not Path("/dev/nvidia0").exists():
        return False
    try:
        return not version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return True  # it is in another environment


def stored_if_quantized(path: Path) -> int | None:
    """What weights take that are quantized already, and stay so: as much as their files. Else None."""
    folder = path if path.is_dir() else path.parent
    how = config_of(folder).get("quantization_config")
    if not isinstance(how, dict) or how.get("quant_method", "bitsandbytes") not in _STAY_PACKED:
        return None
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) or None


def config_of(folder: Path) -> dict[str, Any]:
    """The configuration beside the weights; empty if there is none that can be read."""
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def cache_bytes(options: HuggingFaceOptions, weights: int) -> int:
    """What the keys and values of all sequences may take."""
    if options.cache_mib is not None:
        return options.cache_mib * _MIB
    return max(LEAST_CACHE_BYTES, weights // 2)


def _numbers(path: Path, size_bytes: int) -> int:
    """How many numbers the weights have: exactly for safetensors, a guess for others."""
    files = [path] if path.is_file() else _safetensors(path)
    if path.suffix == ".gguf" or (not files and list(path.glob("*.gguf"))):
        return size_bytes * _GGUF_FACTOR // _PRECISION_BYTES["float32"]
    if not files or path.suffix not in ("", ".safetensors"):
        return size_bytes // _PRECISION_BYTES["float32"]
    return sum(map(_numbers_of, files))


def _safetensors(folder: Path) -> list[Path]:
    """The weights of a folder; a pipeline of diffusers has those of each part in a folder of its own."""
    if not (folder / "model_index.json").is_file():
        return sorted(folder.glob("*.safetensors"))
    files = sorted(folder.glob("*/*.safetensors"))
    whole = {file.parent for file in files if ".fp16" not in file.name}
    return [file for file in files if ".fp16" not in file.name or file.parent not in whole]


def _numbers_of(file: Path) -> int:
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(min(length, _LONGEST_HEADER)))
        return sum(
            (end - begin) * 8 // _BITS.get(tensor["dtype"], 16)
            for name, tensor in header.items()
            if name != "__metadata__"
            for begin, end in [tensor["data_offsets"]]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return file.stat().st_size // _PRECISION_BYTES["float16"]  # the worker says what is wrong with it
