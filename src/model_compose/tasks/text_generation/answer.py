"""What of an output can be shown while it grows, where it may call tools, and what is all of it?"""

from __future__ import annotations

from typing import Any, Protocol

from model_compose.tasks.generation import Completion, TextDelta
from model_compose.types import FinishReason, Usage


class Splits(Protocol):
    """How calls of tools stand in an answer; see `tasks/chat_completion/tool_calls.py`."""

    def text_before(self, text: str) -> str: ...

    def split(self, text: str) -> tuple[str, list[dict[str, Any]]]: ...


class Answer:
    """The text of one output, of several that a request may have.

    splits         tells calls of tools from the text that is for people, where tools were given
    finish_reason  why it has ended, None while it grows
    """

    def __init__(self, index: int, splits: Splits | None) -> None:
        self.index = index
        self.text = ""
        self.tool_calls: list[dict[str, Any]] = []
        self.logprobs: list[dict[str, Any]] = []
        self.finish_reason: FinishReason | None = None
        self._splits = splits
        self._shown = 0

    def grow(self, piece: str, logprobs: list[dict[str, Any]]) -> TextDelta | None:
        """Add a piece, the last if `finish_reason` is set; -> what can be shown now, None if nothing can.

        logprobs  of its tokens, in the form of OpenAI's API
        """
        self.text += piece
        self.logprobs += logprobs
        calls: list[dict[str, Any]] = []
        if self._splits is not None:
            piece, calls = self._without_calls(self._splits)
        if not (piece or logprobs or calls):
            return None
        return TextDelta(piece, self.index, logprobs=logprobs or None, tool_calls=calls or None)

    def _without_calls(self, splits: Splits) -> tuple[str, list[dict[str, Any]]]:
        if self.finish_reason is None:
            text = splits.text_before(self.text)
        else:
            text, self.tool_calls = splits.split(self.text)
            if self.tool_calls:
                self.finish_reason, self.text = "tool_calls", text
        piece = text[self._shown :]
        self._shown = max(self._shown, len(text))
        return piece, self.tool_calls

    def completed(self, usage: Usage) -> Completion:
        """All of it."""
        reason = self.finish_reason or "stop"
        calls = [{key: call[key] for key in call if key != "index"} for call in self.tool_calls]
        return Completion(self.text, reason, usage, tool_calls=calls or None, logprobs=self.logprobs or None)
