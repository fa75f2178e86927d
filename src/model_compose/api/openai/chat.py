"""`POST /v1/chat/completions`: how does a conversation go on?

Source: https://platform.openai.com/docs/api-reference/chat
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
from model_compose.api.openai.texts import (
    completions_of,
    delta_of,
    delta_of_whole,
    finish_reason,
    logprobs_of,
    tool_calls_of,
    usage_map,
)
from model_compose.compose.run import Run
from model_compose.config.spec import Positive, doc
from model_compose.errors import InvalidInput
from model_compose.tasks.generation import Completion, TextDelta

#: Other tokens that might have stood in the place of one.
Rivals = Annotated[int, msgspec.Meta(ge=0, le=20)]

_HARMLESS: Final = "accepted, and changes nothing"


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a stream shall be."""

    include_usage: Annotated[bool | None, doc("send the usage in a last chunk")] = None
    include_obfuscation: Annotated[bool | None, doc("false, if anything: nothing is padded")] = None


class Schema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A JSON Schema that the answer must satisfy."""

    schema: Annotated[dict[str, Any], doc("the JSON Schema itself")]
    name: Annotated[str, doc("a name for it; models do not see it")] = "output"
    description: Annotated[str | None, doc("what it is for; models do not see it")] = None
    strict: Annotated[bool | None, doc("always true here: the grammar leaves no other way")] = None


class Form(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The form that the answer must have."""

    type: Annotated[
        Literal["text", "json_object", "json_schema"],
        doc("`text` is free, `json_object` any JSON, `json_schema` what `json_schema` describes"),
    ]
    json_schema: Annotated[Schema | None, doc("with `type: json_schema`")] = None

    def ours(self) -> dict[str, Any]:
        """It as the tasks have it."""
        if self.json_schema is None:
            return {"type": self.type}
        schema = {"schema": self.json_schema.schema, "name": self.json_schema.name}
        return {"type": self.type, "json_schema": schema}


