"""What an answer of vLLM must look like where tools are given, looked at without the engine."""

from __future__ import annotations

from typing import Any

import pytest

from model_compose.errors import InvalidInput
from model_compose.tasks.chat_completion import tool_calls
from model_compose.tasks.chat_completion.spec import ChatCompletion, Message
from model_compose.tasks.chat_completion.vllm import Demanded, _answer, calls_schema
from model_compose.tasks.generation import ResponseFormat


def tool(name: str, **parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


ADD = tool(
    "add", type="object", properties={"a": {"$ref": "#/$defs/N"}}, **{"$defs": {"N": {"type": "integer"}}}
)
NOW = {"type": "function", "function": {"name": "now"}}


def request(**more: Any) -> ChatCompletion:
    return ChatCompletion(messages=[Message(role="user", content="hi")], tools=[ADD, NOW], **more)


@pytest.mark.parametrize("choice", [None, "auto"])
def test_a_model_may_call_tools_in_its_own_words(choice: str | None) -> None:
    assert _answer(request(tool_choice=choice)) == (None, tool_calls)


def test_without_tools_the_form_is_that_of_the_request() -> None:
    json = ResponseFormat(type="json_object")
    wanted = ({"json_object": True}, None)
    assert _answer(request(tool_choice="none", response_format=json)) == wanted
    assert _answer(ChatCompletion(messages=[], response_format=json)) == wanted


def test_a_form_and_tools_exclude_each_other() -> None:
    with pytest.raises(InvalidInput, match="cannot call tools") as caught:
        _answer(request(response_format=ResponseFormat(type="json_object")))
    assert caught.value.field == "response_format"


def test_a_demanded_call_may_be_of_any_tool() -> None:
    wanted, splits = _answer(request(tool_choice="required"))
    assert isinstance(splits, Demanded)
    assert wanted is not None
    schema = wanted["json"]
    assert (schema["minItems"], schema["$defs"]) == (1, {"N": {"type": "integer"}})
    add, now = schema["items"]["anyOf"]
    assert add["properties"]["name"] == {"enum": ["add"]}
    assert add["properties"]["arguments"] == {"type": "object", "properties": {"a": {"$ref": "#/$defs/N"}}}
    assert now["properties"]["arguments"] == {"type": "object"}


def test_a_demanded_call_of_one_tool_is_of_that_one_alone() -> None:
    schema = calls_schema(request(tool_choice={"type": "function", "function": {"name": "now"}}))
    assert schema["maxItems"] == 1
    (only,) = schema["items"]["anyOf"]
    assert only["properties"]["name"] == {"enum": ["now"]}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"type": "function", "function": {"name": "sub"}}, "no tool `sub`; there are: `add`, `now`"),
        ({"type": "function"}, "no tool `None`"),
        ("always", "`tool_choice` is `always`"),
    ],
)
def test_a_choice_that_means_nothing_is_refused(choice: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        calls_schema(request(tool_choice=choice))
    assert caught.value.field == "tool_choice"


def test_definitions_of_two_tools_that_differ_are_refused() -> None:
    other = tool("sub", type="object", **{"$defs": {"N": {"type": "string"}}})
    both = ChatCompletion(messages=[], tools=[ADD, other], tool_choice="required")
    with pytest.raises(InvalidInput, match=r"different `\$defs/N`"):
        calls_schema(both)
