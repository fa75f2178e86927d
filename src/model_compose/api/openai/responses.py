"""`POST /v1/responses`: how does a conversation go on, in OpenAI's newer form?

Nothing is kept from one response to the next, so the whole conversation is in each request.
Source: https://platform.openai.com/docs/api-reference/responses
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from starlette.types import Scope

from model_compose.api.calls import Order
from model_compose.api.names import WORKFLOW, Model
from model_compose.api.openai.conversation import put_messages, put_tools
from model_compose.api.openai.fields import Fields, Given, only
from model_compose.api.openai.models import CHAT, Models
from model_compose.api.openai.response_events import ResponseEvents, output_of
from model_compose.api.openai.texts import completions_of
from model_compose.compose.run import Run
from model_compose.config.spec import Positive, doc
from model_compose.errors import InvalidInput

_HARMLESS: Final = "accepted, and changes nothing"


class TextFormat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The form that the answer must have."""

    type: Annotated[
        Literal["text", "json_object", "json_schema"],
        doc("`text` is free, `json_object` any JSON, `json_schema` what `schema` describes"),
    ]
    name: Annotated[str | None, doc("a name for it; models do not see it")] = None
    description: Annotated[str | None, doc("what it is for; models do not see it")] = None
    schema: Annotated[dict[str, Any] | None, doc("with `type: json_schema`")] = None
    strict: Annotated[bool | None, doc("always true here: the grammar leaves no other way")] = None

    def ours(self) -> dict[str, Any]:
        """It as the tasks have it."""
        if self.type != "json_schema":
            return {"type": self.type}
        if self.schema is None:
            raise InvalidInput("`text.format.schema` is missing", field="text.format.schema")
        return {"type": self.type, "json_schema": {"schema": self.schema, "name": self.name or "output"}}


class TextSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the text of the answer shall be."""

    format: Annotated[TextFormat | None, doc("the form that it must have")] = None
    verbosity: Annotated[Literal["medium"] | None, doc("`medium`, if anything")] = None


class StreamSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a stream shall be."""

    include_obfuscation: Annotated[bool | None, doc("false, if anything: nothing is padded")] = None


class ResponseRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A conversation to go on with. Own parameters of the task (`top_k`, `adapters`) may stand beside."""

    model: Annotated[str, doc("the id of a model, as `/v1/models` lists them")]
    input: Annotated[str | list[Any], doc("what the user says, or the items of a conversation")]
    instructions: Annotated[str | None, doc("a message of the system's before it")] = None
    max_output_tokens: Annotated[
        Positive | None, doc("most new tokens; unset: 1024, or what the file says")
    ] = None
    temperature: Annotated[float | None, doc("unset: 0.7, or what the file says")] = None
    top_p: Annotated[float | None, doc("unset: 0.9, or what the file says")] = None
    text: Annotated[TextSettings | None, doc("how the text of the answer shall be")] = None
    tools: Annotated[list[Any] | None, doc("functions that the model may call")] = None
    tool_choice: Annotated[str | dict[str, Any] | None, doc("`auto`, `none`, `required` or one function")] = (
        None
    )
    parallel_tool_calls: Annotated[bool | None, doc("true, if anything")] = None
    truncation: Annotated[
        Literal["auto", "disabled"] | None,
        doc("`auto` leaves out the oldest messages of one that is too long"),
    ] = None
    stream: Annotated[bool | None, doc("send the answer as events while it is made")] = None
    stream_options: Annotated[StreamSettings | None, doc("with `stream`")] = None
    store: Annotated[bool | None, doc("false, if anything: responses are not kept")] = None
    background: Annotated[bool | None, doc("false, if anything")] = None
    include: Annotated[list[str] | None, doc("empty, if anything")] = None
    metadata: Annotated[dict[str, str] | None, doc("given back")] = None
    user: Annotated[str | None, doc(_HARMLESS)] = None
    safety_identifier: Annotated[str | None, doc(_HARMLESS)] = None
    prompt_cache_key: Annotated[str | None, doc(_HARMLESS)] = None
    service_tier: Annotated[Literal["auto", "default"] | None, doc(_HARMLESS)] = None


REFUSED: Final = {
    "previous_response_id": "responses are not kept: send the conversation in `input`",
    "conversation": "conversations are not kept: send the conversation in `input`",
    "prompt": "there are no stored prompts",
    "reasoning": "how long a model thinks cannot be steered",
    "max_tool_calls": "there are no tools that are called here",
    "top_logprobs": "ask /v1/chat/completions for `logprobs`",
    "context_management": "the whole conversation is in each request",
    "prompt_cache_retention": "how long prompts are kept is for the engine to decide",
}

FIELDS: Final = Fields(ResponseRequest, REFUSED)


def take_response(scope: Scope, body: bytes, models: Models) -> Order:
    """Read a request for the next items of a conversation."""
    request, own = FIELDS.read(scope, body)
    model = models.find(request.model, CHAT, WORKFLOW)
    given = Given(model, own, FIELDS.names)
    put_messages(given, model, _messages(request))
    given.names["messages"] = "input"
    given.put("max_output_length", "max_output_tokens", request.max_output_tokens)
    given.put("temperature", "temperature", request.temperature)
    given.put("top_p", "top_p", request.top_p)
    if request.text is not None and request.text.format is not None:
        given.put("response_format", "text", request.text.format.ours())
    put_tools(given, [_tool(t, i) for i, t in enumerate(request.tools or ())], _choice(request.tool_choice))
    given.put("truncate", "truncation", True if request.truncation == "auto" else None)
    only("parallel_tool_calls", request.parallel_tool_calls, True, why="the model decides how many it calls")
    only("store", request.store, False, why="responses are not kept")
    only("background", request.background, False, why="responses are not kept")
    only("include", request.include, [], why="there is nothing more to include")
    if request.stream_options is not None:
        obfuscation = request.stream_options.include_obfuscation
        only("stream_options.include_obfuscation", obfuscation, False, why="nothing is padded")
    answer = _Response(model, _echoed(request))
    return Order(model.workflow, given.values, given.names, answer, bool(request.stream))


# The conversation


def _messages(request: ResponseRequest) -> list[dict[str, Any]]:
    """The items as messages; calls of tools that follow each other are one message."""
    messages: list[dict[str, Any]] = []
    if request.instructions:
        messages.append({"role": "system", "content": request.instructions})
    if isinstance(request.input, str):
        return [*messages, {"role": "user", "content": request.input}]
    for i, item in enumerate(request.input):
        where = f"input[{i}]"
        if not isinstance(item, dict):
            raise InvalidInput(
                f"`{where}` is no item", field=where, hint="send maps with a `role` or a `type`"
            )
        match item.get("type", "message"):
            case "message":
                messages.append(_message(item, where))
            case "function_call":
                _add_call(messages, item, where)
            case "function_call_output":
                text = _text(item.get("output"), f"{where}.output")
                messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": text})
            case "reasoning":
                pass  # chat templates leave out what was thought before an earlier answer
            case kind:
                raise InvalidInput(f"items of type `{kind}` are not supported", field=f"{where}.type")
    if not messages:
        raise InvalidInput("`input` is an empty conversation", field="input")
    return messages


def _message(item: dict[str, Any], where: str) -> dict[str, Any]:
    strange = item.keys() - {"type", "role", "content", "id", "status", "phase"}
    if strange:
        name = min(strange)
        raise InvalidInput(f"`{where}` has an unknown field `{name}`", field=f"{where}.{name}")
    return {"role": item.get("role"), "content": _text(item.get("content"), f"{where}.content")}


def _text(content: Any, where: str) -> str:
    """A text, or parts of one."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidInput(f"`{where}` is no text", field=where)
    texts = []
    for i, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("input_text", "output_text", "text") or not isinstance(part.get("text"), str):
            message = f"`{where}[{i}]` is of type `{kind}`: only text is understood in a conversation"
            raise InvalidInput(message, field=f"{where}[{i}]")
        texts.append(part["text"])
    return "".join(texts)


