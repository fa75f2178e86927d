from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import Any

import openai
import pytest
from tests import models
from tests.api.openai.clients import ECHO, post, refused, served


async def test_texts_get_vectors_in_their_order(tmp_path: Path) -> None:
    async with served(ECHO, tmp_path) as (_, client):
        one = await client.embeddings.create(model="vectors", input="abc", encoding_format="float")
        several = await client.embeddings.create(model="vectors", input=["a", "abcd", "ab"])
    assert one.data[0].embedding[0] == 3
    assert one.usage.prompt_tokens == one.usage.total_tokens == 3
    assert [each.index for each in several.data] == [0, 1, 2]
    assert [each.embedding[0] for each in several.data] == [1, 4, 2]


async def test_base64_is_the_same_numbers_in_32_bits(tmp_path: Path) -> None:
    async with served(ECHO, tmp_path) as (service, _):
        response = await post(service, "embeddings", model="vectors", input="abc", encoding_format="base64")
    data = base64.b64decode(response.json()["data"][0]["embedding"])
    assert struct.unpack("<3f", data)[0] == 3


async def test_many_numbers_are_written_as_few_are(tmp_path: Path) -> None:
    texts = ["x" * (i % 50 + 1) for i in range(5000)]
    async with served(ECHO, tmp_path) as (_, client):
        found = await client.embeddings.create(model="vectors", input=texts)
    assert [each.embedding[0] for each in found.data] == [len(text) for text in texts]


@pytest.mark.parametrize(
    ("field", "value", "param"),
    [
        ("input", [], "input"),
        ("input", "", "input"),
        ("input", ["a", ""], "input"),
        ("input", [1.5], "input[0]"),
        ("input", [-1], "input[0]"),
        ("encoding_format", "int8", "encoding_format"),
        ("dimensions", 0, "dimensions"),
        ("input_type", "query", "input_type"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_its_name(
    field: str, value: Any, param: str, tmp_path: Path
) -> None:
    async with served(ECHO, tmp_path) as (service, _):
        error = await refused(service, "embeddings", **{"model": "vectors", "input": "a", field: value})
    assert error["param"] == param
    assert not error["message"].startswith("`text")


@pytest.mark.model
@pytest.mark.process
async def test_a_real_model_takes_texts_and_its_own_tokens_and_cuts_nothing_in_silence(
    tmp_path: Path,
) -> None:
    text = f"""
controller: {{port: 0}}
component: {{id: minilm, type: model, task: text-embedding, model: {models.minilm_gguf()}}}
"""
    tokens = [101, 7592, 2088, 102]
    long = "word " * 1000
    async with served(text, tmp_path) as (_, client):
        create = client.embeddings.create
        as_text = (await create(model="minilm", input="hello world")).data[0].embedding
        as_tokens = (await create(model="minilm", input=tokens)).data[0].embedding
        several = await create(model="minilm", input=[tokens, [101, 7592, 102]])
        short = (await create(model="minilm", input="hello world", dimensions=16)).data[0].embedding
        with pytest.raises(openai.BadRequestError) as too_long:
            await create(model="minilm", input=long)
        cut = await create(model="minilm", input=long, extra_body={"truncate": True})
        with pytest.raises(openai.BadRequestError, match="the model has 30522"):
            await create(model="minilm", input=[999_999])
        with pytest.raises(openai.BadRequestError) as too_many:
            await create(model="minilm", input="hello", dimensions=999)
    assert as_tokens == pytest.approx(as_text, rel=1e-5, abs=1e-6)
    assert several.data[0].embedding == pytest.approx(as_text, rel=1e-5, abs=1e-6)
    assert len(short) == 16
    assert too_long.value.code == "context_length_exceeded"
    assert too_long.value.param == "input"
    assert cut.data[0].model_dump()["truncated"] is True
    assert too_many.value.param == "dimensions"
