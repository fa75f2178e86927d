"""What text does an output have, whether a model made it or a workflow?"""

from __future__ import annotations

from typing import Any

import msgspec

from model_compose.compose.run import Run
from model_compose.tasks.generation import Completion, TextDelta
from model_compose.types import FinishReason, Usage, for_json


def completions_of(output: Any, run: Run) -> list[Completion]:
    """An output as texts: a model's own, one for each prompt and each of `n`; anything else as one."""
    if isinstance(output, Completion):
        return [output]
    if isinstance(output, list) and output and all(isinstance(each, Completion | list) for each in output):
        return [text for each in output for text in completions_of(each, run)]
    return [Completion(text_of(output), run.finish_reason or "stop", run.usage or Usage())]


def text_of(value: Any) -> str:
    """A text as it is, anything else as JSON, nothing as an empty text."""
    found = for_json(value)
    if found is None:
        return ""
    return found if isinstance(found, str) else msgspec.json.encode(found).decode()


def delta_of(piece: Any) -> TextDelta:
    """A piece of a stream."""
    return piece if isinstance(piece, TextDelta) else TextDelta(text_of(piece))


def delta_of_whole(completion: Completion, index: int) -> TextDelta:
    """A text that came in one piece."""
    return TextDelta(completion.text, index, completion.reasoning, completion.logprobs, completion.tool_calls)


def finish_reason(completion: Completion) -> FinishReason:
    """Why a text ended, as OpenAI says it: one that calls tools has ended for that."""
    called = completion.tool_calls and completion.finish_reason == "stop"
    return "tool_calls" if called else completion.finish_reason


def usage_map(usage: Usage | None) -> dict[str, Any] | None:
    """Usage as OpenAI has it; null where no model was asked."""
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def logprobs_of(found: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """Log probabilities of tokens with OpenAI's keys and no others."""
    keys = ("token", "logprob", "bytes")

    def kept(token: dict[str, Any]) -> dict[str, Any]:
        return {key: token.get(key) for key in keys}

    return [
        {**kept(each), "top_logprobs": [kept(top) for top in each.get("top_logprobs", ())]}
        for each in found or ()
    ]


def tool_calls_of(calls: list[dict[str, Any]], answer: str, *, indexed: bool) -> list[dict[str, Any]]:
    """Calls of tools, with ids that no other answer has.

    answer   the id of the answer that they are in
    indexed  they are pieces of a stream, and say which call they belong to
    """
    found = []
    for i, call in enumerate(calls):
        index = call.get("index", i)
        named = {key: value for key, value in call.items() if key != "index"}
        if named.get("id") == f"call_{index}":  # a driver that counts them
            named["id"] = f"call_{answer}_{index}"
        found.append({"index": index, **named} if indexed else named)
    return found
