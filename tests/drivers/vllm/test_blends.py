"""Is a blend of adapters, written as one, what the adapters add together?"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests import models
from torch import Tensor

from model_compose.drivers.contract import LoadedAdapter
from model_compose.drivers.vllm import adapters as kept
from model_compose.drivers.vllm.adapters import Blends
from model_compose.drivers.vllm.blends import Adapter, blend, rank_of, write
from model_compose.errors import InvalidInput, ModelLoadError
from model_compose.sources.spec import LoadedSource

PREFIX = "base_model.model."
WIDE, HIGH = 5, 7


def made(
    folder: Path, layers: dict[str, int], *, key: str = "{layer}.lora_{half}.weight", **settings: Any
) -> Path:
    """An adapter with layers of these ranks."""
    torch.manual_seed(sum(map(ord, folder.name)))
    tensors: dict[str, Tensor] = {}
    for layer, rank in layers.items():
        tensors[PREFIX + key.format(layer=layer, half="A")] = torch.randn(rank, WIDE)
        tensors[PREFIX + key.format(layer=layer, half="B")] = torch.randn(HIGH, rank)
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


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    return [
        made(tmp_path / "one", {"a.q_proj": 2, "a.v_proj": 3}, alpha_pattern={"v_proj": 9}),
        made(tmp_path / "two", {"a.q_proj": 4, "b.up_proj": 1}, use_rslora=True),
    ]


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


# What the engine is asked to keep


class Engine:
    """Notes what it is told; refuses an adapter as the engine does."""

    def __init__(self) -> None:
        self.loaded: dict[int, str] = {}
        self.refuses = False

    async def add_lora(self, lora_request: Any) -> bool:
        if self.refuses:
            raise ValueError("no such layer")
        assert (Path(lora_request.lora_path) / "adapter_config.json").is_file()
        self.loaded[lora_request.lora_int_id] = lora_request.lora_path
        return True

    async def remove_lora(self, lora_id: int) -> bool:
        del self.loaded[lora_id]
        return True


class Request:
    """The engine's `LoRARequest`, as far as it is used."""

    def __init__(self, name: str, number: int, path: str) -> None:
        self.lora_name, self.lora_int_id, self.lora_path = name, number, path


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(kept, "_request", Request)
    return Engine()


async def test_a_blend_is_made_once_and_kept(engine: Engine, pair: list[Path], tmp_path: Path) -> None:
    blends = Blends(engine, [adapter(path) for path in pair], 8, tmp_path / "made", on_cpu=False)
    async with blends.using({"one": 1.0}) as first, blends.using({"one": 1.0}) as second:
        assert first is second
    async with blends.using({"one": 2.0}) as third:
        assert third.lora_int_id != first.lora_int_id
    assert len(engine.loaded) == 2


@pytest.mark.parametrize("weights", [{}, {"one": 0.0}])
async def test_no_weight_is_the_base_alone(
    engine: Engine, pair: list[Path], tmp_path: Path, weights: dict[str, float]
) -> None:
    blends = Blends(engine, [adapter(path) for path in pair], 8, tmp_path / "made", on_cpu=False)
    async with blends.using(weights) as chosen:
        assert chosen is None
    assert engine.loaded == {}


async def test_on_a_cpu_no_weight_is_an_adapter_that_adds_nothing(
    engine: Engine, pair: list[Path], tmp_path: Path
) -> None:
    blends = Blends(engine, [adapter(path) for path in pair], 8, tmp_path / "made", on_cpu=True)
    async with blends.using({}) as chosen:
        assert not any(delta.any() for delta in added(Path(chosen.lora_path)).values())


async def test_a_blend_that_has_no_room_is_refused(engine: Engine, pair: list[Path], tmp_path: Path) -> None:
    blends = Blends(engine, [adapter(path) for path in pair], 4, tmp_path / "made", on_cpu=False)
    with pytest.raises(InvalidInput, match="together have rank 7, and there is room for 4"):
        async with blends.using({"one": 1.0, "two": 1.0}):
            pass


async def test_those_that_were_used_longest_ago_go_first_but_none_that_is_in_use(
    engine: Engine, pair: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "KEPT", 2)
    folder = tmp_path / "made"
    blends = Blends(engine, [adapter(path) for path in pair], 8, folder, on_cpu=False)
    async with blends.using({"one": 1.0}) as used:
        for weight in (2.0, 3.0, 4.0):
            async with blends.using({"one": weight}):
                pass
        assert used.lora_int_id in engine.loaded
    assert len(engine.loaded) == 2
    assert sorted(str(path) for path in folder.iterdir()) == sorted(engine.loaded.values())


async def test_what_the_engine_refuses_leaves_nothing(
    engine: Engine, pair: list[Path], tmp_path: Path
) -> None:
    blends = Blends(engine, [adapter(path) for path in pair], 8, tmp_path / "made", on_cpu=False)
    engine.refuses = True
    with pytest.raises(ValueError, match="no such layer"):
        await blends.check()
    with suppress(FileNotFoundError):
        assert list((tmp_path / "made").iterdir()) == []
