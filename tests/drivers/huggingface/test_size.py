"""How much memory a model will take, told without torch from the headers of its files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from model_compose.drivers.contract import LoadOptions, Quantization
from model_compose.drivers.huggingface import size
from model_compose.drivers.huggingface.size import (
    CONTEXT_BYTES,
    GPU_PROCESS_BYTES,
    LEAST_CACHE_BYTES,
    PROCESS_BYTES,
    estimate,
)
from model_compose.sources.spec import LoadedSource

NUMBERS = 3_000_000


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without one."""
    monkeypatch.setattr(size, "gpu_expected", lambda: False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    halves = {"a": np.zeros(NUMBERS // 2, np.float16), "b": np.zeros((2, NUMBERS // 4), np.float16)}
    save_file(halves, tmp_path / "model.safetensors")
    return tmp_path


def bytes_of(path: Path, task: str = "text-embedding", **more: Any) -> dict[str, int]:
    files = [path] if path.is_file() else list(path.iterdir())
    stored = sum(file.stat().st_size for file in files)
    source = LoadedSource(path=str(path), format=None, revision=None, origin="x", size_bytes=stored)
    return estimate(LoadOptions(task=task, source=source, threads=1, scratch="", **more))


@pytest.mark.parametrize(
    ("more", "each"),
    [
        ({}, 4),
        ({"precision": "auto"}, 4),
        ({"precision": "bfloat16"}, 2),
        ({"quantization": Quantization(type="int8")}, 2.5),
        ({"quantization": Quantization(type="nf4")}, 1.3),
    ],
)
def test_the_numbers_of_the_weights_are_counted_in_what_they_will_be(
    folder: Path, more: dict[str, Any], each: float
) -> None:
    assert bytes_of(folder, **more) == {"host": int(NUMBERS * each) + PROCESS_BYTES}
    assert bytes_of(folder / "model.safetensors", **more) == bytes_of(folder, **more)


@pytest.mark.parametrize(
    ("how", "stays"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, True),
        ({"load_in_4bit": True}, True),
        ({"quant_method": "awq"}, True),
        ({"quant_method": "mxfp4"}, False),
        ({"quant_method": "fp8"}, False),
        (None, False),
    ],
)
def test_weights_that_stay_packed_take_what_their_files_take(folder: Path, how: Any, stays: bool) -> None:
    (folder / "config.json").write_text(json.dumps({"quantization_config": how}))
    stored = (folder / "model.safetensors").stat().st_size
    assert bytes_of(folder)["host"] - PROCESS_BYTES == (stored if stays else NUMBERS * 4)


def test_generation_keeps_keys_and_values(folder: Path) -> None:
    without = bytes_of(folder)["host"]
    assert bytes_of(folder, "text-generation")["host"] == without + LEAST_CACHE_BYTES
    assert bytes_of(folder, "chat-completion", options={"cache_mib": 64})["host"] == without + (64 << 20)


def test_on_a_gpu_the_weights_count_there(folder: Path) -> None:
    there = NUMBERS * 2 + CONTEXT_BYTES
    assert bytes_of(folder, device="cuda:1") == {"host": GPU_PROCESS_BYTES, "cuda:1": there}


def test_auto_is_a_gpu_where_there_is_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size, "gpu_expected", lambda: True)
    assert bytes_of(folder) == bytes_of(folder, device="cuda") == bytes_of(folder, device="cuda:0")
    assert bytes_of(folder, device="cpu")["host"] > NUMBERS * 4


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, b"\x02\0\0\0\0\0\0\0[]", b"\x04\0\0\0\0\0\0\0null"])
def test_a_damaged_header_is_left_to_the_worker(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert bytes_of(tmp_path)["host"] >= PROCESS_BYTES


def test_it_imports_no_ml_library() -> None:
    names = "('torch', 'transformers', 'numpy', 'safetensors')"
    code = (
        f"import sys, model_compose.drivers.huggingface.size; print([n for n in {names} if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
