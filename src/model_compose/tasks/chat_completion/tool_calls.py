"""Which calls of tools has a model written into its answer?

Models mark them in the text. Read here is the form that most open models were trained with (Hermes, Qwen,
SmolLM): a JSON object with `name` and `arguments` between `<tool_call>` and `</tool_call>`.
"""

from __future__ import annotations

import json
from typing import Any, Final

_OPEN: Final = "<tool_call>"
_CLOSE: Final = "</tool_call>"


def text_before(text: str) -> str:
    """The part of an answer that is certainly no call, while more of it may come."""
    place = text.find(_OPEN)
    if place >= 0:
        return text[:place]
    held = next((n for n in range(len(_OPEN) - 1, 0, -1) if text.endswith(_OPEN[:n])), 0)
    return text[: len(text) - held]


def split(text: str) -> tuple[str, list[dict[str, Any]]]:
    """An answer as its text and its calls, as OpenAI has them. What is no call stays text."""
    said: list[str] = []
    calls: list[dict[str, Any]] = []
    rest = text
    while True:
        before, opened, after = rest.partition(_OPEN)
        said.append(before)
        if not opened:
            break
        body, _, rest = after.partition(_CLOSE)
        call = _call(body, len(calls))
        if call is None:
            said.append(opened + body + _CLOSE * (body != after))
        else:
            calls.append(call)
    if not calls:
        return text, []
    return "".join(said).strip(), calls


def _call(body: str, index: int) -> dict[str, Any] | None:
    try:
        return call_of(json.loads(body), index)
    except ValueError:
        return None


def call_of(found: Any, index: int) -> dict[str, Any] | None:
    """A call that a model has written as JSON, as OpenAI has it; None if it is none."""
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        return None
    arguments = found.get("arguments", found.get("parameters", {}))
    given = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {
        "index": index,
        "id": f"call_{index}",
        "type": "function",
        "function": {"name": found["name"], "arguments": given},
    }
