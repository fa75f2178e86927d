from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.api.openai.clients import ECHO, post, refused, served


async def test_a_response_is_a_message(tmp_path: Path) -> None:
    async with served(ECHO, tmp_path) as (_, client):
        response = await client.responses.create(
            model="chat", instructions="Be brief.", input="hello you", metadata={"a": "b"}, store=False
        )
    assert response.status == "completed"
    assert response.output_text == "hello you"
    assert response.metadata == {"a": "b"}
    assert response.instructions == "Be brief."
    assert response.usage is not None
    assert response.usage.total_tokens == 4


async def test_a_response_comes_as_events_that_the_client_understands(tmp_path: Path) -> None:
    async with (
        served(ECHO, tmp_path) as (_, client),
        client.responses.stream(model="chat", input="chunks:3") as stream,
    ):
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert final.output_text == "0 1 2 "
    numbers = [event.sequence_number for event in events]
    assert numbers == list(range(11))


async def test_events_have_their_names_too(tmp_path: Path) -> None:
    async with served(ECHO, tmp_path) as (service, _):
        response = await post(service, "responses", model="chat", input="hello", stream=True)
    for block in response.text.strip().split("\n\n"):
        name, data = block.split("\n")
        assert name.removeprefix("event: ") == json.loads(data.removeprefix("data: "))["type"]


async def test_an_error_after_the_first_word_fails_the_response(tmp_path: Path) -> None:
    async with served(ECHO, tmp_path) as (_, client):
        stream = await client.responses.create(model="chat", input="chunks:1 fail", stream=True)
        *_, last = [event async for event in stream]
        with pytest.raises(openai.InternalServerError):
            await client.responses.create(model="chat", input="fail", stream=True)
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert "not in the mood" in last.response.error.message


async def test_what_came_can_be_sent_back_with_the_answers_of_tools(tmp_path: Path) -> None:
    conversation: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "hello "}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "function_call", "call_id": "1", "name": "sing", "arguments": "{}"},
        {"type": "function_call", "call_id": "2", "name": "sing", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "la"},
        {"type": "function_call_output", "call_id": "2", "output": "lala"},
    ]
    async with served(ECHO, tmp_path) as (_, client):
        first = await client.responses.create(model="chat", input="hello")
        items = [*conversation, *first.output, {"role": "user", "content": "and now?"}]
        second = await client.responses.create(model="chat", input=items)
    assert second.output_text == "and now?"


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("previous_response_id", "resp_1", "not kept"),
        ("store", True, "not kept"),
        ("background", True, "not kept"),
        ("reasoning", {"effort": "low"}, "cannot be steered"),
        ("include", ["reasoning.encrypted_content"], "nothing more"),
        ("tools", [{"type": "web_search"}], "`web_search`"),
        ("tool_choice", "required", "needs `tools`"),
        ("input", [], "empty"),
        ("input", [{"type": "item_reference", "id": "1"}], "`item_reference`"),
        ("input", [{"role": "user", "content": [{"type": "input_image"}]}], "only text"),
        ("input", [{"type": "function_call", "name": "a"}], "call_id"),
        ("input", [{"role": "user", "content": "a", "mood": 1}], "mood"),
        ("text", {"format": {"type": "json_schema", "name": "a"}}, "text.format.schema"),
        ("text", {"verbosity": "high"}, "verbosity"),
        ("temperature", 9, "`temperature`"),
        ("max_output_tokens", 0, "max_output_tokens"),
        ("maxtokens", 5, "unknown field"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_its_name(
    field: str, value: Any, says: str, tmp_path: Path
) -> None:
    async with served(ECHO, tmp_path) as (service, _):
        error = await refused(service, "responses", **{"model": "chat", "input": "a", field: value})
    assert says in error["message"]
    assert error["param"].startswith(field)
