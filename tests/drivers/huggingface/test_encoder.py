"""Does a text get the same from every kind of model, alone, among others, and however it is computed?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests import tiny_models
from tests.engines import load_options, unseen

from model_compose.drivers.huggingface.encoder import Encoder
from model_compose.drivers.huggingface.load import Auto, read_config
from model_compose.drivers.huggingface.passes import Tokens

TEXTS = ["w5", "w9 w11 w13 w4 w50 w60", "w20 w21 w22", " ".join(f"w{i}" for i in range(3, 90)), "w7 w8"]
#: Those that take positions and a mask of ours for texts that share a row. ModernBERT takes them too, and
#: forgets its window then, which is shorter than a row here.
PACKED = {"bert", "roberta", "xlm_roberta", "distilbert", "albert", "electra"}


def loaded(folder: Path, auto: Auto, **more: Any) -> Encoder:
    options = load_options(folder, "text-embedding", **more)
    return Encoder.load(options, auto, unseen, read_config(options))


def vectors_of(encoder: Encoder, rows: list[Tokens]) -> list[torch.Tensor]:
    """The vectors of the tokens of each text."""
    found: dict[int, torch.Tensor] = {}
    for part, hidden, mask in encoder.hidden(rows):
        found |= {i: hidden[place, mask[place].bool()] for place, i in enumerate(part)}
    return [found[i] for i in range(len(rows))]


@pytest.mark.process  # importing torch takes seconds
@pytest.mark.parametrize("kind", tiny_models.ENCODERS)
def test_a_text_gets_the_same_vectors_in_every_batch(kind: str, tmp_path: Path) -> None:
    folder = tiny_models.encoder(kind, tmp_path / kind)
    encoder = loaded(folder, "AutoModelForTextEncoding" if kind == "t5" else "AutoModel")
    rows = [encoder.tokens(text, None, truncate=True) for text in TEXTS]
    with encoder.passing(1):
        alone = [vectors_of(encoder, [row])[0] for row in rows]
        encoder.pack()
        together = vectors_of(encoder, rows)
    assert encoder._packs == (kind in PACKED and encoder.device.type == "cpu")
    assert [len(vectors) for vectors in together] == [len(row.ids) for row in rows]
    for vectors, expected in zip(together, alone, strict=True):
        assert torch.allclose(vectors, expected, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.process
@pytest.mark.parametrize("kind", [kind for kind in tiny_models.ENCODERS if kind != "t5"])
def test_a_text_gets_the_same_label_in_every_batch(kind: str, tmp_path: Path) -> None:
    encoder = loaded(tiny_models.classifier(kind, tmp_path / kind), "AutoModelForSequenceClassification")
    rows = [encoder.tokens(text, None, truncate=True) for text in TEXTS]
    with encoder.passing(1):
        alone = torch.cat([encoder.logits([row]) for row in rows])
        encoder.pack()
        together = encoder.logits(rows)
    assert together.shape == (len(TEXTS), 2)
    assert torch.allclose(together, alone, atol=1e-3 * float(alone.abs().max()))


@pytest.mark.process
def test_roberta_has_fewer_places_than_vectors_for_them(tmp_path: Path) -> None:
    assert loaded(tiny_models.encoder("roberta", tmp_path / "r"), "AutoModel").limit == 255
    assert loaded(tiny_models.encoder("bert", tmp_path / "b"), "AutoModel", max_seq_length=999).limit == 256
    assert loaded(tiny_models.encoder("bert", tmp_path / "c"), "AutoModel", max_seq_length=99).limit == 99
