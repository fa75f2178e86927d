"""text-embedding by llama.cpp, with the real MiniLM."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests import models
from tests.engines import load_options, running

from model_compose.drivers.contract import LoadOptions
from model_compose.errors import InvalidInput, ModelLoadError, RequestTooLong
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
        await Generator().load(load_options(models.minilm_gguf(), "text-generation"))
    assert caught.value.hint == "use `task: text-embedding`"