class Sampled(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every request for a text may have."""

    model: Annotated[str, doc("the id of a model, as `/v1/models` lists them")]
    max_tokens: Annotated[Positive | None, doc("most new tokens; unset: 1024, or what the file says")] = None
    temperature: Annotated[float | None, doc("unset: 0.7, or what the file says")] = None
    top_p: Annotated[float | None, doc("unset: 0.9, or what the file says")] = None
    n: Annotated[Positive | None, doc("how many answers; more than one come whole, also in a stream")] = None
    stop: Annotated[str | list[str] | None, doc("texts that end the answer")] = None
    seed: Annotated[int | None, doc("the same seed, the same answer; 32 bits")] = None
    presence_penalty: Annotated[float | None, doc("subtracted once from tokens that occurred")] = None
    frequency_penalty: Annotated[float | None, doc("subtracted for each time that one occurred")] = None
    logit_bias: Annotated[dict[str, float] | None, doc("empty, if anything")] = None
    stream: Annotated[bool | None, doc("send the answer as events while it is made")] = None
    stream_options: Annotated[StreamOptions | None, doc("with `stream`")] = None
    user: Annotated[str | None, doc(_HARMLESS)] = None


class ChatRequest(Sampled, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A conversation to go on with. Own parameters of the task (`top_k`, `adapters`) may stand beside."""

    messages: Annotated[list[Any], doc("the conversation; text only", min_length=1)]
    max_completion_tokens: Annotated[Positive | None, doc("the same as `max_tokens`")] = None
    logprobs: Annotated[bool | None, doc("give the log probability of each token")] = None
    top_logprobs: Annotated[Rivals | None, doc("and those of so many others")] = None
    response_format: Annotated[Form | None, doc("force the answer to be JSON, or this JSON")] = None
    tools: Annotated[list[Any] | None, doc("functions that the model may call")] = None
    tool_choice: Annotated[str | dict[str, Any] | None, doc("`auto`, `none`, `required` or one function")] = (
        None
    )
    parallel_tool_calls: Annotated[bool | None, doc("true, if anything")] = None
    modalities: Annotated[list[str] | None, doc("`text`, if anything")] = None
    metadata: Annotated[dict[str, str] | None, doc(_HARMLESS)] = None
    store: Annotated[bool | None, doc("false, if anything: answers are not kept")] = None
    service_tier: Annotated[Literal["auto", "default"] | None, doc(_HARMLESS)] = None
    safety_identifier: Annotated[str | None, doc(_HARMLESS)] = None
    prompt_cache_key: Annotated[str | None, doc(_HARMLESS)] = None


REFUSED: Final = {
    "functions": "it is the old name of `tools`",
    "function_call": "it is the old name of `tool_choice`",
    "audio": "models here answer in text",
    "prediction": "no engine here takes one",
    "reasoning_effort": "how long a model thinks cannot be steered",
    "verbosity": "no model here knows it: say it in the conversation",
    "web_search_options": "nothing is searched on the web",
    "prompt_cache_retention": "how long prompts are kept is for the engine to decide",
}

FIELDS: Final = Fields(ChatRequest, REFUSED)


def take_chat(scope: Scope, body: bytes, models: Models) -> Order:
    """Read a request for the next message of a conversation."""
    request, own = FIELDS.read(scope, body)
    model = models.find(request.model, CHAT, WORKFLOW)
    given = Given(model, own, FIELDS.names)
    put_messages(given, model, request.messages)
    put_sampling(given, request)
    given.put("max_output_length", "max_completion_tokens", request.max_completion_tokens)
    given.put("logprobs", *_logprobs(request))
    if request.response_format is not None:
        given.put("response_format", "response_format", request.response_format.ours())
    put_tools(given, request.tools, request.tool_choice)
    only("parallel_tool_calls", request.parallel_tool_calls, True, why="the model decides how many it calls")
    only("modalities", request.modalities, [], ["text"], why="models here answer in text")
    only("store", request.store, False, why="answers are not kept")
    streaming = check_stream(request)
    answer = _Chat(model, include_usage(request))
    return Order(model.workflow, given.values, given.names, answer, streaming)


def put_sampling(given: Given, request: Sampled) -> None:
    """What every task that generates text takes."""
    given.put("max_output_length", "max_tokens", request.max_tokens)
    given.put("temperature", "temperature", request.temperature)
    given.put("top_p", "top_p", request.top_p)
    given.put("num_return_sequences", "n", None if request.n == 1 else request.n)
    given.put("stop_sequences", "stop", request.stop or None)
    given.put("seed", "seed", request.seed)
    given.put("presence_penalty", "presence_penalty", request.presence_penalty)
    given.put("frequency_penalty", "frequency_penalty", request.frequency_penalty)
    only("logit_bias", request.logit_bias, {}, why="tokens have other numbers in every model")


def check_stream(request: Sampled) -> bool:
    """Whether a stream is wanted."""
    streaming = bool(request.stream)
    if request.stream_options is not None:
        if not streaming:
            raise InvalidInput("`stream_options` needs `stream: true`", field="stream_options")
        obfuscation = request.stream_options.include_obfuscation
        only("stream_options.include_obfuscation", obfuscation, False, why="nothing is padded")
    return streaming


def include_usage(request: Sampled) -> bool:
    """Whether a stream shall end with its usage."""
    return bool(request.stream_options and request.stream_options.include_usage)


def _logprobs(request: ChatRequest) -> tuple[str, int | None]:
    """How many rivals of each token are asked for, and by which field."""
    if not request.logprobs:
        if request.top_logprobs:
            raise InvalidInput("`top_logprobs` needs `logprobs: true`", field="top_logprobs")
        return "logprobs", None
    return ("logprobs", 0) if request.top_logprobs is None else ("top_logprobs", request.top_logprobs)


class _Chat(msgspec.Struct, frozen=True):
    """What a completion becomes. `usage` is for a stream; an answer in one piece always has it."""

    model: Model
    usage: bool

    async def body(self, run: Run, output: Any) -> bytes:
        choices = [_choice(text, i, run) for i, text in enumerate(completions_of(output, run))]
        answer = {**_about(run, self.model, "chat.completion"), "choices": choices}
        return msgspec.json.encode({**answer, "usage": usage_map(run.usage)})

    def events(self, run: Run) -> _ChatEvents:
        return _ChatEvents(run, self.model, usage=self.usage)


def _about(run: Run, model: Model, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{run.id}",
        "object": kind,
        "created": int(run.created),
        "model": model.name,
        "system_fingerprint": None,
    }


def _choice(completion: Completion, index: int, run: Run) -> dict[str, Any]:
    calls = completion.tool_calls
    message: dict[str, Any] = {
        "role": "assistant",
        "content": (completion.text or None) if calls else completion.text,
        "refusal": None,
    }
    if completion.reasoning:
        message["reasoning_content"] = completion.reasoning
    if calls:
        message["tool_calls"] = tool_calls_of(calls, run.id, indexed=False)
    logprobs = logprobs_of(completion.logprobs)
    return {
        "index": index,
        "message": message,
        "logprobs": {"content": logprobs, "refusal": None} if logprobs else None,
        "finish_reason": finish_reason(completion),
    }


class _ChatEvents:
    """An answer as chunks. Most of them differ in a word only, so the rest of them is made once."""

    def __init__(self, run: Run, model: Model, *, usage: bool) -> None:
        self._run = run
        self._usage = usage
        self._answer = run.id
        about = msgspec.json.encode(_about(run, model, "chat.completion.chunk"))[:-1]
        self._head = b"data: " + about + b',"choices":['
        self._tail = b"]" + (b',"usage":null' if usage else b"") + b"}\n\n"
        self._before_text = self._head + b'{"index":0,"delta":{"content":'
        self._after_text = b'},"logprobs":null,"finish_reason":null}' + self._tail

    def begin(self) -> bytes:
        return self._role(0)

    def pieces(self, pieces: list[Any]) -> bytes:
        return b"".join([self._piece(delta_of(piece)) for piece in pieces])

    def whole(self, output: Any) -> bytes:
        frames = []
        for i, completion in enumerate(completions_of(output, self._run)):
            frames += [self._role(i) if i else b"", self._piece(delta_of_whole(completion, i))]
        return b"".join(frames)

    def end(self, run: Run) -> bytes:
        frames = [
            self._chunk(i, {}, finish_reason(text)) for i, text in enumerate(completions_of(run.output, run))
        ]
        if self._usage:
            usage = msgspec.json.encode(usage_map(run.usage))
            frames.append(self._head + b'],"usage":' + usage + b"}\n\n")
        return b"".join(frames) + DONE

    def error(self, error: dict[str, Any]) -> bytes:
        return b"data: " + msgspec.json.encode(error) + b"\n\n"

    def _role(self, index: int) -> bytes:
        return self._chunk(index, {"role": "assistant", "content": "", "refusal": None})

    def _piece(self, delta: TextDelta) -> bytes:
        if not (delta.index or delta.reasoning or delta.logprobs or delta.tool_calls):
            if not delta.text:
                return b""
            return self._before_text + msgspec.json.encode(delta.text) + self._after_text
        content: dict[str, Any] = {"content": delta.text} if delta.text else {}
        if delta.reasoning:
            content["reasoning_content"] = delta.reasoning
        if delta.tool_calls:
            content["tool_calls"] = tool_calls_of(delta.tool_calls, self._answer, indexed=True)
        return self._chunk(delta.index, content, logprobs=logprobs_of(delta.logprobs))

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        reason: str | None = None,
        logprobs: list[dict[str, Any]] | None = None,
    ) -> bytes:
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": {"content": logprobs, "refusal": None} if logprobs else None,
            "finish_reason": reason,
        }
        return self._head + msgspec.json.encode(choice) + self._tail


DONE: Final = b"data: [DONE]\n\n"
