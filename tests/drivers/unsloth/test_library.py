"""How Unsloth is begun and asked for weights, as far as that can be seen where it is not installed."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests import models, tiny_models
from tests.engines import load_options, loaded

from model_compose.drivers.contract import LoadedAdapter, LoadOptions, Quantization
from model_compose.drivers.unsloth import library
from model_compose.errors import DriverMissing, ModelLoadError

FOUR_BITS = {"quant_method": "bitsandbytes", "load_in_4bit": True}
NF4 = Quantization(type="nf4", double_quant=True)


def options(**more: Any) -> LoadOptions:
    return LoadOptions(
        task="text-generation", source=loaded(models.tiny_chat()), threads=1, scratch="/scratch", **more
    )


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    changed = dict(os.environ)
    monkeypatch.setattr(os, "environ", changed)
    return changed


def test_where_it_cannot_be_imported_the_error_names_a_driver_that_can(environ: dict[str, str]) -> None:
    with pytest.raises(DriverMissing, match="Unsloth does not run here: No module named") as caught:
        library.begin(options())
    assert "driver: huggingface" in str(caught.value.hint)
    assert environ["HF_HUB_OFFLINE"] == "1"


def test_it_tells_nobody_and_writes_code_into_a_private_folder_only() -> None:
    found = library.environment(options())
    assert found["UNSLOTH_DISABLE_STATISTICS"] == found["HF_HUB_OFFLINE"] == "1"
    assert found["UNSLOTH_COMPILE_LOCATION"].startswith("/scratch/")
    assert "UNSLOTH_FORCE_CPU" not in found


def test_a_cpu_is_used_where_it_is_asked_for() -> None:
    assert library.environment(options(device="cpu"))["UNSLOTH_FORCE_CPU"] == "1"
    assert "UNSLOTH_FORCE_CPU" not in library.environment(options(device="cuda:0"))


@pytest.mark.parametrize(
    ("own", "asked", "wanted"),
    [(None, None, False), (None, NF4, True), (FOUR_BITS, None, True)],
)
def test_weights_have_4_bits_if_their_files_or_the_component_say_so(
    own: dict[str, Any] | None, asked: Quantization | None, wanted: bool
) -> None:
    for config in (
        SimpleNamespace(quantization_config=own),
        SimpleNamespace(quantization_config=None if own is None else SimpleNamespace(to_dict=lambda: own)),
    ):
        assert library.in_four_bits(options(quantization=asked), config) is wanted


@pytest.mark.parametrize(
    ("own", "asked", "message"),
    [
        (FOUR_BITS, NF4, "are quantized already"),
        ({"quant_method": "gptq"}, None, "is quantized by `gptq`, and Unsloth reads"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, None, "is quantized by `bitsandbytes`"),
    ],
)
def test_other_weights_are_refused(own: dict[str, Any], asked: Quantization | None, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        library.in_four_bits(options(quantization=asked), SimpleNamespace(quantization_config=own))


def test_weights_that_it_exchanges_for_others_are_not_served() -> None:
    model = SimpleNamespace(config=SimpleNamespace(_name_or_path="/models/tiny"))
    library.require_same(model, "/models/tiny", "tiny")
    with pytest.raises(ModelLoadError, match="loads `/models/tiny` in the place of `tiny-bnb-4bit`"):
        library.require_same(model, "/models/tiny-bnb-4bit", "tiny-bnb-4bit")


@pytest.fixture(scope="module")
def incomplete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without the weights of one layer."""
    folder = tiny_models.decoder("llama", tmp_path_factory.mktemp("incomplete"))
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_weights_that_are_missing_are_an_error_where_transformers_only_says_so(incomplete: Path) -> None:
    import transformers

    with (
        pytest.raises(ModelLoadError, match=r"has no weights for `model.layers.0.mlp.up_proj.weight`"),
        library.required("incomplete"),
    ):
        transformers.AutoModelForCausalLM.from_pretrained(incomplete)


def test_where_nothing_is_said_of_weights_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with library.required("odd"):
        pass
    assert "without saying whether all of its weights are there" in caplog.text


def test_encoder_decoder_models_and_single_files_are_refused(tmp_path: Path) -> None:
    unsloth = library.Unsloth()
    given = load_options(models.tiny_chat(), "text-generation")
    with pytest.raises(ModelLoadError, match="no encoder-decoder models"):
        unsloth.load(given, "AutoModelForSeq2SeqLM", lambda *_: None, None)
    with pytest.raises(ModelLoadError, match=r"Unsloth loads folders, and `tiny-chat.gguf` is a file"):
        unsloth.load(given, "AutoModelForCausalLM", lambda *_: None, None)


@pytest.mark.parametrize(
    ("device", "adapters", "shares"), [("cpu", False, True), ("cpu", True, False), ("cuda", False, False)]
)
def test_requests_share_passes_of_a_model_that_is_transformers_own(
    device: str, adapters: bool, shares: bool, caplog: pytest.LogCaptureFixture
) -> None:
    given = options(batch_size=4, options={"cache_mib": 9})
    if adapters:
        adapter = LoadedAdapter("arr", loaded(models.tiny_peft("arr")))
        given = msgspec.structs.replace(given, adapters=(adapter,))
    model: Any = SimpleNamespace(device=torch.device(device))
    assert library.Unsloth().shares(model, given) is shares
    assert ("`cache_mib`, `batch_size` does nothing" in caplog.text) is not shares
