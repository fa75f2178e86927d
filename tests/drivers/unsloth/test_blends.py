"""Does peft add what our own layers add, for one request after the other?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests import models
from tests.conformance import repositories
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


def test_an_adapter_that_is_not_there_is_refused(tmp_path: Path) -> None:
    blends = Blends(toy(tmp_path), GIVEN, tmp_path / "made")
    with pytest.raises(InvalidInput, match="no adapter `yo`; there are: `arr`, `ahoy`"):
        blends.blend({"yo": 1.0})


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    other = LoadedAdapter("pirate", loaded(models.pirate_peft()))
    with pytest.raises(ModelLoadError, match="adapter `pirate`"):
        Blends(toy(tmp_path), (other,), tmp_path / "made")
