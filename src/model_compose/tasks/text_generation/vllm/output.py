"""How does one of the engine's outputs grow, and what of it can be shown?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from model_compose.errors import EngineError
from model_compose.tasks.generation import Completion, TextDelta
from model_compose.types import FinishReason, Usage

_REASONS: Final[Mapping[str, FinishReason]] = {"stop": "stop", "length": "length", "repetition": "stop"}


class Splits(Protocol):
    """How calls of tools stand in an answer; see `tasks/chat_completion/tool_calls.py`."""

    def text_before(self, text: str) -> str: ...

    def split(self, text: str) -> tuple[str, list[dict[str, Any]]]: ...


class Output:
    """One output of a request.

    rivals  how many tokens are told beside each that was chosen, None: not even that
    splits  tells calls of tools from the text that is for people, where tools were given
    """

    def __init__(self, index: int, rivals: int | None, splits: Splits | None) -> None:
        self._index = index
        self._rivals = rivals
        self._splits = splits
        self._shown = 0
        self.text = ""
        self.tokens = 0
        self.tool_calls: list[dict[str, Any]] = []
        self.logprobs: list[dict[str, Any]] = []
        self.finish_reason: FinishReason | None = None

    def take(self, piece: Any) -> TextDelta | None:
        """The next piece, a `CompletionOutput` of the engine; -> what can be shown of it."""
        self.text += piece.text
        self.tokens += len(piece.token_ids)
        if piece.finish_reason is not None:
            if piece.finish_reason not in _REASONS:
                raise EngineError(f"vLLM gave up the request: {piece.finish_reason}")
            self.finish_reason = _REASONS[piece.finish_reason]
        logprobs = list(self._told(piece.logprobs or ()))
        self.logprobs += logprobs
        text: str = piece.text
        calls: list[dict[str, Any]] = []
        if self._splits is not None:
            text, calls = self._without_calls(self._splits)
        if not (text or logprobs or calls):
            return None
        return TextDelta(text, self._index, logprobs=logprobs or None, tool_calls=calls or None)

    def _without_calls(self, splits: Splits) -> tuple[str, list[dict[str, Any]]]:
        """What can be shown now of an answer that may call tools; at its end, the calls."""
        if self.finish_reason is None:
            text = splits.text_before(self.text)
        else:
            text, self.tool_calls = splits.split(self.text)
            if self.tool_calls:
                self.finish_reason, self.text = "tool_calls", text
        piece = text[self._shown :]
        self._shown = max(self._shown, len(text))
        return piece, self.tool_calls

    def _told(self, places: Sequence[Mapping[int, Any]]) -> Iterator[dict[str, Any]]:
        """For each token its log probability, and the likeliest ones, in the form of OpenAI's API."""
        for place in places:
            chosen = next(iter(place.values()))  # the engine names the chosen one first
            ranked = sorted(place.values(), key=lambda each: each.rank)
            rivals = [_named(each) for each in ranked[: self._rivals] if each.rank <= (self._rivals or 0)]
            yield {**_named(chosen), "top_logprobs": rivals}

    def completion(self, prompt_tokens: int, cached_tokens: int) -> Completion:
        """All of it."""
        reason = self.finish_reason or "stop"
        calls = [{key: call[key] for key in call if key != "index"} for call in self.tool_calls]
        usage = Usage(prompt_tokens, self.tokens, cached_tokens)
        return Completion(self.text, reason, usage, tool_calls=calls or None, logprobs=self.logprobs or None)


def _named(found: Any) -> dict[str, Any]:
    text = found.decoded_token or ""
    return {"token": text, "logprob": found.logprob, "bytes": list(text.encode())}
