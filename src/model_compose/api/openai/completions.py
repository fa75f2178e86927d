"""`POST /v1/completions`: how does a text go on?

Source: https://platform.openai.com/docs/api-reference/completions
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from starlette.types import Scope

from model_compose.api.calls import Order
from model_compose.api.names import WORKFLOW, Model
from model_compose.api.openai.chat import DONE, Rivals, Sampled, check_stream, include_usage, put_sampling
from model_compose.api.openai.fields import Fields, Given, only
from model_compose.api.openai.models import TEXT, Models
from model_compose.api.openai.texts import completions_of, delta_of, delta_of_whole, usage_map
from model_compose.compose.run import Run
from model_compose.config.spec import doc
from model_compose.errors import InvalidInput
from model_compose.tasks.generation import Completion, TextDelta


class CompletionRequest(Sampled, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A text to go on with. Own parameters of the task (`top_k`, `response_format`) may stand beside."""

    prompt: Annotated[str | list[Any], doc("the text, or a list of texts")]
    logprobs: Annotated[Rivals | None, doc("log probabilities of each token, and of so many others")] = None
    echo: Annotated[bool | None, doc("false, if anything")] = None
    best_of: Annotated[int | None, doc("the same as `n`, if anything")] = None


REFUSED: Final = {"suffix": "models here only go on at the end of a text"}

FIELDS: Final = Fields(CompletionRequest, REFUSED)


def take_completion(scope: Scope, body: bytes, models: Models) -> Order:
    """Read a request for the continuation of texts."""
    request, own = FIELDS.read(scope, body)
    model = models.find(request.model, TEXT, WORKFLOW)
    if model.is_workflow and "prompt" not in model.inputs.keys:
        hint = "ask /v1/chat/completions"
        raise InvalidInput(f"workflow `{model.root}` takes `messages`", field="model", hint=hint)
    given = Given(model, own, FIELDS.names)
    given.put("prompt", "prompt", _prompt(request.prompt, model))
    put_sampling(given, request)
    given.put("logprobs", "logprobs", request.logprobs)
    only("echo", request.echo, False, why="the answer is what comes after the prompt")
    only("best_of", request.best_of, 1, request.n or 1, why="every text that is made is given")
    streaming = check_stream(request)
    answer = _Completion(model, include_usage(request))
    return Order(model.workflow, given.values, given.names, answer, streaming)


def _prompt(prompt: str | list[Any], model: Model) -> str | list[Any]:
    if isinstance(prompt, str):
        return prompt
    if not prompt:
        raise InvalidInput("`prompt` is an empty list", field="prompt")
    if not all(isinstance(each, str) for each in prompt):
        hint = "send texts"
        raise InvalidInput("a `prompt` of tokens is not supported", field="prompt", hint=hint)
    if len(prompt) == 1:
        return str(prompt[0])
    if model.is_workflow:
        message = f"workflow `{model.root}` takes one `prompt` at a time"
        raise InvalidInput(message, field="prompt", hint="send them one by one")
    return prompt


class _Completion(msgspec.Struct, frozen=True):
    """What completions become. `usage` is for a stream."""

    model: Model
    usage: bool

    async def body(self, run: Run, output: Any) -> bytes:
        choices = [
            _choice(text.text, i, text.finish_reason, _Logprobs().of(text.logprobs))
            for i, text in enumerate(completions_of(output, run))
        ]
        usage = usage_map(run.usage)
        return msgspec.json.encode({**_about(run, self.model), "choices": choices, "usage": usage})

    def events(self, run: Run) -> _Events:
        return _Events(run, self.model, usage=self.usage)


def _about(run: Run, model: Model) -> dict[str, Any]:
    return {
        "id": f"cmpl-{run.id}",
        "object": "text_completion",
        "created": int(run.created),
        "model": model.name,
        "system_fingerprint": None,
    }


def _choice(text: str, index: int, reason: str | None, logprobs: dict[str, Any] | None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": reason}


class _Logprobs:
    """Log probabilities in the older form, which says at which character each token begins."""

    def __init__(self) -> None:
        self._offset = 0

    def of(self, found: list[dict[str, Any]] | None) -> dict[str, Any] | None:
        """Those of the next tokens."""
        if not found:
            return None
        offsets = []
        for each in found:
            offsets.append(self._offset)
            self._offset += len(each["token"])
        return {
            "tokens": [each["token"] for each in found],
            "token_logprobs": [each["logprob"] for each in found],
            "top_logprobs": [
                {top["token"]: top["logprob"] for top in each.get("top_logprobs", ())} for each in found
            ],
            "text_offset": offsets,
        }


class _Events:
    """Texts as chunks."""

    def __init__(self, run: Run, model: Model, *, usage: bool) -> None:
        self._run = run
        self._usage = usage
        self._logprobs: dict[int, _Logprobs] = {}
        self._head = b"data: " + msgspec.json.encode(_about(run, model))[:-1] + b',"choices":['
        self._tail = b"]" + (b',"usage":null' if usage else b"") + b"}\n\n"

    def begin(self) -> bytes:
        return b""

    def pieces(self, pieces: list[Any]) -> bytes:
        return b"".join([self._piece(delta_of(piece)) for piece in pieces])

    def whole(self, output: Any) -> bytes:
        texts = completions_of(output, self._run)
        return b"".join([self._piece(delta_of_whole(text, i)) for i, text in enumerate(texts)])

    def end(self, run: Run) -> bytes:
        texts: list[Completion] = completions_of(run.output, run)
        frames = [self._chunk(_choice("", i, text.finish_reason, None)) for i, text in enumerate(texts)]
        if self._usage:
            usage = msgspec.json.encode(usage_map(run.usage))
            frames.append(self._head + b'],"usage":' + usage + b"}\n\n")
        return b"".join(frames) + DONE

    def error(self, error: dict[str, Any]) -> bytes:
        return b"data: " + msgspec.json.encode(error) + b"\n\n"

    def _piece(self, delta: TextDelta) -> bytes:
        if not (delta.text or delta.logprobs):
            return b""
        logprobs = self._logprobs.setdefault(delta.index, _Logprobs()).of(delta.logprobs)
        return self._chunk(_choice(delta.text, delta.index, None, logprobs))

    def _chunk(self, choice: dict[str, Any]) -> bytes:
        return self._head + msgspec.json.encode(choice) + self._tail
