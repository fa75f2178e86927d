"""text-classification by a graph in an ONNX file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import onnx_files
from tests.tasks.batches import load_options, outcomes, started

from model_compose.errors import InvalidInput, ModelLoadError, RequestTooLong
from model_compose.tasks.text_classification.custom import Classifier
from model_compose.tasks.text_classification.spec import TextClassification
from model_compose.types import Usage

TEXTS = ["w4 w9 w30", "w5", "w31 w8 w8 w8 w22 w6 w7 w12 w38", "w10 w11"]
NAMES = {"id2label": {"2": "two", "0": "nil", "1": "one"}}


def model_in(folder: Path, config: dict[str, Any] | None = None, **graph: Any) -> Path:
    onnx_files.tokenizer_in(folder, limit=16)
    onnx_files.classifier(folder / "model.onnx", **graph)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def load(folder: Path, **more: Any) -> Any:
    return started(Classifier(), load_options(folder, "text-classification", **more))


def probabilities(model: Any, texts: list[str]) -> np.ndarray[Any, Any]:
    found = outcomes(model, [TextClassification(text=text, return_probabilities=True) for text in texts])
    return np.array([outcome.result.probabilities for outcome in found])


def test_texts_get_the_labels_of_the_configuration(tmp_path: Path) -> None:
    model = load(model_in(tmp_path, NAMES))
    found = outcomes(model, [TextClassification(text=text) for text in TEXTS])
    expected = probabilities(model, TEXTS)
    assert expected.sum(axis=1) == pytest.approx([1] * 4)
    assert [each.result.label_id for each in found] == expected.argmax(axis=1).tolist()
    assert [each.result.label for each in found] == [
        ("nil", "one", "two")[i] for i in expected.argmax(axis=1)
    ]
    assert [each.usage for each in found] == [Usage(5), Usage(3), Usage(11), Usage(4)]


def test_two_texts_are_judged_together(tmp_path: Path) -> None:
    model = load(model_in(tmp_path, NAMES))
    long = " ".join(["w5"] * 30)
    pair, apart, cut = outcomes(
        model,
        [
            TextClassification(text="w4 w9", text_pair="w30"),
            TextClassification(text="w4 w9"),
            TextClassification(text="w4 w9", text_pair=long),
        ],
    )
    assert pair.usage is not None
    assert apart.usage is not None
    assert pair.usage.prompt_tokens > apart.usage.prompt_tokens
    assert pair.result.score != apart.result.score
    assert (cut.result.truncated, cut.usage) == (True, Usage(16))
    with pytest.raises(RequestTooLong):
        model.prepare(TextClassification(text="w4 w9", text_pair=long, truncate=False))


def test_a_configuration_without_labels_gives_them_numbers(tmp_path: Path) -> None:
    (found,) = outcomes(load(model_in(tmp_path, told=False)), [TextClassification(text="w4")])
    assert found.result.label == f"LABEL_{found.result.label_id}"
    named = TextClassification(text="w4", labels=("a", "b", "c"))
    (again,) = outcomes(load(tmp_path), [named])
    assert again.result.label == "abc"[again.result.label_id]
    with pytest.raises(InvalidInput, match="the model has 3 labels, and 2 names are given"):
        load(tmp_path).prepare(TextClassification(text="w4", labels=("a", "b")))


@pytest.mark.parametrize(
    ("sizes", "masked"),
    [
        (("batch", "tokens"), True),
        (("batch", "tokens"), False),
        ((2, "tokens"), True),
        (("batch", 16), True),
        ((1, 16), True),
    ],
    ids=["any size", "without a mask", "pairs", "fixed length", "fixed length, one by one"],
)
def test_a_text_gets_the_same_alone_and_among_others(tmp_path: Path, sizes: Any, masked: bool) -> None:
    model = load(model_in(tmp_path, sizes=sizes, masked=masked))
    alone = np.concatenate([probabilities(model, [text]) for text in TEXTS])
    assert np.abs(probabilities(model, TEXTS) - alone).max() < 1e-6
    if masked:
        usual = load(model_in(tmp_path / "usual"))
        assert np.abs(alone - probabilities(usual, TEXTS)).max() < 1e-6


def test_a_fixed_length_costs_all_of_it_and_limits_texts(tmp_path: Path) -> None:
    model = load(model_in(tmp_path, sizes=("batch", 8)))
    assert [item.cost for item in model.prepare(TextClassification(text="w4"))] == [8]
    (cut,) = outcomes(model, [TextClassification(text=" ".join(["w4"] * 30))])
    assert (cut.result.truncated, cut.usage) == (True, Usage(8))


def test_a_long_text_is_cut_or_refused(tmp_path: Path) -> None:
    model = load(model_in(tmp_path))
    long = " ".join(["w4"] * 30)
    (cut,) = outcomes(model, [TextClassification(text=long)])
    assert (cut.result.truncated, cut.usage) == (True, Usage(16))
    with pytest.raises(RequestTooLong) as caught:
        model.prepare(TextClassification(text=long, truncate=False))
    assert (caught.value.size, caught.value.limit) == (32, 16)
    (whole,) = outcomes(model, [TextClassification(text="w4 w5")])  # the tokenizer cuts no longer
    assert not whole.result.truncated
    last = model.prepare(TextClassification(text=long, max_input_length=5))[0].payload
    assert last.ids == [onnx_files.CLS, 4, 4, 4, onnx_files.SEP]


def test_labels_that_do_not_exclude_each_other_are_those_that_fit(tmp_path: Path) -> None:
    folder = model_in(tmp_path, NAMES | {"problem_type": "multi_label_classification"})
    (found,) = outcomes(load(folder), [TextClassification(text="w4", return_probabilities=True)])
    assert found.result.labels == [
        name for name, p in zip(("nil", "one", "two"), found.result.probabilities, strict=True) if p >= 0.5
    ]
    assert sum(found.result.probabilities) != pytest.approx(1, abs=1e-3)


def test_positions_bound_the_length(tmp_path: Path) -> None:
    folder = model_in(tmp_path, {"max_position_embeddings": 12, "model_type": "roberta", "pad_token_id": 1})
    assert load(folder, max_seq_length=100)._texts.limit == 10
    (folder / "config.json").write_text('{"max_position_embeddings": 12, "model_type": "bert"}')
    assert load(folder)._texts.limit == 12


def test_an_output_of_another_name_is_taken_where_it_is_the_only_one(tmp_path: Path) -> None:
    assert outcomes(load(model_in(tmp_path, output="output_0")), [TextClassification(text="w4")])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: onnx_files.upscaler(path), "does not read texts: it wants `input`"),
        (lambda path: onnx_files.embedder(path), r"has no output `logits` \[texts, labels\]"),
        (lambda path: onnx_files.embedder(path, more=("speaker",)), "it wants `speaker`"),
        (lambda path: onnx_files.classifier(path, labels=4), "has 4 labels, and `config.json` names 3"),
    ],
    ids=["pictures", "an embedder", "another input", "another number of labels"],
)
def test_a_graph_that_does_something_else_is_refused_with_what_it_has(
    tmp_path: Path, make: Any, message: str
) -> None:
    folder = model_in(tmp_path, NAMES)
    path = make(folder / "model.onnx")
    with pytest.raises(ModelLoadError, match=message) as caught:
        load(folder)
    hint = caught.value.hint or ""
    assert hint.startswith("it has the inputs `input")
    assert "outputs" in hint
    assert path.name in caught.value.message


def test_a_folder_without_a_tokenizer_is_told(tmp_path: Path) -> None:
    onnx_files.classifier(tmp_path / "model.onnx")
    with pytest.raises(ModelLoadError, match=r"has no `tokenizer\.json`"):
        load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelLoadError, match=r"`tokenizer\.json` of .* cannot be read"):
        load(tmp_path)


def test_a_slow_tokenizer_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="`fast_tokenizer: false` cannot be used"):
        load(model_in(tmp_path), fast_tokenizer=False)


def test_warm_up_is_told(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    options = load_options(model_in(tmp_path), "text-classification", warmup=True)
    Classifier().load(options, lambda *report: seen.append(report))
    assert seen == [("warm-up", 0, 1), ("warm-up", 1, 1)]
