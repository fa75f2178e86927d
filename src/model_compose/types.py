"""Which values cross every border: process, workflow, HTTP?"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec

FinishReason = Literal["stop", "length", "tool_calls", "cancelled"]


class Usage(msgspec.Struct, frozen=True):
    """What a request cost, in tokens of the model's own tokenizer.

    `cached_tokens` is the part of `prompt_tokens` that the engine did not compute again.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
        )


class Result(msgspec.Struct, frozen=True):
    """A result of a task, with the paths that the documentation names (`${result.label}`).

    Where nobody asks for a path, `plain()` is the value: the text of a completion, the numbers of an
    embedding, a map for everything that is more than one thing.
    """

    def plain(self) -> Any:
        """This result as JSON values."""
        return msgspec.to_builtins(self)


class Blob(msgspec.Struct, frozen=True):
    """Bytes that are an image or a file, as they came or as they go out; the gateway never looks inside.

    media_type  such as `image/png`
    name        what its sender calls it
    """

    media_type: str
    data: bytes
    name: str | None = None

    def data_uri(self) -> str:
        """It as a text, for JSON. Source: https://www.rfc-editor.org/rfc/rfc2397"""
        return f"data:{self.media_type};base64,{base64.b64encode(self.data).decode('ascii')}"

    def __repr__(self) -> str:
        return f"Blob({self.media_type!r}, {len(self.data)} bytes)"


class Unfinished:
    """A value that is still being made. What would make a text of it leaves it to who reads it."""


def plain(value: Any) -> Any:
    """`value` with every `Result` in it replaced by its plain form; a `Blob` stays what it is."""
    return mapped(value, _itself)


def for_json(value: Any) -> Any:
    """`value` as what JSON can hold: plain, and with a data URI for each `Blob`."""
    return mapped(value, lambda each: each.data_uri() if isinstance(each, Blob) else each)


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` in plain form, with `change` made to everything in it that is neither map, list nor number."""
    if isinstance(value, Result):
        value = value.plain()
    if isinstance(value, int | float):
        return value
    if isinstance(value, dict):
        return {key: mapped(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        if _NUMBERS.issuperset(map(type, value)):  # an embedding has hundreds of them
            return value if isinstance(value, list) else list(value)
        return [mapped(item, change) for item in value]
    if isinstance(value, msgspec.Struct) and not isinstance(value, Blob):
        return msgspec.to_builtins(value)
    return change(value)


_NUMBERS: Final = frozenset({float, int})


def _itself(value: Any) -> Any:
    return value
