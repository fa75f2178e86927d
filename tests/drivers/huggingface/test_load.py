"""Is the file of weights that is named the one that is loaded?"""

from __future__ import annotations

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests import tiny_models
from tests.tasks.batches import load_options

from model_compose.drivers.huggingface.load import load, read_config
from model_compose.errors import ModelLoadError, OutOfMemory

MARK = "model.embed_tokens.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model whose weights lie there twice; those of PyTorch are marked."""
    from safetensors.torch import load_file

    tiny_models.decoder("llama", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights[MARK] = torch.full_like(weights[MARK], 7.0)
    torch.save(weights, tmp_path / "pytorch_model.bin")
    return tmp_path


def marked(path: Path) -> bool:
    loaded: Any = load(load_options(path, "text-generation"), "AutoModelForCausalLM", lambda *_: None)
    return bool((loaded.model.get_input_embeddings().weight == 7.0).all())


@pytest.mark.parametrize("config", [None, {"model_type": "llama"}], ids=["alone", "beside a configuration"])
def test_what_peft_saved_is_an_adapter_and_no_model(tmp_path: Path, config: Any) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/base"}))
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelLoadError, match="is an adapter, and no model") as caught:
        read_config(load_options(tmp_path, "text-generation"))
    assert "write its base, `owner/base`, as `model`" in str(caught.value.hint)


@pytest.mark.parametrize("there", [True, False])
def test_an_adapter_beside_whole_weights_matters_where_peft_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    (folder / "adapter_config.json").write_text("{}")
    monkeypatch.setattr("model_compose.drivers.huggingface.load.find_spec", lambda name: there or None)
    if there:
        with pytest.raises(ModelLoadError, match="is an adapter, and no model") as caught:
            read_config(load_options(folder, "text-generation"))
        assert caught.value.hint == "write its base as `model`, and this in `peft_adapters`"
    else:
        assert read_config(load_options(folder, "text-generation")).model_type == "llama"


def test_a_folder_gives_its_safetensors(folder: Path) -> None:
    assert not marked(folder)


@pytest.mark.parametrize(("name", "expected"), [("model.safetensors", False), ("pytorch_model.bin", True)])
def test_a_file_that_is_named_is_the_one(folder: Path, name: str, expected: bool) -> None:
    assert marked(folder / name) is expected


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), OutOfMemory),
        (RuntimeError("the weights are those of a fish"), ModelLoadError),
    ],
    ids=["memory", "anything else"],
)
def test_memory_that_does_not_suffice_for_weights_is_told_from_weights_that_are_wrong(
    folder: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception, expected: type[Exception]
) -> None:
    def fails(*args: Any, **kwargs: Any) -> None:
        raise raised

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", fails)
    with pytest.raises(expected) as caught:
        marked(folder)
    assert type(caught.value) is expected


def test_models_of_one_process_load_one_after_the_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = transformers.AutoModelForCausalLM.from_pretrained
    loading: list[int] = []
    together = threading.Barrier(2)

    def watched(*args: Any, **kwargs: Any) -> Any:
        loading.append(1)
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(0.2)  # time for the other one to come
        assert sum(loading) == 1
        found = read(*args, **kwargs)
        loading.append(-1)
        return found

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", watched)
    with ThreadPoolExecutor() as pool:
        assert list(pool.map(marked, [folder, folder])) == [False, False]


def test_pytorch_weights_have_one_name(folder: Path) -> None:
    (folder / "pytorch_model.bin").rename(folder / "weights.bin")
    with pytest.raises(ModelLoadError, match=r"does not load `weights.bin`") as raised:
        marked(folder / "weights.bin")
    assert "`pytorch_model.bin`" in (raised.value.hint or "")
