"""How much memory the engine will take, told without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model_compose.drivers.contract import LoadedAdapter, LoadOptions
from model_compose.drivers.vllm.size import LEAST_CACHE_BYTES, PROCESS_BYTES, READING_CACHE_BYTES, estimate
from model_compose.sources.spec import LoadedSource

STORED = 4_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(bytes(STORED))
    (tmp_path / "pytorch_model.bin").write_bytes(bytes(STORED))
    (tmp_path / "config.json").write_text(json.dumps({"dtype": "float32"}))
    return tmp_path


def host(path: Path, task: str = "text-classification", **more: Any) -> int:
    """Bytes beside those that the processes and a small cache take anyway."""
    cache = READING_CACHE_BYTES if task == "text-classification" else 0
    return estimated(path, task, **more)["host"] - PROCESS_BYTES - cache


def estimated(path: Path, task: str = "text-classification", **more: Any) -> dict[str, int]:
    source = LoadedSource(path=str(path), format=None, revision=None, origin="x", size_bytes=9)
    return estimate(LoadOptions(task=task, source=source, threads=1, scratch="", **more))


@pytest.mark.parametrize(
    ("precision", "size"), [(None, STORED), ("float32", STORED), ("bfloat16", STORED // 2)]
)
def test_weights_are_counted_once_in_the_format_that_is_computed_in(
    folder: Path, precision: str | None, size: int
) -> None:
    assert host(folder, precision=precision) == size


def test_a_model_that_writes_is_halved_by_default_and_has_a_cache(folder: Path) -> None:
    assert host(folder, "text-generation") == STORED // 2 + LEAST_CACHE_BYTES
    options = {"kv_cache_memory_bytes": 7, "block_size": 32}
    assert host(folder, "text-generation", options=options) == STORED // 2 + 7


def test_quantized_weights_are_as_large_as_their_files(folder: Path) -> None:
    config = {"dtype": "float32", "quantization_config": {"quant_method": "awq"}}
    (folder / "config.json").write_text(json.dumps(config))
    assert host(folder, precision="float16") == STORED


def test_adapters_and_a_gpu_are_counted(folder: Path) -> None:
    source = LoadedSource(path="x", format=None, revision=None, origin="x", size_bytes=100)
    found = estimated(folder, device="cuda", adapters=(LoadedAdapter("a", source),))
    assert found == {"host": PROCESS_BYTES, "cuda:0": STORED + 100 + READING_CACHE_BYTES}


def test_without_a_configuration_there_is_still_an_estimate(folder: Path) -> None:
    (folder / "config.json").write_text("[")
    assert host(folder) == STORED
