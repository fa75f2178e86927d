"""text-embedding by a graph in an ONNX file: tiny ones, and MiniLM with weights of eight bits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from tests import models, onnx_files
from tests.tasks.batches import load_options, outcomes, started

from model_compose.errors import InvalidInput, ModelLoadError
from model_compose.tasks.text_embedding import array_pooling
from model_compose.tasks.text_embedding.custom import Embedder
from model_compose.tasks.text_embedding.spec import TextEmbedding

TEXTS = ["w4 w9 w30", "w5", "w31 w8 w8 w8 w22 w6 w7 w12 w38", "w10 w11"]
BOTH = ("last_hidden_state", "sentence_embedding")
SENTENCES = [
    "The cat sits on the sofa.",
    "A kitten lies on the couch.",
    "Stocks fell sharply on Monday, and nobody could say why that was, or for how long it would go on.",
    "Rain.",
    "Where is the station?",
    "The train to Busan leaves at nine from the platform behind the old hall.",
    "An apple a day",
    "Photosynthesis is how plants turn light into sugar.",
]


def model_in(folder: Path, modules: Sequence[str] = (), pooling: Any = None, **graph: Any) -> Path:
    """A model, perhaps with what sentence-transformers writes beside it."""
    onnx_files.tokenizer_in(folder, limit=16)
    onnx_files.embedder(folder / "onnx" / "model.onnx", **graph)
    if modules:
        listed = [
            {"idx": i, "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
            for i, kind in enumerate(modules)
        ]
        (folder / "modules.json").write_text(json.dumps(listed))
        for i, kind in enumerate(modules):
            if kind in ("Pooling", "Dense"):
                (folder / f"{i}_{kind}").mkdir(exist_ok=True)
                (folder / f"{i}_{kind}" / "config.json").write_text(json.dumps(pooling or {}))
    return folder


def load(folder: Path, **more: Any) -> Any:
    return started(Embedder(), load_options(folder, "text-embedding", **more))


def vectors(model: Any, texts: Sequence[str] = TEXTS, **more: Any) -> np.ndarray[Any, Any]:
    found = outcomes(model, [TextEmbedding(text=text, **more) for text in texts])
    return np.array([outcome.result.embedding for outcome in found])


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    seed=st.integers(0, 2**31),
    skipped=st.integers(0, 3),
    modes=st.lists(st.sampled_from(list(array_pooling.MODES)), min_size=1, max_size=3),
)
@settings(deadline=None)
def test_pooling_is_that_of_torch(lengths: list[int], seed: int, skipped: int, modes: list[str]) -> None:
    import torch

    from model_compose.tasks.text_embedding import pooling

    width = max(lengths) + skipped
    hidden = np.random.default_rng(seed).standard_normal((len(lengths), width, 4)).astype(np.float32)
    mask = (np.arange(width) < np.array(lengths)[:, None] + skipped).astype(np.int64)
    counted = array_pooling.without_prompt(mask, [skipped] * len(lengths))
    same = pooling.without_prompt(torch.from_numpy(mask), [skipped] * len(lengths))
    assert (counted == same.numpy()).all()
    expected = pooling.pool(torch.from_numpy(hidden), same, modes).numpy()
    assert np.abs(array_pooling.pool(hidden, counted, modes) - expected).max() < 1e-5


def test_vectors_of_tokens_are_averaged_and_have_length_1(tmp_path: Path) -> None:
    model = load(model_in(tmp_path))
    found = vectors(model)
    assert np.linalg.norm(found, axis=1) == pytest.approx([1] * 4, abs=1e-6)
    raw = vectors(model, normalize=False)
    assert np.abs(raw / np.linalg.norm(raw, axis=1, keepdims=True) - found).max() < 1e-6
    short = vectors(model, dimensions=2, normalize=False)
    assert np.abs(short - raw[:, :2]).max() < 1e-6
    with pytest.raises(InvalidInput, match="the model gives 6 numbers, and 7 were asked for"):
        vectors(model, dimensions=7)


@pytest.mark.parametrize(
    ("sizes", "masked"),
    [(("b", "t"), True), (("b", "t"), False), ((3, 16), True)],
    ids=["any size", "without a mask", "fixed sizes"],
)
@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "max"])
def test_a_text_gets_the_same_alone_and_among_others(
    tmp_path: Path, pooling: Any, sizes: Any, masked: bool
) -> None:
    model = load(model_in(tmp_path, sizes=sizes, masked=masked))
    alone = np.concatenate([vectors(model, [text], pooling=pooling) for text in TEXTS])
    assert np.abs(vectors(model, TEXTS, pooling=pooling) - alone).max() < 1e-6


def test_the_pooling_beside_the_file_is_followed(tmp_path: Path) -> None:
    plain = load(model_in(tmp_path / "plain"))
    own = {"pooling_mode_cls_token": True}
    model = load(model_in(tmp_path / "cls", ("Transformer", "Pooling"), own))
    assert np.abs(vectors(model) - vectors(plain, pooling="cls", normalize=False)).max() < 1e-6
    several = load(model_in(tmp_path / "two", ("Transformer", "Pooling"), {"pooling_mode": ["cls", "max"]}))
    assert vectors(several).shape == (4, 12)


def test_the_vector_of_the_text_itself_is_taken_where_the_file_has_it(tmp_path: Path) -> None:
    model = load(model_in(tmp_path, outputs=BOTH))
    whole, averaged = vectors(model, normalize=False), vectors(model, pooling="mean", normalize=False)
    # The graph gives three times the average of the words, and the tokens' average is twice that.
    assert np.abs(whole - averaged * 1.5).max() < 1e-5
    only = load(model_in(tmp_path / "only", outputs=("sentence_embedding",)))
    assert np.abs(vectors(only, normalize=False) - whole).max() < 1e-6
    with pytest.raises(InvalidInput, match="the pooling is in the ONNX file") as caught:
        only.prepare(TextEmbedding(text="w4", pooling="cls"))
    assert caught.value.field == "pooling"


def test_layers_behind_the_pooling_must_be_in_the_file(tmp_path: Path) -> None:
    kinds = ("Transformer", "Pooling", "Dense", "Normalize")
    with pytest.raises(
        ModelLoadError, match=r"layers behind its pooling \(`Dense`\), and `model\.onnx` ends"
    ):
        load(model_in(tmp_path / "a", kinds))
    model = load(model_in(tmp_path / "b", kinds, outputs=BOTH))
    assert vectors(model).shape == (4, 6)
    with pytest.raises(InvalidInput, match="cannot be changed"):
        vectors(model, pooling="cls")


def test_prompts_stand_before_the_text_and_may_not_count(tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "w20 w21 "}, "default_prompt_name": None}
    for include in (True, False):
        folder = model_in(
            tmp_path / str(include),
            ("Transformer", "Pooling"),
            {"pooling_mode": "max", "include_prompt": include},
        )
        (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    counted, left_out = load(tmp_path / "True"), load(tmp_path / "False")
    whole = vectors(counted, ["w20 w21 w4 w9"])
    assert np.abs(vectors(counted, ["w4 w9"], prompt_name="query") - whole).max() < 1e-6
    # [CLS] w20 w21 do not count: the first three tokens.
    row = left_out.prepare(TextEmbedding(text="w4 w9", prompt_name="query"))[0].payload
    assert row.skipped == 3
    assert np.abs(vectors(left_out, ["w4 w9"], prompt_name="query") - whole).max() > 1e-3
    with pytest.raises(InvalidInput, match="no prompt `x`"):
        vectors(counted, prompt_name="x")


@pytest.mark.parametrize("more", [("token_type_ids",), ("position_ids",), ("token_type_ids", "position_ids")])
def test_types_and_positions_are_given_where_the_file_takes_them(tmp_path: Path, more: Any) -> None:
    model = load(model_in(tmp_path, more=more))
    alone = np.concatenate([vectors(model, [text]) for text in TEXTS])
    assert np.abs(vectors(model) - alone).max() < 1e-6
    without = vectors(load(model_in(tmp_path / "without")))
    differs = np.abs(alone - without).max()
    assert differs > 0.01 if "position_ids" in more else differs < 1e-6


def test_whole_numbers_of_32_bits_are_taken_too(tmp_path: Path) -> None:
    small = load(model_in(tmp_path / "small", kind=TensorProto.INT32))
    assert np.abs(vectors(small) - vectors(load(model_in(tmp_path / "usual")))).max() < 1e-6


def test_a_classifier_is_no_embedder(tmp_path: Path) -> None:
    folder = model_in(tmp_path)
    onnx_files.classifier(folder / "onnx" / "model.onnx", output="logits")
    graph = onnx_files.Graph()
    ids = graph.input("input_ids", ("b", "t"), TensorProto.INT64)
    for name in ("logits", "more"):
        graph.output(ids, name, ("b", "t"), TensorProto.INT64)
    graph.save(folder / "onnx" / "model.onnx")
    with pytest.raises(ModelLoadError, match="does not embed texts: it has no output `last_hidden_state`"):
        load(folder)


@pytest.fixture(scope="module")
def minilm() -> Any:
    return load(models.minilm_onnx())


@pytest.mark.model
def test_minilm_of_eight_bits_is_near_the_exact_one(minilm: Any) -> None:
    from model_compose.tasks.text_embedding import huggingface

    exact = started(huggingface.Embedder(), load_options(models.minilm_hf(), "text-embedding"))
    cosines = (vectors(minilm, SENTENCES) * vectors(exact, SENTENCES)).sum(axis=1)
    assert cosines.min() > 0.96
    (found,) = outcomes(minilm, [TextEmbedding(text="word " * 1000)])
    assert found.usage is not None
    assert (found.result.truncated, found.usage.prompt_tokens) == (True, 256)


@pytest.mark.model
def test_near_meanings_are_near(minilm: Any) -> None:
    cat, kitten, stocks = vectors(minilm, SENTENCES[:3])
    assert cat @ kitten > 0.5
    assert cat @ stocks < 0.2


@pytest.mark.model
def test_weights_of_eight_bits_give_a_text_the_same_in_a_batch(minilm: Any) -> None:
    alone = np.concatenate([vectors(minilm, [text]) for text in SENTENCES])
    cosines = (vectors(minilm, SENTENCES) * alone).sum(axis=1)
    assert cosines.min() > 0.9999
