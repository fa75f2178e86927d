"""Which adapter does vLLM get for a request, and how long is it kept?"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.drivers.loras import adapter, added, two

from model_compose.drivers.vllm import adapters as kept
from model_compose.drivers.vllm.adapters import Blends
from model_compose.errors import InvalidInput


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    return two(tmp_path)


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