def _add_call(messages: list[dict[str, Any]], item: dict[str, Any], where: str) -> None:
    for key in ("call_id", "name", "arguments"):
        if not isinstance(item.get(key), str):
            raise InvalidInput(f"`{where}.{key}` is missing", field=f"{where}.{key}")
    function = {"name": item["name"], "arguments": item["arguments"]}
    call = {"id": item["call_id"], "type": "function", "function": function}
    if messages and messages[-1]["role"] == "assistant":
        messages[-1].setdefault("tool_calls", []).append(call)
    else:
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})


def _tool(tool: Any, index: int) -> Any:
    """A function in the older form, which tasks know."""
    if not isinstance(tool, dict) or tool.get("type") != "function":
        return tool  # to be refused as everywhere
    return {
        "type": "function",
        "function": {key: value for key, value in tool.items() if key != "type" and value is not None},
    }


def _choice(choice: Any) -> Any:
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    return choice


# The answer


def _echoed(request: ResponseRequest) -> dict[str, Any]:
    """What a response says of its request."""
    form: dict[str, Any] = {"type": "text"}
    if request.text is not None and request.text.format is not None:
        given = msgspec.to_builtins(request.text.format)
        form = {key: value for key, value in given.items() if value is not None}
    return {
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "metadata": request.metadata or {},
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": False,
        "temperature": request.temperature,
        "text": {"format": form},
        "tool_choice": request.tool_choice or "auto",
        "tools": request.tools or [],
        "top_p": request.top_p,
        "truncation": request.truncation or "disabled",
        "user": request.user,
    }


class _Response(msgspec.Struct, frozen=True):
    """What a response becomes."""

    model: Model
    echoed: dict[str, Any]

    async def body(self, run: Run, output: Any) -> bytes:
        (completion, *_) = completions_of(output, run)
        return msgspec.json.encode(self.about(run) | output_of(completion, run))

    def about(self, run: Run) -> dict[str, Any]:
        """What is known before there is an output."""
        return {
            "id": f"resp_{run.id}",
            "object": "response",
            "created_at": int(run.created),
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "model": self.model.name,
            "output": [],
            "usage": None,
            **self.echoed,
        }

    def events(self, run: Run) -> ResponseEvents:
        return ResponseEvents(run, self.about(run))
