from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests import models
from tests.api.openai.clients import ECHO, refused, served

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "sing",
        "description": "Sing a song",
        "parameters": {"type": "object", "properties": {"loud": {"type": "boolean"}}, "required": ["loud"]},
    },
}
OTHER: Any = {"type": "function", "function": {"name": "dance", "parameters": {"type": "object"}}}

#: How the Hermes models are shown tools, without its niceties.
TEMPLATE = (
    "{%- if tools %}<|im_start|>system\\nTools: {% for tool in tools %}{{ tool | tojson }}\\n{% endfor %}"
    "Answer with <tool_call>{json}</tool_call><|im_end|>\\n{%- endif %}"
    "{%- for message in messages %}<|im_start|>{{ message['role'] }}\\n{{ message['content'] or '' }}"
    "{%- for call in message.tool_calls or [] %}<tool_call>\\n"
    '{\\"name\\": \\"{{ call.function.name }}\\", \\"arguments\\": {{ call.function.arguments | tojson }}}\\n'
    "</tool_call>{%- endfor %}<|im_end|>\\n{%- endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\\n{%- endif %}"
)


def said(text: str) -> Any:
    return [{"role": "user", "content": text}]


async def test_calls_of_tools_and_their_answers_go_to_and_fro(tmp_path: Path) -> None:
    async with served(ECHO, tmp_path) as (_, client):
        first = await client.chat.completions.create(
            model="chat", messages=said("call:sing call:dance"), tools=[TOOL, OTHER]
        )
        again = await client.chat.completions.create(
            model="chat", messages=said("call:sing"), tools=[TOOL, OTHER]
        )
        message = first.choices[0].message
        assert message.tool_calls
        answers: Any = [
            {"role": "tool", "tool_call_id": call.id, "content": "done"} for call in message.tool_calls
        ]
        conversation: Any = [*said("call:sing"), message, *answers]
        after = await client.chat.completions.create(model="chat", messages=conversation, tools=[TOOL])
    assert first.choices[0].finish_reason == "tool_calls"
    calls = [call.model_dump() for call in message.tool_calls]
    assert [call["function"]["name"] for call in calls] == ["sing", "dance"]
    assert calls[0].keys() == {"id", "type", "function"}
    assert json.loads(calls[0]["function"]["arguments"]) == {"a": 1}
    assert again.choices[0].message.tool_calls
    assert again.choices[0].message.tool_calls[0].id not in {call["id"] for call in calls}
    assert after.choices[0].message.content == "done"


async def test_calls_are_streamed_piece_by_piece(tmp_path: Path) -> None:
    async with (
        served(ECHO, tmp_path) as (_, client),
        client.chat.completions.stream(
            model="chat", messages=said("call:sing call:dance"), tools=[TOOL, OTHER]
        ) as stream,
    ):
        kinds = [event.type async for event in stream]
        final = await stream.get_final_completion()
    calls = final.choices[0].message.tool_calls or []
    assert [call.function.name for call in calls] == ["sing", "dance"]
    assert [json.loads(call.function.arguments) for call in calls] == [{"a": 1}, {"a": 1}]
    assert final.choices[0].finish_reason == "tool_calls"
    assert kinds.count("tool_calls.function.arguments.done") == 2


async def test_responses_call_tools_too(tmp_path: Path) -> None:
    tool: Any = {"type": "function", "strict": True, **TOOL["function"]}
    async with served(ECHO, tmp_path) as (_, client):
        whole = await client.responses.create(model="chat", input="call:sing", tools=[tool])
        async with client.responses.stream(model="chat", input="call:sing", tools=[tool]) as stream:
            kinds = [event.type async for event in stream]
            streamed = await stream.get_final_response()
        call = whole.output[1]
        assert call.type == "function_call"
        rest: Any = [
            {"role": "user", "content": "call:sing"},
            *whole.output,
            {"type": "function_call_output", "call_id": call.call_id, "output": "done"},
        ]
        after = await client.responses.create(model="chat", input=rest, tools=[tool])
    assert [item.type for item in whole.output] == ["message", "function_call"]
    assert (call.name, json.loads(call.arguments)) == ("sing", {"a": 1})
    assert kinds[-5:] == [
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [item.type for item in streamed.output] == ["message", "function_call"]
    assert after.output_text == "done"


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"type": "function", "function": {"name": "jump"}}, "`jump`, which is no tool"),
        ({"type": "allowed_tools", "allowed_tools": {}}, "not supported"),
        ({"type": "function"}, "not supported"),
    ],
)
async def test_a_choice_that_cannot_be_made_is_refused(choice: Any, says: str, tmp_path: Path) -> None:
    given = {"model": "chat", "messages": said("a"), "tools": [TOOL]}
    async with served(ECHO, tmp_path) as (service, _):
        error = await refused(service, "chat/completions", **given, tool_choice=choice)
    assert says in error["message"]
    assert error["param"] == "tool_choice"


@pytest.mark.model
@pytest.mark.process
@pytest.mark.timeout(300)
async def test_a_real_model_calls_the_tool_that_it_must(tmp_path: Path) -> None:
    text = f"""
controller: {{port: 0}}
component:
  id: chat
  type: model
  task: chat-completion
  model: {models.smollm2()}
  temperature: 0
  options: {{chat_template: "{TEMPLATE}"}}
"""
    # A model that small needs to be shown how it goes.
    function = {"name": "dance", "arguments": "{}"}
    shown: Any = []
    for name in ("first", "second"):
        called = [{"id": name, "type": "function", "function": function}]
        shown += [*said("Dance!"), {"role": "assistant", "content": None, "tool_calls": called}]
        shown += [{"role": "tool", "tool_call_id": name, "content": "done"}]
    async with served(text, tmp_path) as (_, client):
        answer = await client.chat.completions.create(
            model="chat",
            messages=[*shown, *said("Dance!")],
            max_tokens=60,
            tools=[TOOL, OTHER],
            tool_choice={"type": "function", "function": {"name": "dance"}},
        )
    assert answer.choices[0].finish_reason == "tool_calls"
    calls = answer.choices[0].message.tool_calls or []
    assert {call.function.name for call in calls if call.type == "function"} == {"dance"}
