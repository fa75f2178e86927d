"""Which values cross every border: process, workflow, HTTP?"""

from __future__ import annotations

from typing import Any, Literal

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


def plain(value: Any) -> Any:
    """`value` with every `Result` in it replaced by its plain form, for JSON and for text."""
    if isinstance(value, Result):
        return value.plain()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value)
    return value
