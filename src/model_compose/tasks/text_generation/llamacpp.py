"""How does llama.cpp continue a text? Chat differs in little: see `chat_completion/llamacpp.py`."""

from __future__ import annotations

import asyncio
import functools
import json
from typing import Any, Literal

from model_compose.drivers.contract import CancelToken, LoadOptions, LoadProgress, ModelInfo, Outcome, Sink
from model_compose.drivers.llamacpp.engine import LlamaCpp
from model_compose.errors import Cancelled, EngineError
from model_compose.tasks.generation import (
    RANDOM_SEED,
    Completion,
    Generation,
    ResponseFormat,
    TextDelta,
    input_limit,
    outcome_of,
    refuse_equal_outputs,
    too_long,
)
from model_compose.tasks.text_generation.spec import TextGeneration
from model_compose.types import FinishReason, Usage


class Generator:
    """An `EngineModel` for text-generation."""

    #: Which of the engine's calls, and under which name it takes the most new tokens.
    kind: Literal["completions", "chat_completions"] = "completions"

    def __init__(self) -> None:
        self.engine = LlamaCpp()

    async def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        """Load the weights."""
        return await self.engine.load(options, progress)

    async def run(self, request: Any, sink: Sink, cancel: CancelToken) -> Outcome:
        """Generate `num_return_sequences` outputs, side by side."""
        refuse_equal_outputs(request)
        works = [
            self.engine.call(functools.partial(self._generate, request, i, sink, cancel))
            for i in range(request.num_return_sequences)
        ]
        outputs: list[Output] = []
        # All of them end, whichever fails: the request's slot is free when the engine's are.
        for ended in await asyncio.gather(*works, return_exceptions=True):
            if isinstance(ended, BaseException):
                raise ended
            outputs.append(ended)
        # The engine computes a prompt once, and shares it.
        return outcome_of([output.completion() for output in outputs])

    def _generate(self, request: Any, index: int, sink: Sink, cancel: CancelToken) -> Output:
        payload = {**self.payload(request), **self._sampling(request, index)}
        output = Output(index, sink, cancel, request.logprobs)
        self.engine.stream(self.kind, payload, output.take)
        if cancel.cancelled:
            raise Cancelled("the caller went away")
        if not _keeps(request.response_format, output):
            raise EngineError("llama.cpp did not keep to the `response_format`")
        return output

    def payload(self, request: TextGeneration) -> dict[str, Any]:
        """What this task adds to the sampling parameters."""
        prompt: str | list[int] = request.prompt
        limit = self.input_limit(request)
        if limit is not None:
            tokens = self.engine.tokenize(request.prompt)
            if len(tokens) > limit:
                if not request.truncate:
                    raise too_long(len(tokens), limit, self.engine.info.context_length or 0)
                prompt = tokens[-limit:]
        schema = _schema(request.response_format)
        if schema is None:
            return {"prompt": prompt, "logprobs": _asked(request.logprobs)}
        self.engine.check_schema(schema)
        return {"prompt": prompt, "logprobs": _asked(request.logprobs), "json_schema": schema}

    def input_limit(self, request: Generation) -> int | None:
        """The most prompt tokens, None if that is for the engine to judge."""
        context = self.engine.info.context_length or 0
        limit = input_limit(request, context)
        return limit if request.truncate or limit < context else None

    def _sampling(self, request: Generation, index: int) -> dict[str, Any]:
        stop = request.stop_sequences
        return {
            "max_tokens": request.max_output_length,
            "temperature": 0.0 if request.greedy else request.temperature,
            "top_k": request.top_k,
            "top_p": request.top_p,
            "min_p": request.min_p,
            "repeat_penalty": request.repetition_penalty,
            "presence_penalty": request.presence_penalty,
            "frequency_penalty": request.frequency_penalty,
            # All of the text counts, as everywhere else but in llama.cpp.
            "repeat_last_n": self.engine.info.context_length,
            "stop": [stop] if isinstance(stop, str) else list(stop),
            "lora": self.engine.blend(request.adapters),
            **({} if request.seed is None else {"seed": (request.seed + index) % RANDOM_SEED}),
        }

    async def close(self) -> None:
        """Let go of the engine."""
        await self.engine.close()

    def metrics(self) -> dict[str, float]:
        """Counters of the engine."""
        return self.engine.metrics()


def _asked(rivals: int | None) -> int | None:
    """How many rivals of each token to ask for: for none, the engine gives no log probability at all."""
    return None if rivals is None else max(1, rivals)


def _schema(form: ResponseFormat | None) -> Any:
    """The JSON Schema that an output must follow, None if it may be any text."""
    if form is None or form.type == "text":
        return None
    return form.json_schema.schema if form.json_schema else {"type": "object"}


def _keeps(form: ResponseFormat | None, output: Output) -> bool:
    """Whether an output that ended by itself is the JSON that was asked for."""
    if _schema(form) is None or output.finish_reason != "stop":
        return True
    try:
        json.loads(output.text)
    except ValueError:
        return False
    return True


class Output:
    """One output while it grows; `take` is called by the engine, in its thread."""

    def __init__(self, index: int, sink: Sink, cancel: CancelToken, rivals: int | None) -> None:
        self._index = index
        self._rivals = rivals
        self._sink = sink
        self._cancel = cancel
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._tool_calls: dict[int, dict[str, Any]] = {}
        self._logprobs: list[dict[str, Any]] = []
        self.finish_reason: FinishReason = "stop"
        self.usage = Usage()

    def take(self, piece: dict[str, Any]) -> bool:
        """Note a piece and pass it on; False when nobody wants more."""
        if piece.get("usage"):
            usage = piece["usage"]
            cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
            self.usage = Usage(usage["prompt_tokens"], usage["completion_tokens"], cached)
        for choice in piece.get("choices", ()):
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            delta = self._delta(choice)
            if delta is not None and self._sink.streaming and not self._sink.emit(delta):
                return False
        return not self._cancel.cancelled

    def _delta(self, choice: dict[str, Any]) -> TextDelta | None:
        delta = choice.get("delta", choice)
        text = delta.get("content") or delta.get("text") or ""
        reasoning = delta.get("reasoning_content") or ""
        calls = delta.get("tool_calls")
        logprobs = (choice.get("logprobs") or {}).get("content")
        if logprobs and self._rivals == 0:
            logprobs = [{**each, "top_logprobs": []} for each in logprobs]
        if not (text or reasoning or calls or logprobs):
            return None
        self._text.append(text)
        self._reasoning.append(reasoning)
        for call in calls or ():
            _grow(self._tool_calls.setdefault(call.get("index", 0), {}), call)
        self._logprobs += logprobs or ()
        return TextDelta(text, self._index, reasoning, logprobs, calls)

    @property
    def text(self) -> str:
        """What was said so far."""
        return "".join(self._text)

    def completion(self) -> Completion:
        """All of it."""
        return Completion(
            self.text,
            self.finish_reason,
            self.usage,
            "".join(self._reasoning),
            [self._tool_calls[i] for i in sorted(self._tool_calls)] or None,
            self._logprobs or None,
        )


def _grow(call: dict[str, Any], piece: dict[str, Any]) -> None:
    """Add a piece of a tool call to what came of it before: texts are continued."""
    for key, value in piece.items():
        if isinstance(value, dict):
            _grow(call.setdefault(key, {}), value)
        elif key == "arguments":
            call[key] = call.get(key, "") + value
        elif key != "index":
            call[key] = value
