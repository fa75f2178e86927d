"""How do several LoRA adapters, each with a weight, become one?

For engines that take one adapter for each request, and know no weights. An adapter alone gets its weight by
its scaling: a copy of its configuration, beside a link to its file. Of several the ranks stand side by side:
what their layers add is a sum, and so is a product of longer matrices.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model_compose.drivers.contract import LoadedAdapter
from model_compose.drivers.huggingface.lora_files import (
    CONFIG,
    KEY,
    MERGE_FIRST,
    PREFIX,
    Config,
    read_config,
    weights_file,
)
from model_compose.errors import InvalidInput, ModelLoadError

_FILE: Final = "adapter_model.safetensors"
#: A whole weight that peft saves beside what is added to it: the base's own.
_BASE: Final = ".base_layer.weight"
#: Of both halves, where the rank stands.
_RANK_IN: Final = {"A": 0, "B": 1}


class Adapter:
    """The files of one adapter. Raises ModelLoadError for one that the engine would misunderstand."""

    def __init__(self, given: LoadedAdapter) -> None:
        self.name = given.name
        self.weight = given.weight
        what = f"adapter `{given.name}` (`{given.source.origin}`)"
        self.file = weights_file(Path(given.source.path), what)
        self._config_file = self.file.parent / CONFIG
        self.config: Config = read_config(self._config_file, what)
        self.layers: dict[str, dict[str, str]] = defaultdict(dict)
        try:
            with safe_open(self.file, framework="pt") as opened:
                keys = list(opened.keys())
        except (SafetensorError, OSError) as error:
            raise ModelLoadError(f"{what} cannot be read: {error}") from error
        for key in keys:
            match = KEY.fullmatch(key.removeprefix(PREFIX))
            if match is not None:
                self.layers[match["layer"]][match["half"]] = key
            elif not key.endswith(_BASE):
                raise ModelLoadError(
                    f"{what} has weights that are no LoRA: `{key}`",
                    hint=MERGE_FIRST,
                )
        halved = [layer for layer, halves in self.layers.items() if len(halves) != len(_RANK_IN)]
        if halved or not self.layers:
            lacks = f"only one half of its weights for `{halved[0]}`" if halved else "no LoRA weights"
            raise ModelLoadError(f"{what} has {lacks}")
        self.rank = max(self.config.rank(layer) for layer in self.layers)

    @property
    def is_current(self) -> bool:
        """Whether its keys are as peft writes them now."""
        return all(key == _named(key) for halves in self.layers.values() for key in halves.values())

    def settings(self) -> dict[str, Any]:
        """Its configuration, as it is written."""
        found: dict[str, Any] = json.loads(self._config_file.read_text(encoding="utf-8"))
        return found


def blend(adapters: Sequence[Adapter], weights: Mapping[str, float] | None) -> tuple[float, ...]:
    """The weight of each adapter for a request that names some. Raises InvalidInput."""
    if weights is None:
        return tuple(adapter.weight for adapter in adapters)
    names = [adapter.name for adapter in adapters]
    for name, weight in weights.items():
        if name not in names:
            known = ", ".join(f"`{each}`" for each in names) or "none"
            raise InvalidInput(f"there is no adapter `{name}`; there are: {known}", field="adapters")
        if not math.isfinite(weight):
            raise InvalidInput(f"the weight of adapter `{name}` is no number", field=f"adapters.{name}")
    return tuple(float(weights.get(name, 0.0)) for name in names)


def rank_of(adapters: Sequence[Adapter], weights: Sequence[float]) -> int:
    """The rank of a blend."""
    return sum(adapter.rank for adapter, weight in zip(adapters, weights, strict=True) if weight)


def write(adapters: Sequence[Adapter], weights: Sequence[float], folder: Path) -> None:
    """Write a blend, as peft would save an adapter, into a new folder; without weights it adds nothing."""
    used = [(adapter, weight) for adapter, weight in zip(adapters, weights, strict=True) if weight]
    used = used or [(adapters[0], 0.0)]
    folder.mkdir(parents=True)
    if len(used) == 1 and used[0][0].is_current:
        _scaled(*used[0], folder)
    else:
        _summed(used, folder)


def _scaled(adapter: Adapter, weight: float, folder: Path) -> None:
    settings = adapter.settings()
    patterns = {name: alpha * weight for name, alpha in (adapter.config.alpha_pattern or {}).items()}
    settings |= {"lora_alpha": adapter.config.lora_alpha * weight, "alpha_pattern": patterns}
    _save(settings, folder)
    (folder / _FILE).symlink_to(adapter.file.resolve())


def _summed(used: Sequence[tuple[Adapter, float]], folder: Path) -> None:
    rank = sum(adapter.rank for adapter, _ in used)
    halves: dict[str, list[Tensor]] = defaultdict(list)
    for adapter, weight in used:
        with safe_open(adapter.file, framework="pt") as file:
            for layer, keys in adapter.layers.items():
                scaling = torch.tensor(weight * adapter.config.scaling(layer))
                halves[_named(keys["A"])].append(file.get_tensor(keys["A"]).float())
                halves[_named(keys["B"])].append(file.get_tensor(keys["B"]).float() * scaling)
    tensors = {key: _side_by_side(parts, _RANK_IN[_half(key)], rank) for key, parts in halves.items()}
    layers = {layer.rpartition(".")[2] for adapter, _ in used for layer in adapter.layers}
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "bias": "none"}
    _save({**settings, "target_modules": sorted(layers)}, folder)
    save_file(tensors, folder / _FILE)


def _named(key: str) -> str:
    """A key as peft writes it now: older versions put the adapter's name before `weight`."""
    match = KEY.fullmatch(key.removeprefix(PREFIX))
    assert match is not None
    embeds = "lora_embedding_" in key
    return f"{PREFIX}{match['layer']}.lora_{'embedding_' * embeds}{match['half']}{'.weight' * (not embeds)}"


def _half(key: str) -> str:
    match = KEY.fullmatch(key)
    assert match is not None
    return match["half"]


def _side_by_side(parts: Sequence[Tensor], axis: int, rank: int) -> Tensor:
    """The parts along the axis of their ranks, filled up with zeros: some adapters have not every layer."""
    joined = torch.cat(tuple(parts), axis)
    missing = rank - joined.shape[axis]
    zeros = [missing if i == axis else size for i, size in enumerate(joined.shape)]
    return torch.cat((joined, torch.zeros(zeros)), axis).contiguous()


def _save(settings: Mapping[str, Any], folder: Path) -> None:
    (folder / CONFIG).write_text(json.dumps(settings), encoding="utf-8")
