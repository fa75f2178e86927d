"""What do adapters look like that tests write themselves?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model_compose.drivers.contract import LoadedAdapter
from model_compose.drivers.huggingface.lora_blends import Adapter
from model_compose.sources.spec import LoadedSource

PREFIX = "base_model.model."
WIDE, HIGH = 5, 7


def made(
    folder: Path,
    layers: dict[str, int],
    *,
    key: str = "{layer}.lora_{half}.weight",
    wide: int = WIDE,
    high: int = HIGH,
    **settings: Any,
) -> Path:
    """An adapter with layers of these ranks."""
    torch.manual_seed(sum(map(ord, folder.name)))
    tensors: dict[str, Tensor] = {}
    for layer, rank in layers.items():
        tensors[PREFIX + key.format(layer=layer, half="A")] = torch.randn(rank, wide)
        tensors[PREFIX + key.format(layer=layer, half="B")] = torch.randn(high, rank)
    ranks = {"r": max(layers.values()), "rank_pattern": layers}
    config = {"peft_type": "LORA", "lora_alpha": 6, "target_modules": [], **ranks, **settings}
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def adapter(path: Path, weight: float = 1.0) -> Adapter:
    source = LoadedSource(path=str(path), format=None, revision=None, origin=f"./{path.name}", size_bytes=1)
    return Adapter(LoadedAdapter(path.name, source, weight))


def added(path: Path) -> dict[str, Tensor]:
    """What an adapter in a folder adds to each layer, as the engine and peft compute it."""
    config = adapter(path).config
    tensors = load_file(path / "adapter_model.safetensors")
    layers = {key.removeprefix(PREFIX).rpartition(".lora_")[0] for key in tensors}
    return {
        layer: config.scaling(layer)
        * (tensors[f"{PREFIX}{layer}.lora_B.weight"] @ tensors[f"{PREFIX}{layer}.lora_A.weight"])
        for layer in layers
    }


def two(folder: Path) -> list[Path]:
    """Two adapters that share a layer, each with settings of its own."""
    return [
        made(folder / "one", {"a.q_proj": 2, "a.v_proj": 3}, alpha_pattern={"v_proj": 9}),
        made(folder / "two", {"a.q_proj": 4, "b.up_proj": 1}, use_rslora=True),
    ]
