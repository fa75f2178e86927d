"""How does one of the engine's outputs grow, and what of it can be shown?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from model_compose.errors import EngineError
from model_compose.tasks.generation import Completion, TextDelta
from model_compose.tasks.text_generation.answer import Answer, Splits
from model_compose.types import FinishReason, Usage

_REASONS: Final[Mapping[str, FinishReason]] = {"stop": "stop", "length": "length", "repetition": "stop"}


class Output(Answer):
    """One output of a request.

    rivals  how many tokens are told beside each that was chosen, None: not even that
    """

    def __init__(self, index: int, rivals: int | None, splits: Splits | None) -> None:
        super().__init__(index, splits)
        self._rivals = rivals
        self.tokens = 0

    def take(self, piece: Any) -> TextDelta | None:
        """The next piece, a `CompletionOutput` of the engine; -> what can be shown of it."""
        self.tokens += len(piece.token_ids)
        if piece.finish_reason is not None:
            if piece.finish_reason not in _REASONS:
                raise EngineError(f"vLLM gave up the request: {piece.finish_reason}")
            self.finish_reason = _REASONS[piece.finish_reason]
        return self.grow(piece.text, list(self._told(piece.logprobs or ())))

    def _told(self, places: Sequence[Mapping[int, Any]]) -> Iterator[dict[str, Any]]:
        """For each token its log probability, and the likeliest ones, in the form of OpenAI's API."""
        for place in places:
            chosen = next(iter(place.values()))  # the engine names the chosen one first
            ranked = sorted(place.values(), key=lambda each: each.rank)
            rivals = [_named(each) for each in ranked[: self._rivals] if each.rank <= (self._rivals or 0)]
            yield {**_named(chosen), "top_logprobs": rivals}

    def completion(self, prompt_tokens: int, cached_tokens: int) -> Completion:
        """All of it."""
        return self.completed(Usage(prompt_tokens, self.tokens, cached_tokens))


def _named(found: Any) -> dict[str, Any]:
    text = found.decoded_token or ""
    return {"token": text, "logprob": found.logprob, "bytes": list(text.encode())}
