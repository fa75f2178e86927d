"""How much memory a model of Unsloth will take, told without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model_compose.drivers.contract import LoadedAdapter, LoadOptions, Quantization
from model_compose.drivers.huggingface.size import (
    CONTEXT_BYTES,
    GPU_PROCESS_BYTES,
    LEAST_CACHE_BYTES,
    PROCESS_BYTES,
)
from model_compose.drivers.unsloth.size import KEPT, MORE_BYTES, estimate
from model_compose.sources.spec import LoadedSource

STORED = 4_000_000
MIB = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, STORED]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(STORED))
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def estimated(path: Path, **more: Any) -> dict[str, int]:
    source = LoadedSource(path=str(path), format=None, revision=None, origin="x", size_bytes=9)
    return estimate(LoadOptions(task="text-generation", source=source, threads=1, scratch="", **more))


def test_weights_and_a_cache_and_a_process_that_has_imported_much(folder: Path) -> None:
    found = estimated(folder, options={"cache_mib": 3})
    assert found == {"host": STORED + 3 * MIB + PROCESS_BYTES + MORE_BYTES}


def test_weights_of_4_bits_take_what_their_files_take(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"quantization_config": {"load_in_4bit": True}}))
    size = (folder / "model.safetensors").stat().st_size
    assert estimated(folder)["host"] == size + LEAST_CACHE_BYTES + PROCESS_BYTES + MORE_BYTES


def test_weights_that_become_4_bits_take_less(folder: Path) -> None:
    small = estimated(folder, quantization=Quantization(type="nf4", double_quant=True))
    assert small["host"] < estimated(folder)["host"]


def test_blends_of_adapters_stay_in_memory(folder: Path) -> None:
    source = LoadedSource(path="", format=None, revision=None, origin="a", size_bytes=1000)
    with_it = estimated(folder, adapters=(LoadedAdapter("a", source),))
    assert with_it["host"] - estimated(folder)["host"] == 1000 + 2 * KEPT * 1000


def test_on_a_gpu_they_are_there(folder: Path) -> None:
    found = estimated(folder, device="cuda:1", precision="float32")
    there = STORED + LEAST_CACHE_BYTES + CONTEXT_BYTES
    assert found == {"host": GPU_PROCESS_BYTES + MORE_BYTES, "cuda:1": there}
