"""text-classification by transformers, with a real model that tells languages apart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import models
from tests.tasks.batches import load_options, outcomes, started

from model_compose.errors import InvalidInput, ModelLoadError, RequestTooLong
from model_compose.tasks.text_classification.huggingface import Classifier
from model_compose.tasks.text_classification.labels import sigmoid, softmax
from model_compose.tasks.text_classification.spec import TextClassification, normalise
from model_compose.types import Usage

TEXTS = {
    "en": "Please enter a valid email address",
    "de": "Bitte geben Sie ein gültiges Passwort ein",
    "fr": "Veuillez saisir une adresse électronique valide dans ce champ, ou laissez-le vide",
    "fi": "Tämä kenttä on pakollinen",
}
LOGITS = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=9).map(np.array)


def options(folder: Path | None = None, **more: Any) -> Any:
    return load_options(folder or models.langid(), "text-classification", **more)


@pytest.fixture(scope="module")
def classifier() -> Any:
    return started(Classifier(), options())


def changed(folder: Path, **config: Any) -> Path:
    """The model with other words in its configuration."""
    shutil.copytree(models.langid(), folder, copy_function=shutil.copyfile)
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**about, **config}))
    return folder


@given(logits=LOGITS)
def test_probabilities_that_exclude_each_other_add_up_to_1(logits: Any) -> None:
    found = softmax(logits)
    assert found.sum() == pytest.approx(1)
    assert found[logits.argmax()] == found.max()
    assert ((found >= 0) & (found <= 1)).all()


@given(logits=LOGITS)
def test_probabilities_of_their_own_are_between_0_and_1(logits: Any) -> None:
    found = sigmoid(logits)
    assert ((found >= 0) & (found <= 1)).all()
    assert (found[logits >= 0] >= 0.5).all()


@pytest.mark.model
def test_texts_get_the_models_own_labels(classifier: Any) -> None:
    found = outcomes(classifier, [TextClassification(text=text) for text in TEXTS.values()])
    assert [outcome.result.label for outcome in found] == list(TEXTS)
    assert [outcome.result.label_id for outcome in found] == [0, 1, 2, 9]
    assert all(outcome.result.score > 0.9 for outcome in found)
    assert found[0].result.plain() == {
        "label": "en",
        "score": pytest.approx(found[0].result.score),
        "label_id": 0,
    }
    assert found[0].usage == Usage(8)


@pytest.mark.model
def test_it_is_what_a_pipeline_of_the_library_gives(classifier: Any) -> None:
    from transformers import pipeline

    reference = pipeline("text-classification", str(models.langid()), dtype="float32", device="cpu")
    expected: Any = reference(list(TEXTS.values()), top_k=None)
    requests = [TextClassification(text=text, return_probabilities=True) for text in TEXTS.values()]
    for outcome, scores in zip(outcomes(classifier, requests), expected, strict=True):
        by_label = {each["label"]: each["score"] for each in scores}
        assert dict(
            zip(classifier._labels.names, outcome.result.probabilities, strict=True)
        ) == pytest.approx(by_label, abs=1e-5)


@pytest.mark.model
def test_two_texts_are_judged_together_as_the_library_does(classifier: Any) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    first, second, long = TEXTS["en"], TEXTS["de"], "Bitte geben Sie ein Passwort ein. " * 300
    requests = [
        TextClassification(text=first, text_pair=other, return_probabilities=True) for other in (second, long)
    ]
    tokenizer: Any = AutoTokenizer.from_pretrained(models.langid())
    model = AutoModelForSequenceClassification.from_pretrained(models.langid(), dtype=torch.float32).eval()
    for outcome, other in zip(outcomes(classifier, requests), (second, long), strict=True):
        tokens = tokenizer(first, other, truncation=True, max_length=512, return_tensors="pt")
        with torch.inference_mode():
            expected = model(**tokens).logits.softmax(-1)[0].tolist()
        assert outcome.result.probabilities == pytest.approx(expected, abs=1e-5)
        assert outcome.usage == Usage(tokens.input_ids.shape[1])
        assert outcome.result.truncated is (other is long)


def test_a_pair_is_a_map_or_two_fields_and_not_both() -> None:
    pair = {"text": "a", "text_pair": "b"}
    assert normalise({"text": pair, "truncate": False}) == {**pair, "truncate": False}
    assert normalise({"text": "a"}) == {"text": "a"}
    with pytest.raises(InvalidInput, match="given twice"):
        normalise({"text": pair, "text_pair": "c"})
    with pytest.raises(InvalidInput) as caught:
        normalise({"text": {"text": "a", "second": "b"}})
    assert caught.value.field is not None
    assert caught.value.field.startswith("text")


@pytest.mark.model
def test_labels_of_the_request_replace_the_models_names(classifier: Any) -> None:
    names = tuple(f"language {i}" for i in range(12))
    (found,) = outcomes(classifier, [TextClassification(text=TEXTS["fi"], labels=names)])
    assert found.result.label == "language 9"
    with pytest.raises(InvalidInput, match="the model has 12 labels, and 2 names are given") as caught:
        classifier.prepare(TextClassification(text="x", labels=("yes", "no")))
    assert caught.value.field == "labels"


@pytest.mark.model
def test_a_long_text_is_cut_and_the_result_says_so(classifier: Any) -> None:
    long = "Bitte geben Sie ein Passwort ein. " * 300
    cut, short, bounded = outcomes(
        classifier,
        [
            TextClassification(text=long),
            TextClassification(text=TEXTS["de"]),
            TextClassification(text=TEXTS["de"], max_input_length=6),
        ],
    )
    assert (cut.result.truncated, cut.usage) == (True, Usage(512))
    assert not short.result.truncated
    assert (bounded.result.truncated, bounded.usage) == (True, Usage(6))
    with pytest.raises(RequestTooLong) as caught:
        classifier.prepare(TextClassification(text=long, truncate=False))
    assert (caught.value.limit, caught.value.field) == (512, "text")


@pytest.mark.model
def test_labels_that_do_not_exclude_each_other_are_those_that_fit(tmp_path: Path) -> None:
    folder = changed(tmp_path / "several", problem_type="multi_label_classification")
    model = started(Classifier(), options(folder))
    (found,) = outcomes(model, [TextClassification(text=TEXTS["de"], return_probabilities=True)])
    result = found.result
    fitting = [
        name
        for name, probability in zip(model._labels.names, result.probabilities, strict=True)
        if probability >= 0.5
    ]
    assert result.labels == fitting
    assert result.label == "de"
    assert result.label in fitting
    assert sum(result.probabilities) != pytest.approx(1, abs=0.1)


@pytest.mark.model
def test_one_label_has_a_probability_of_its_own(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = changed(tmp_path / "one", id2label={"0": "english"}, label2id={"english": 0})
    weights = load_file(folder / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] = weights[name][:1]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    english, german = outcomes(
        started(Classifier(), options(folder)),
        [TextClassification(text=TEXTS["en"]), TextClassification(text=TEXTS["de"])],
    )
    assert (english.result.label, german.result.label) == ("english", "english")
    assert english.result.score > 0.9 > 0.5 > german.result.score


@pytest.mark.model
def test_a_model_without_a_classifier_is_refused() -> None:
    with pytest.raises(ModelLoadError, match=r"has no weights for `classifier\.bias`"):
        started(Classifier(), options(models.minilm_hf()))
