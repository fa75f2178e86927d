from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.api.openai.clients import ECHO, refused, served


async def test_a_text_goes_on(tmp_path: Path) -> None:
    async with served(ECHO, tmp_path) as (_, client):
        answer = await client.completions.create(model="text", prompt="hello you")
    assert answer.object == "text_completion"
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason) == ("hello you", "stop")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 2


async def test_each_of_several_texts_goes_on(tmp_path: Path) -> None:
    prompts = [f"number {i}" for i in range(9)]
    async with served(ECHO, tmp_path) as (_, client):
        answer = await client.completions.create(model="text", prompt=prompts)
        stream = await client.completions.create(model="text", prompt=prompts, stream=True)
        streamed = [chunk.choices[0] async for chunk in stream]
    assert [(c.index, c.text) for c in answer.choices] == list(enumerate(prompts))
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 18
    assert [(c.index, c.text) for c in streamed[:9]] == list(enumerate(prompts))
    assert [(c.index, c.finish_reason) for c in streamed[9:]] == [(i, "stop") for i in range(9)]


async def test_a_stream_comes_word_by_word(tmp_path: Path) -> None:
    async with served(ECHO, tmp_path) as (_, client):
        stream = await client.completions.create(
            model="text", prompt=["chunks:3"], stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert [c.choices[0].text for c in chunks[:-1]] == ["0 ", "1 ", "2 ", ""]
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("suffix", "end", "only go on"),
        ("echo", True, "after the prompt"),
        ("best_of", 3, "every text"),
        ("prompt", [], "empty list"),
        ("prompt", [1, 2], "tokens"),
        ("prompt", "", "length >= 1"),
        ("logprobs", 50, "<= 20"),
        ("messages", [], "unknown field `messages`"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_its_name(
    field: str, value: Any, says: str, tmp_path: Path
) -> None:
    async with served(ECHO, tmp_path) as (service, _):
        error = await refused(service, "completions", **{"model": "text", "prompt": "a", field: value})
    assert says in error["message"]
    assert error["param"] == field
