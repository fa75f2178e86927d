"""How does vLLM continue a text? Chat differs in its prompt: see `chat_completion/vllm.py`."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from typing import Any

import msgspec

from model_compose.drivers.contract import CancelToken, LoadOptions, LoadProgress, ModelInfo, Outcome, Sink
from model_compose.drivers.huggingface.text import tokens_of
from model_compose.drivers.vllm.engine import Vllm
from model_compose.errors import EngineError, InvalidInput, RequestTooLong
from model_compose.tasks.generation import (
    Generation,
    TextDelta,
    input_limit,
    outcome_of,
    refuse_equal_outputs,
    too_long,
)
from model_compose.tasks.text_generation.answer import Splits
from model_compose.tasks.text_generation.vllm.output import Output
from model_compose.tasks.text_generation.vllm.sampling import form, parameters, sampling_params


class Plan(msgspec.Struct, frozen=True):
    """What the engine is given for a request.

    form    the form that the output must have, in the engine's words; None for any text
    splits  how to tell calls of tools from text
    """

    tokens: list[int]
    form: dict[str, Any] | None = None
    splits: Splits | None = None


class Generator:
    """An `EngineModel` for text-generation."""

    def __init__(self) -> None:
        self.engine = Vllm()

    async def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        """Start the engine, and warm up if that is asked for."""
        info = await self.engine.load(options, progress)
        if options.warmup:
            progress("warm-up", 0, 1)
            await self._warm_up()
            progress("warm-up", 1, 1)
        details = {**info.details, **self._prepared(options)}
        return msgspec.structs.replace(info, details=details)

    def _prepared(self, options: LoadOptions) -> dict[str, str]:
        """What a task does with the tokenizer when the engine is there; -> what `ps` shows of that."""
        return {}

    async def _warm_up(self) -> None:
        arguments = parameters(Generation(max_output_length=2, temperature=0), self.engine.context)
        params = sampling_params(arguments, None, streaming=False)
        prompt = await asyncio.to_thread(tokens_of, self.engine.tokenizer, "Hello", special=True)
        async for _ in self.engine.generate(prompt, params, None):
            pass

    async def run(self, request: Any, sink: Sink, cancel: CancelToken) -> Outcome:
        """Generate `num_return_sequences` outputs, side by side."""
        refuse_equal_outputs(request)
        return await self.engine.serve(self._run(request, sink), cancel)

    async def _run(self, request: Any, sink: Sink) -> Outcome:
        plan = await asyncio.to_thread(self.plan, request)
        arguments = parameters(request, self.engine.context - len(plan.tokens))
        params = sampling_params(arguments, plan.form, streaming=sink.streaming)
        outputs = [Output(i, request.logprobs, plan.splits) for i in range(request.num_return_sequences)]
        backlog: list[TextDelta] = []
        cached = 0
        async with self.engine.adapter(request.adapters) as adapter:
            pieces = self.engine.generate(plan.tokens, params, adapter, aside=plan.form is not None)
            async with contextlib.aclosing(pieces):
                async for piece in pieces:
                    cached = piece.num_cached_tokens or cached
                    for each in piece.outputs:
                        delta = outputs[each.index].take(each)
                        if delta is not None and sink.streaming:
                            backlog.append(delta)
                    # A reader that is slow must not hold up the others: what it has not taken yet is kept.
                    while backlog and sink.ready:
                        sink.emit(backlog.pop(0))
        if backlog:
            await self.engine.hand_over(sink, backlog)
        for output in outputs:
            _require_json(request, output)
        return outcome_of([output.completion(len(plan.tokens), cached) for output in outputs])

    def plan(self, request: Any) -> Plan:
        """The tokens of a prompt, and what its output may be; blocks."""
        tokens = tokens_of(self.engine.tokenizer, request.prompt, special=True)
        limit = self.limit(request)
        if len(tokens) > limit:
            if not request.truncate:
                raise too_long(len(tokens), limit, self.engine.context)
            tokens = tokens[-limit:]
        return Plan(self.with_room(tokens), form(request.response_format))

    def limit(self, request: Generation) -> int:
        """The most tokens that the prompt of a request may have."""
        return input_limit(request, self.engine.context)

    def with_room(self, tokens: list[int]) -> list[int]:
        """The tokens, if there are any and the context has room for an output. Raises otherwise."""
        context = self.engine.context
        if not tokens:
            raise InvalidInput("the prompt has no tokens", field="prompt")
        if len(tokens) >= context:
            raise RequestTooLong(
                f"the prompt has {len(tokens)} tokens, and the context holds {context} with the output",
                size=len(tokens),
                limit=context - 1,
                hint="shorten it, or set `truncate: true`",
            )
        return tokens

    async def close(self) -> None:
        """Stop the engine."""
        await self.engine.close()

    def metrics(self) -> Mapping[str, float]:
        """Counters of the engine."""
        return self.engine.metrics()

    def memory(self) -> Mapping[str, int]:
        """Bytes that the processes of the engine take."""
        return self.engine.memory()


def _require_json(request: Generation, output: Output) -> None:
    """Raise EngineError for an output that ended by itself, and is not the JSON that was asked for."""
    if form(request.response_format) is None or output.finish_reason != "stop":
        return
    try:
        json.loads(output.text)
    except ValueError as error:
        raise EngineError("vLLM did not keep to the `response_format`") from error
