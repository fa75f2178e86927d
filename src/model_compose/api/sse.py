"""How does something become server-sent events?

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from model_compose.types import for_json


def data(pieces: Iterable[Any]) -> bytes:
    """One unnamed event for each piece: texts as they are, anything else as JSON; null is left out."""
    out = []
    for piece in pieces:
        value = for_json(piece)
        if isinstance(value, str):
            out.append(_lines(value))
        elif value is not None:
            out.append(b"data: " + msgspec.json.encode(value) + b"\n\n")
    return b"".join(out)


def event(name: str, value: Any) -> bytes:
    """One named event with a JSON value."""
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(value) + b"\n\n"


def _lines(text: str) -> bytes:
    """A text as an event: a line break would end it, so each line is a line of data."""
    if "\n" not in text and "\r" not in text:
        return b"data: " + text.encode() + b"\n\n"
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "".join(f"data: {line}\n" for line in lines).encode() + b"\n"
