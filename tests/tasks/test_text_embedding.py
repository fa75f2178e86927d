"""text-embedding by llama.cpp and by transformers, with the real MiniLM."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import models
from tests.engines import load_options, running, unseen
from tests.tasks.batches import outcomes, started

from model_compose.drivers.contract import LoadOptions
from model_compose.errors import InvalidInput, ModelLoadError, RequestTooLong
from model_compose.tasks.text_embedding import huggingface
from model_compose.tasks.text_embedding.llamacpp import Embedder
from model_compose.tasks.text_embedding.spec import TextEmbedding
from model_compose.tasks.text_generation.llamacpp import Generator

pytestmark = pytest.mark.model


def options(**more: Any) -> LoadOptions:
    return load_options(models.minilm_gguf(), "text-embedding", **{"batch_size": 4, **more})


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


async def test_near_meanings_are_near_and_vectors_have_length_1() -> None:
    texts = ["The cat sits on the sofa.", "A kitten lies on the couch.", "Stocks fell sharply on Monday."]
    async with running(Embedder(), options()) as run:
        vectors = [(await run(TextEmbedding(text=text))).result.embedding for text in texts]
    assert all(
        len(vector) == 384 and cosine(vector, vector) == pytest.approx(1, abs=1e-5) for vector in vectors
    )
    assert cosine(vectors[0], vectors[1]) > 0.5
    assert cosine(vectors[0], vectors[2]) < 0.2


async def test_callers_get_what_they_would_get_alone() -> None:
    texts = [f"sentence number {i} " * (i + 1) for i in range(8)]
    async with running(Embedder(), options()) as run:
        alone = [(await run(TextEmbedding(text=text))).result.embedding for text in texts]
        together = await asyncio.gather(*(run(TextEmbedding(text=text)) for text in texts))
    for one, outcome in zip(alone, together, strict=True):
        assert cosine(one, outcome.result.embedding) > 0.9999


async def test_without_normalize_the_length_is_the_models_own() -> None:
    async with running(Embedder(), options()) as run:
        raw = (await run(TextEmbedding(text="a cat", normalize=False))).result.embedding
        unit = (await run(TextEmbedding(text="a cat"))).result.embedding
    length = cosine(raw, raw) ** 0.5
    assert length != pytest.approx(1, abs=0.05)
    assert [x / length for x in raw] == pytest.approx(unit, abs=1e-4)


async def test_dimensions_keeps_the_first_numbers_at_length_1() -> None:
    async with running(Embedder(), options()) as run:
        whole = (await run(TextEmbedding(text="a cat"))).result.embedding
        short = (await run(TextEmbedding(text="a cat", dimensions=64))).result.embedding
        with pytest.raises(InvalidInput, match="384"):
            await run(TextEmbedding(text="a cat", dimensions=500))
    assert len(short) == 64
    assert cosine(short, short) == pytest.approx(1, abs=1e-6)
    assert short[0] / short[1] == pytest.approx(whole[0] / whole[1], rel=1e-4)


async def test_a_long_text_is_cut_and_the_result_says_so() -> None:
    long = "word " * 2000
    async with running(Embedder(), options()) as run:
        cut = await run(TextEmbedding(text=long))
        whole = await run(TextEmbedding(text="word"))
        with pytest.raises(RequestTooLong) as caught:
            await run(TextEmbedding(text=long, truncate=False))
    assert cut.result.truncated
    assert cut.usage.prompt_tokens == 512
    assert not whole.result.truncated
    assert (caught.value.size, caught.value.limit) == (2002, 512)


async def test_korean_is_read_as_the_model_was_taught_to() -> None:
    """Its tokenizer takes Hangul apart into letters, which llama.cpp alone does not."""
    async with running(Embedder(), options()) as run:
        korean = (await run(TextEmbedding(text="사랑"))).usage.prompt_tokens
    assert korean == 7  # five letters between the tokens of the beginning and the end


async def test_an_embedding_model_gives_no_text() -> None:
    with pytest.raises(ModelLoadError, match="is an embedding model") as caught:
        await Generator().load(load_options(models.minilm_gguf(), "text-generation"), unseen)
    assert caught.value.hint == "use `task: text-embedding`"


# transformers

TEXTS = [
    "The cat sits on the sofa.",
    "x",
    "Crème brûlée, naïve café! 東京 unbelievable tokenization's 1234 \ufb01nance [SEP] done",
    "word " * 400,
    "A kitten lies on the couch, and sleeps. " * 7,
    "Stocks fell sharply on Monday.",
]

Json = Any


@pytest.fixture(scope="module")
def embedder() -> Any:
    return started(huggingface.Embedder(), options_hf())


def options_hf(folder: Path | None = None, **more: Any) -> LoadOptions:
    return load_options(folder or models.minilm_hf(), "text-embedding", **more)


def vectors(embedder: Any, texts: Sequence[str], **more: Any) -> np.ndarray[Any, Any]:
    found = outcomes(embedder, [TextEmbedding(text=text, **more) for text in texts])
    return np.array([outcome.result.embedding for outcome in found])


def reference(folder: Path, **more: Any) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", **more)


def changed(folder: Path, **files: Json) -> Path:
    """MiniLM with other words in its files; `__` in a name is a slash. None removes a file."""
    shutil.copytree(models.minilm_hf(), folder, copy_function=shutil.copyfile)
    for name, content in files.items():
        path = folder / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(json.dumps(content))
    return folder


def modules(*kinds: str) -> list[Json]:
    """`modules.json` for these kinds, each with a folder but for the first."""
    return [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{kind}" if i else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]


def pooling(*modes: str, **more: Json) -> Json:
    return {"word_embedding_dimension": 384, **{f"pooling_mode_{mode}": True for mode in modes}, **more}


def dense(folder: Path, out: int, activation: str, *, safe: bool) -> None:
    """Weights of a layer behind the pooling, made up."""
    import torch
    from safetensors.torch import save_file

    chance = torch.Generator().manual_seed(0)
    weights = {
        "linear.weight": torch.randn(out, 384, generator=chance) / 20,
        "linear.bias": torch.randn(out, generator=chance) / 20,
    }
    config = {"in_features": 384, "out_features": out, "bias": True, "activation_function": activation}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    if safe:
        save_file(weights, folder / "model.safetensors")
    else:
        torch.save(weights, folder / "pytorch_model.bin")


def test_vectors_are_those_of_sentence_transformers(embedder: Any) -> None:
    expected = reference(models.minilm_hf()).encode(TEXTS)
    assert np.abs(vectors(embedder, TEXTS) - expected).max() < 1e-5
    assert embedder._encoder._packs


def test_texts_get_the_same_vectors_alone_among_others_and_in_rows_of_their_own(embedder: Any) -> None:
    together = vectors(embedder, TEXTS)
    alone = np.concatenate([vectors(embedder, [text]) for text in TEXTS])
    assert np.abs(together - alone).max() < 1e-6
    rows = [embedder.prepare(TextEmbedding(text=text))[0].payload.tokens for text in TEXTS[:3]]
    with embedder._encoder.passing(1):
        packed, mask = embedder._encoder._passes.packed(rows)
        output, same = embedder._encoder._passes.padded(rows)
    assert (mask == same).all()
    assert float(((packed - output.last_hidden_state) * mask.unsqueeze(-1)).abs().max()) < 1e-4


MODES = ["cls_token", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]


@pytest.mark.parametrize("modes", [[mode] for mode in MODES] + [["mean_tokens", "cls_token", "max_tokens"]])
def test_the_models_own_pooling_is_kept(modes: list[str], tmp_path: Path) -> None:
    folder = changed(
        tmp_path / "m", modules=modules("Transformer", "Pooling"), **{"1_Pooling__config": pooling(*modes)}
    )
    found = vectors(started(huggingface.Embedder(), options_hf(folder)), TEXTS)
    expected = reference(folder).encode(TEXTS)
    assert found.shape == (len(TEXTS), 384 * len(modes))
    assert np.abs(found - expected).max() < 1e-4  # these vectors are longer than 1


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize(
    "activation", ["torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"]
)
def test_layers_behind_the_pooling_are_computed(activation: str, safe: bool, tmp_path: Path) -> None:
    folder = changed(tmp_path / "m", modules=modules("Transformer", "Pooling", "Dense", "Normalize"))
    dense(folder / "2_Dense", 64, activation, safe=safe)
    found = vectors(started(huggingface.Embedder(), options_hf(folder)), TEXTS)
    assert found.shape == (len(TEXTS), 64)
    assert np.abs(found - reference(folder).encode(TEXTS)).max() < 1e-5


def test_a_model_that_says_nothing_averages_and_normalizes(embedder: Any, tmp_path: Path) -> None:
    folder = changed(tmp_path / "m", modules=None)
    found = vectors(started(huggingface.Embedder(), options_hf(folder)), TEXTS[:3])
    assert np.abs(found - vectors(embedder, TEXTS[:3])).max() < 1e-6


def test_without_the_module_vectors_keep_their_length_unless_asked_for(tmp_path: Path, embedder: Any) -> None:
    folder = changed(tmp_path / "m", modules=modules("Transformer", "Pooling"))
    model = started(huggingface.Embedder(), options_hf(folder))
    own, unit = vectors(model, TEXTS[:2]), vectors(model, TEXTS[:2], normalize=True)
    assert np.linalg.norm(own, axis=1) != pytest.approx([1, 1], abs=0.05)
    assert np.abs(unit - vectors(embedder, TEXTS[:2])).max() < 1e-6
    assert np.abs(vectors(embedder, TEXTS[:2], normalize=False) - own).max() < 1e-5


@pytest.mark.parametrize(
    ("mode", "own"), [("cls", "cls"), ("last", "lasttoken"), ("max", "max"), ("mean", "mean")]
)
def test_a_request_may_pool_in_another_way(embedder: Any, mode: Any, own: str) -> None:
    model = reference(models.minilm_hf())
    model[1].pooling_mode = own
    assert np.abs(vectors(embedder, TEXTS, pooling=mode) - model.encode(TEXTS)).max() < 1e-5


def test_dimensions_are_the_first_numbers_at_the_models_own_length(embedder: Any) -> None:
    whole, short = vectors(embedder, TEXTS[:2]), vectors(embedder, TEXTS[:2], dimensions=64)
    cut = whole[:, :64]
    assert np.abs(short - cut / np.linalg.norm(cut, axis=1, keepdims=True)).max() < 1e-6
    with pytest.raises(InvalidInput, match="the model gives 384 numbers, and 500 were asked for"):
        vectors(embedder, ["x"], dimensions=500)


PROMPTS = {"prompts": {"query": "query: ", "document": "passage: "}, "default_prompt_name": "document"}


@pytest.mark.parametrize("include", [True, False])
def test_prompts_stand_before_the_text(include: bool, tmp_path: Path) -> None:
    folder = changed(
        tmp_path / "m",
        config_sentence_transformers=PROMPTS,
        **{"1_Pooling__config": pooling("mean_tokens", include_prompt=include)},
    )
    model = started(huggingface.Embedder(), options_hf(folder))
    expected = reference(folder)
    assert np.abs(vectors(model, TEXTS) - expected.encode(TEXTS)).max() < 1e-5
    query = vectors(model, TEXTS, prompt_name="query")
    assert np.abs(query - expected.encode(TEXTS, prompt_name="query")).max() < 1e-5
    with pytest.raises(InvalidInput, match="no prompt `qeury`") as caught:
        model.prepare(TextEmbedding(text="x", prompt_name="qeury"))
    assert "`query`" in (caught.value.hint or "")


def test_capitals_are_lowered_where_the_model_says_so(tmp_path: Path) -> None:
    folder = changed(tmp_path / "m", sentence_bert_config={"max_seq_length": 64, "do_lower_case": True})
    model = started(huggingface.Embedder(), options_hf(folder))
    first, second = outcomes(
        model, [TextEmbedding(text="THE CAT " * 100), TextEmbedding(text="the cat " * 100)]
    )
    assert first.result.embedding == pytest.approx(second.result.embedding, abs=1e-6)
    assert first.usage is not None
    assert first.usage.prompt_tokens == 64


def test_the_models_own_limit_can_be_raised_to_its_positions() -> None:
    longer = started(huggingface.Embedder(), options_hf(max_seq_length=10_000))
    (found,) = outcomes(longer, [TextEmbedding(text="word " * 1000)])
    assert found.result.truncated
    assert found.usage is not None
    assert found.usage.prompt_tokens == 512


def test_a_long_text_is_cut_or_refused(embedder: Any) -> None:
    (cut,) = outcomes(embedder, [TextEmbedding(text="word " * 1000)])
    assert cut.result.truncated
    with pytest.raises(RequestTooLong) as caught:
        embedder.prepare(TextEmbedding(text="word " * 1000, truncate=False))
    assert (caught.value.size, caught.value.limit) == (1002, 256)
    (after,) = outcomes(embedder, [TextEmbedding(text="word " * 200)])  # the tokenizer cuts no longer
    assert not after.result.truncated


@pytest.mark.parametrize(
    ("kinds", "named"),
    [
        (("Transformer", "Pooling", "CNN"), "`CNN`"),
        (("Transformer", "WordWeights", "Pooling"), "`WordWeights`"),
        (("BoW",), "`BoW`"),
    ],
)
def test_a_module_that_we_do_not_have_is_named(kinds: tuple[str, ...], named: str, tmp_path: Path) -> None:
    folder = changed(tmp_path / "m", modules=modules(*kinds))
    with pytest.raises(ModelLoadError, match=named):
        started(huggingface.Embedder(), options_hf(folder))


def test_a_module_that_brings_code_is_not_run(tmp_path: Path) -> None:
    foreign = [*modules("Transformer", "Pooling"), {"idx": 2, "name": "2", "path": "2", "type": "mine.Evil"}]
    folder = changed(tmp_path / "m", modules=foreign)
    with pytest.raises(ModelLoadError, match=r"needs `mine\.Evil`, Python code of its own, which is not run"):
        started(huggingface.Embedder(), options_hf(folder))


def test_a_module_outside_the_model_is_not_read(tmp_path: Path) -> None:
    listed = modules("Transformer", "Pooling")
    listed[1]["path"] = "../../elsewhere"
    folder = changed(tmp_path / "m", modules=listed)
    with pytest.raises(ModelLoadError, match="outside the model"):
        started(huggingface.Embedder(), options_hf(folder))


def test_half_precision_is_near() -> None:
    model = started(huggingface.Embedder(), options_hf(precision="bfloat16"))
    exact = started(huggingface.Embedder(), options_hf())
    cosines = (vectors(model, TEXTS) * vectors(exact, TEXTS)).sum(axis=1)
    assert cosines.min() > 0.995


def test_warm_up_is_told() -> None:
    seen: list[tuple[str, int, int]] = []
    huggingface.Embedder().load(options_hf(warmup=True), lambda *report: seen.append(report))
    assert seen[-2:] == [("warm-up", 0, 1), ("warm-up", 1, 1)]
