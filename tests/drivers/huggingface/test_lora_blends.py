"""Is a blend of adapters, written as one, what the adapters add together?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests import models
from tests.drivers.loras import PREFIX, adapter, added, made, two
from torch import Tensor

from model_compose.drivers.huggingface.lora_blends import blend, rank_of, write
from model_compose.errors import InvalidInput, ModelLoadError


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    return two(tmp_path)


@pytest.mark.parametrize("weights", [(0.5, 2.0), (-1.0, 0.25), (1.5, 0.0), (0.0, 3.0)])
def test_a_blend_adds_what_its_adapters_add_each_by_its_weight(
    pair: list[Path], weights: tuple[float, float], tmp_path: Path
) -> None:
    write([adapter(path) for path in pair], weights, tmp_path / "blend")
    found = added(tmp_path / "blend")
    wanted: dict[str, Tensor] = {}
    for path, weight in zip(pair, weights, strict=True):
        if weight:
            for layer, delta in added(path).items():
                wanted[layer] = wanted.get(layer, torch.zeros_like(delta)) + weight * delta
    assert found.keys() == wanted.keys()
    for layer, delta in wanted.items():
        torch.testing.assert_close(found[layer], delta, rtol=1e-5, atol=1e-5)


def test_one_adapter_is_not_copied(pair: list[Path], tmp_path: Path) -> None:
    write([adapter(path) for path in pair], (2.0, 0.0), tmp_path / "blend")
    assert (tmp_path / "blend" / "adapter_model.safetensors").readlink() == pair[
        0
    ] / "adapter_model.safetensors"
    config = json.loads((tmp_path / "blend" / "adapter_config.json").read_text())
    assert (config["lora_alpha"], config["alpha_pattern"]) == (12.0, {"v_proj": 18.0})


def test_keys_of_older_versions_are_written_as_those_of_today(tmp_path: Path) -> None:
    old = made(tmp_path / "old", {"a.q_proj": 2}, key="{layer}.lora_{half}.default.weight")
    write([adapter(old)], (1.0,), tmp_path / "blend")
    assert sorted(load_file(tmp_path / "blend" / "adapter_model.safetensors")) == [
        f"{PREFIX}a.q_proj.lora_A.weight",
        f"{PREFIX}a.q_proj.lora_B.weight",
    ]


def test_the_rank_of_a_blend_is_that_of_all_in_it(pair: list[Path]) -> None:
    adapters = [adapter(path) for path in pair]
    assert [each.rank for each in adapters] == [3, 4]
    assert [rank_of(adapters, weights) for weights in ((1, 1), (1, 0), (0, 0))] == [7, 3, 0]


def test_a_real_adapter_of_peft_is_read() -> None:
    found = adapter(models.pirate_peft())
    assert found.rank > 0
    assert found.is_current


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_dora": True}, "`use_dora`"),
        ({"bias": "all"}, "`bias`"),
        ({"modules_to_save": ["lm_head"]}, "`modules_to_save`"),
        ({"init_lora_weights": "pissa"}, "began as `pissa`"),
        ({"peft_type": "LOHA"}, "only `LORA` is supported"),
    ],
)
def test_what_is_more_than_lora_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    path = made(tmp_path / "odd", {"a.q_proj": 2}, **settings)
    with pytest.raises(ModelLoadError, match=message):
        adapter(path)


def test_weights_that_are_no_lora_are_refused(tmp_path: Path) -> None:
    path = made(tmp_path / "odd", {"a.q_proj": 2})
    file = path / "adapter_model.safetensors"
    save_file({**load_file(file), f"{PREFIX}lm_head.weight": torch.ones(1)}, file)
    with pytest.raises(ModelLoadError, match=r"no LoRA: `base_model.model.lm_head.weight`"):
        adapter(path)


def test_weights_of_a_request_are_by_name(pair: list[Path]) -> None:
    adapters = [adapter(pair[0], 0.5), adapter(pair[1], 2.0)]
    assert blend(adapters, None) == (0.5, 2.0)
    assert blend(adapters, {"two": 3.0}) == (0.0, 3.0)
    assert blend(adapters, {}) == (0.0, 0.0)
    with pytest.raises(InvalidInput, match="no adapter `three`; there are: `one`, `two`"):
        blend(adapters, {"three": 1.0})
