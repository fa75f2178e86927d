"""What does a client send as a conversation, with tools, and what of it is ours?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from model_compose.api.names import Model
from model_compose.api.openai.fields import Given
from model_compose.errors import InvalidInput

#: Clients send an answer back with everything that was in it; where that is nothing, nothing is lost.
_OF_ANSWERS: Final = ("refusal", "annotations", "audio", "function_call", "tool_calls")
#: Chat templates leave out what a model thought before an earlier answer, and so do we.
_THOUGHTS: Final = ("reasoning_content", "reasoning")
_PARTS: Final = {
    "image_url": "an image",
    "input_image": "an image",
    "input_audio": "a sound",
    "file": "a file",
    "input_file": "a file",
}


def put_messages(given: Given, model: Model, messages: Sequence[Any]) -> None:
    """The conversation, or the one text that a workflow with a `prompt` wants."""
    if not messages:
        raise InvalidInput("`messages` is an empty list", field="messages")
    kept = [_message(message, f"messages[{i}]") for i, message in enumerate(messages)]
    if model.is_workflow and "messages" not in model.inputs.keys:
        given.put("prompt", "messages", _prompt(kept, model))
    else:
        given.put("messages", "messages", kept)


def _message(message: Any, where: str) -> Any:
    if not isinstance(message, dict):
        raise InvalidInput(
            f"`{where}` is no message", field=where, hint="send a map with `role` and `content`"
        )
    kept = {key: value for key, value in message.items() if key not in _THOUGHTS}
    for key in _OF_ANSWERS:
        if kept.get(key, ...) in (None, [], {}):
            del kept[key]
    content = kept.get("content")
    if isinstance(content, list):
        kept["content"] = "".join(_text(part, f"{where}.content[{i}]") for i, part in enumerate(content))
    return kept


def _text(part: Any, where: str) -> str:
    """The text of a part of a message."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    if kind in _PARTS:
        message = f"`{where}` is {_PARTS[kind]}: only text is understood in a conversation"
        raise InvalidInput(
            message, field=where, hint="describe images with a workflow of task `image-to-text`"
        )
    raise InvalidInput(f"`{where}` is no part of type `text` with a `text`", field=where)


def _prompt(messages: Sequence[dict[str, Any]], model: Model) -> Any:
    if len(messages) != 1 or messages[0].get("role") != "user":
        raise InvalidInput(
            f"workflow `{model.root}` takes one `prompt`, and this is a conversation",
            field="messages",
            hint="send one message of the user's, or have the workflow take `${input.messages}`",
        )
    return messages[0].get("content")


def put_tools(given: Given, tools: Sequence[Any] | None, choice: Any, *, where: str = "tools") -> None:
    """Functions that the model may call. One that must be called is the only one, and required."""
    if not tools:
        if choice not in (None, "auto", "none"):
            raise InvalidInput("`tool_choice` needs `tools` to choose from", field="tool_choice")
        return
    for i, tool in enumerate(tools):
        _check_tool(tool, f"{where}[{i}]")
    if isinstance(choice, dict):
        name = _chosen(choice)
        tools = [tool for tool in tools if tool["function"]["name"] == name]
        if not tools:
            raise InvalidInput(f"`tool_choice` names `{name}`, which is no tool", field="tool_choice")
        choice = "required"
    given.put("tools", "tools", list(tools))
    given.put("tool_choice", "tool_choice", choice)


def _check_tool(tool: Any, where: str) -> None:
    kind = tool.get("type") if isinstance(tool, dict) else None
    if kind != "function":
        shown = f"tools of type `{kind}` are" if isinstance(kind, str) else "a tool without a `type` is"
        raise InvalidInput(f"{shown} not supported", field=where, hint="tools of type `function` are")
    function = tool.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise InvalidInput(f"`{where}.function.name` is missing", field=f"{where}.function.name")


def _chosen(choice: dict[str, Any]) -> str:
    function = choice.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if choice.get("type") != "function" or not isinstance(name, str):
        hint = "send `auto`, `none`, `required`, or a map of type `function` with the `name` of one"
        raise InvalidInput("this `tool_choice` is not supported", field="tool_choice", hint=hint)
    return name
