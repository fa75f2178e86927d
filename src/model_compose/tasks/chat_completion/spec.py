"""What is `task: chat-completion`?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from model_compose.config.spec import TaskDriver, TaskSpec, doc
from model_compose.drivers.huggingface.spec import GENERATION_REFUSES as HUGGINGFACE_REFUSES
from model_compose.drivers.llamacpp.spec import GENERATION_REFUSES as LLAMACPP_REFUSES
from model_compose.drivers.unsloth.spec import GENERATION_REFUSES as UNSLOTH_REFUSES
from model_compose.drivers.vllm.spec import GENERATION_REFUSES as VLLM_REFUSES
from model_compose.errors import InvalidInput
from model_compose.tasks.generation import Completions, Generation, TextDelta, streams


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One message of a conversation. One whose content is null is left out, unless it calls tools."""

    role: Annotated[Literal["system", "user", "assistant", "tool", "developer"], doc("who speaks")]
    content: Annotated[
        str | list[dict[str, Any]] | None, doc("what is said; parts of type `text` are joined")
    ]
    name: Annotated[str | None, doc("the speaker's name")] = None
    tool_calls: Annotated[list[dict[str, Any]] | None, doc("tools that the assistant called")] = None
    tool_call_id: Annotated[str | None, doc("which call a message of role `tool` answers")] = None


class ChatCompletion(Generation, frozen=True, kw_only=True):
    """Answer in a conversation."""

    messages: Annotated[
        list[Message],
        doc(
            "the conversation; a text is one message of the user's",
            aliases=("prompt", "text"),
            also=str | Message,
            many=True,
            min_length=1,
        ),
    ]
    tools: Annotated[
        list[dict[str, Any]] | None, doc("functions that the model may call, as OpenAI has them")
    ] = None
    tool_choice: Annotated[str | dict[str, Any] | None, doc("`auto`, `none`, `required` or one function")] = (
        None
    )


def normalise(values: dict[str, Any]) -> dict[str, Any]:
    """Make one conversation of whatever stands for one, without messages that say nothing."""
    if values.get("tool_choice", "none") not in ("none", "auto") and not values.get("tools"):
        raise InvalidInput("`tool_choice` needs `tools` to choose from", field="tool_choice")
    messages = values.get("messages")
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    elif isinstance(messages, dict):
        messages = [messages]
    if not isinstance(messages, list):
        return values
    kept = [_calling(_joined(m)) for m in messages if not _silent(m)]
    if not kept:
        raise InvalidInput(
            "the conversation is empty: every message has a null content",
            field="messages",
            hint="send at least one message with `role: user` and a `content`",
        )
    return {**values, "messages": kept}


def needs(message: Mapping[str, Any], key: str) -> bool:
    """The user must say something; a system message may be null."""
    return key == "content" and message.get("role") == "user"


def drop_oldest(messages: list[Message]) -> bool:
    """Drop the oldest message, but never the system's or the last one; -> whether one went."""
    for i, message in enumerate(messages[:-1]):
        if message.role not in ("system", "developer"):
            del messages[i]
            return True
    return False


def _silent(message: Any) -> bool:
    return isinstance(message, dict) and message.get("content") is None and not message.get("tool_calls")


def _joined(message: Any) -> Any:
    """A message whose text parts are one text. Other parts are left, to be refused by the type."""
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        return message
    for i, part in enumerate(content):
        if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
            raise InvalidInput(
                "only parts of type `text` are understood here", field=f"messages.content[{i}]"
            )
    return {**message, "content": "".join(part["text"] for part in content)}


def _calling(message: Any) -> Any:
    """A message whose calls of tools are of the one kind that there is: engines fail at others."""
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    if not isinstance(calls, list):
        return message
    for i, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not (isinstance(function, dict) and isinstance(function.get("name"), str)):
            field = f"messages.tool_calls[{i}]"
            hint = 'write `{"type": "function", "function": {"name": "...", "arguments": "{}"}}`'
            raise InvalidInput("a call of a tool needs a `function` with a `name`", field=field, hint=hint)
    return {**message, "tool_calls": [{"type": "function", **call} for call in calls]}


SPEC = TaskSpec(
    name="chat-completion",
    summary="Answers in a conversation.",
    request=ChatCompletion,
    result=Completions,
    chunk=TextDelta,
    streams=streams,
    main="messages",
    normalise=normalise,
    needs=needs,
    verb="chat",
    example={
        "messages": [
            {"role": "system", "content": "Answer in one sentence."},
            {"role": "user", "content": "Why is the sky blue?"},
        ],
        "max_output_length": 60,
    },
    default_driver="huggingface",
    drivers={
        "llamacpp": TaskDriver("model_compose.tasks.chat_completion.llamacpp:Chat", LLAMACPP_REFUSES),
        "huggingface": TaskDriver(
            "model_compose.tasks.chat_completion.huggingface:Chat", HUGGINGFACE_REFUSES
        ),
        "unsloth": TaskDriver("model_compose.tasks.chat_completion.unsloth:Chat", UNSLOTH_REFUSES),
        "vllm": TaskDriver("model_compose.tasks.chat_completion.vllm:Chat", VLLM_REFUSES),
    },
)
