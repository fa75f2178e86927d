"""Does peft add what our own layers add, for one request after the other?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from tests import models
from tests.conformance import repositories
from tests.drivers.loras import made
from tests.engines import loaded

from model_compose.drivers.contract import LoadedAdapter
from model_compose.drivers.huggingface.lora import Adapters
from model_compose.drivers.unsloth import blends as kept
from model_compose.drivers.unsloth.blends import Blends
from model_compose.errors import InvalidInput, ModelLoadError

IDS = torch.tensor([[1, 5, 9, 4]])
GIVEN = tuple(LoadedAdapter(word, loaded(models.tiny_peft(word)), 0.5) for word in ("arr", "ahoy"))


def toy(folder: Path) -> Any:
    import transformers

    files = repositories.files_of("meta-llama/Llama-2-7b-hf")
    path = repositories.written(files, folder / "toy")
    return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    found = model(IDS).logits
    assert isinstance(found, torch.Tensor)
    return found


def test_every_blend_adds_what_hooks_add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "KEPT", 2)  # so that some are made again
    ours, theirs = toy(tmp_path / "a"), toy(tmp_path / "b")
    plain = logits(ours)
    hooks = Adapters.attach(theirs, GIVEN, torch.float32)
    blends = Blends(ours, GIVEN, tmp_path / "made")
    torch.testing.assert_close(logits(ours), logits(theirs))  # the default
    for weights in (
        *({"arr": 1.0}, {}, {"ahoy": -0.5}, {"arr": 2.0, "ahoy": 0.25}, None, {"arr": 1.0}),
        *({"ahoy": 3.0}, {"arr": 0.0, "ahoy": 0.0}, {"arr": 1.0}),
    ):
        chosen = blends.blend(weights)
        assert chosen == hooks.blend(weights)
        blends.use([chosen, chosen])
        hooks.use([chosen])
        torch.testing.assert_close(logits(ours), logits(theirs), rtol=1e-4, atol=1e-4)
        assert torch.equal(logits(ours), plain) is not any(chosen)
    assert not list(tmp_path.glob("made/*"))  # nothing of it stays on disk


def test_layers_that_a_blend_does_not_have_are_left_out_of_it(tmp_path: Path) -> None:
    """Unsloth's kernels look up the active adapter in each layer that is not disabled."""
    model = toy(tmp_path)
    layers = [name for name, each in model.named_modules() if isinstance(each, torch.nn.Linear)]
    given = []
    for name, kind in (("one", "q_proj"), ("two", "up_proj")):
        layer = next(each for each in layers if kind in each)
        size = model.get_submodule(layer)
        wide, high = size.in_features, size.out_features
        folder = made(tmp_path / name, {layer: 2}, wide=wide, high=high, target_modules=[layer])
        given.append(LoadedAdapter(name, loaded(folder), 0.0))
    plain = logits(model)
    blends = Blends(model, given, tmp_path / "made")
    for weights in ({"one": 1.0}, {"two": 1.0}, {}, {"one": 1.0, "two": -1.0}, {"one": 1.0}):
        blends.use([blends.blend(weights)])
        wrapped = [each for each in model.modules() if isinstance(each, LoraLayer)]
        on = [each for each in wrapped if not each.disable_adapters]
        if len(weights) < 2:
            assert len(on) == len(weights)
        assert all(each.active_adapters[0] in each.lora_A for each in on)
        assert torch.equal(logits(model), plain) is not bool(weights)


def test_a_blend_that_stays_is_not_put_in_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named before each token."""
    blends = Blends(toy(tmp_path), GIVEN, tmp_path / "made")
    chosen = blends.blend({"arr": 1.0})
    blends.use([chosen])
    monkeypatch.setattr(LoraLayer, "enable_adapters", None)
    blends.use([chosen])
    with pytest.raises(TypeError):
        blends.use([blends.blend({})])


def test_a_blend_that_cannot_be_made_leaves_nothing_and_may_be_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = toy(tmp_path)
    blends = Blends(model, GIVEN, tmp_path / "made")
    before = logits(model)
    chosen = blends.blend({"arr": 1.5})
    with monkeypatch.context() as patched:
        patched.setattr(kept, "write", full)
        with pytest.raises(OSError, match="full"):
            blends.use([chosen])
    assert not list(tmp_path.glob("made/*"))
    blends.use([chosen])
    assert not torch.equal(logits(model), before)


def full(adapters: Any, weights: Any, folder: Path) -> None:
    """A disk that is full after half of it."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{")
    raise OSError("the disk is full")


def test_an_adapter_that_is_not_there_is_refused(tmp_path: Path) -> None:
    blends = Blends(toy(tmp_path), GIVEN, tmp_path / "made")
    with pytest.raises(InvalidInput, match="no adapter `yo`; there are: `arr`, `ahoy`"):
        blends.blend({"yo": 1.0})


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    other = LoadedAdapter("pirate", loaded(models.pirate_peft()))
    with pytest.raises(ModelLoadError, match="adapter `pirate`"):
        Blends(toy(tmp_path), (other,), tmp_path / "made")


def q_proj(model: Any, folder: Path, **more: Any) -> LoadedAdapter:
    """An adapter of one layer of a model, as peft saves it, but for what is asked for."""
    layer = next(name for name, _ in model.named_modules() if name.endswith("q_proj"))
    size = model.get_submodule(layer)
    named = more.pop("named", layer)
    made(folder, {named: 2}, wide=size.in_features, high=size.out_features, **more)
    return LoadedAdapter(folder.name, loaded(folder))


def test_an_adapter_whose_layers_have_other_names_is_refused(tmp_path: Path) -> None:
    model = toy(tmp_path)
    bare = q_proj(model, tmp_path / "bare", named="layers.0.self_attn.q_proj", target_modules=["q_proj"])
    hooks = Adapters.attach(toy(tmp_path / "b"), (bare,), torch.float32)
    assert hooks.blend({"bare": 1.0}) == (1.0,)  # our own layers know what is meant
    with pytest.raises(ModelLoadError, match=r"does not name `model\.layers\.0\.self_attn\.q_proj` as"):
        Blends(model, (bare,), tmp_path / "made")


def test_an_adapter_of_which_peft_would_leave_out_a_layer_is_refused(tmp_path: Path) -> None:
    model = toy(tmp_path)
    other = q_proj(model, tmp_path / "other", target_modules=["v_proj"])
    with pytest.raises(ModelLoadError, match=r"peft adds nothing of adapter `other` to `model\.layers"):
        Blends(model, (other,), tmp_path / "made")


def test_an_adapter_of_what_is_no_number_is_refused(tmp_path: Path) -> None:
    model = toy(tmp_path)
    spoilt = q_proj(model, tmp_path / "spoilt", target_modules=["q_proj"])
    file = tmp_path / "spoilt" / "adapter_model.safetensors"
    save_file({name: tensor * torch.inf for name, tensor in load_file(file).items()}, file)
    with pytest.raises(ModelLoadError, match="that are no numbers"):
        Blends(model, (spoilt,), tmp_path / "made")
