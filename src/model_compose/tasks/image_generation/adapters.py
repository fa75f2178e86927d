"""How do LoRA adapters join a pipeline of diffusers, in a blend that may change with every pass?"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError

from model_compose.drivers.contract import LoadedAdapter
from model_compose.errors import InvalidInput, ModelLoadError, first_line

_STANDARD: Final = "pytorch_lora_weights.safetensors"
#: The first half of a LoRA layer, in all the ways that trainers write it.
_HALF: Final = re.compile(r"lora\w*[._](?:A|down)\.")
_LOADING: Final = (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError, TypeError)


class Blends:
    """The adapters of a pipeline. Where all weights are 0 it is the one without them."""

    def __init__(self, pipe: Any, adapters: Sequence[LoadedAdapter], dtype: torch.dtype) -> None:
        """Load the adapters. Raises ModelLoadError for one that does not fit, or only in part."""
        self._pipe = pipe
        self._names = tuple(adapter.name for adapter in adapters)
        self.defaults = tuple(adapter.weight for adapter in adapters)
        self._used: tuple[float, ...] | None = None
        for i, adapter in enumerate(adapters):
            _require_precision(adapter, dtype)
            _load(pipe, adapter, _key(i))

    def blend(self, weights: Mapping[str, float] | None) -> tuple[float, ...]:
        """Weights of the adapters of one request, in their order. Raises InvalidInput."""
        for name in weights or {}:
            if name not in self._names:
                known = ", ".join(f"`{each}`" for each in self._names) or "none"
                raise InvalidInput(f"there is no adapter `{name}`; there are: {known}", field="adapters")
        if weights is None:
            return self.defaults
        return tuple(float(weights.get(name, 0.0)) for name in self._names)

    def use(self, blend: tuple[float, ...]) -> None:
        """The blend of the next passes, until the next call."""
        if blend == self._used:
            return
        self._used = None
        some = [(_key(i), weight) for i, weight in enumerate(blend) if weight != 0.0]
        if some:
            self._pipe.enable_lora()
            self._pipe.set_adapters([name for name, _ in some], [weight for _, weight in some])
        elif blend:
            self._pipe.disable_lora()
        self._used = blend


def _key(index: int) -> str:
    """What the library calls an adapter: it takes no dots, which names may have."""
    return f"adapter_{index}"


def _load(pipe: Any, adapter: LoadedAdapter, key: str) -> None:
    what = f"adapter `{adapter.name}` (`{adapter.source.origin}`)"
    file = _weights(Path(adapter.source.path), what)
    given = {"weight_name": file.name, "use_safetensors": True, "local_files_only": True}
    try:
        told = pipe.lora_state_dict(str(file.parent), **_of_class(pipe), **given)
        state: Mapping[str, Any] = told[0] if isinstance(told, tuple) else told
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "Already found a `peft_config`", UserWarning
            )  # several are meant
            pipe.load_lora_weights(str(file.parent), adapter_name=key, **given)
    except _LOADING as error:
        cause = error.__context__ if isinstance(error, KeyError) and error.__context__ else error
        raise ModelLoadError(
            f"{what} cannot be loaded: {first_line(cause)}",
            hint="it was trained for another model, or is no LoRA",
        ) from error
    wanted, found = sum(_HALF.search(name) is not None for name in state), _layers(pipe, key)
    if found < wanted or not found:
        raise ModelLoadError(
            f"{what} fits {found} of the {wanted} layers that it is for",
            hint="it was trained for another model",
        )


def _of_class(pipe: Any) -> dict[str, Any]:
    """What SDXL needs to translate the names of other trainers."""
    return {"unet_config": pipe.unet.config} if hasattr(pipe, "unet") else {}


def _layers(pipe: Any, key: str) -> int:
    """How many layers of a pipeline have an adapter."""
    parts = [getattr(pipe, name, None) for name in pipe._lora_loadable_modules]
    modules = [module for part in parts if part is not None for module in part.modules()]
    return sum(
        key in getattr(module, half, ()) for module in modules for half in ("lora_A", "lora_embedding_A")
    )


def _weights(path: Path, what: str) -> Path:
    """The file of weights: the path itself, or the one in its folder."""
    if path.is_file() and path.suffix == ".safetensors":
        return path
    beside = sorted(path.iterdir()) if path.is_dir() else [path]
    found = [file for file in beside if file.suffix == ".safetensors"]
    standard = [file for file in found if file.name == _STANDARD]
    if standard or len(found) == 1:
        return (standard or found)[0]
    if found:
        names = ", ".join(f"`{file.name}`" for file in found)
        raise ModelLoadError(f"{what} is several files: {names}", hint="name one of them")
    for file in beside:
        if file.suffix in (".bin", ".pt", ".pth", ".ckpt"):
            raise ModelLoadError(
                f"{what} is in the format of `{file.name}`, which may hold code and is not read",
                hint="load it with diffusers where you trust it, and `save_lora_weights` writes safetensors",
            )
    raise ModelLoadError(f"{what} has no weights", hint=f"a folder of one has a `{_STANDARD}`")


def _require_precision(adapter: LoadedAdapter, dtype: torch.dtype) -> None:
    own = str(dtype).removeprefix("torch.")
    if adapter.precision not in (None, "auto", own):
        raise ModelLoadError(
            f"adapter `{adapter.name}` cannot be `{adapter.precision}`: the model computes in `{own}`",
            hint="leave its `precision` out",
        )
