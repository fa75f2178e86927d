"""How does llama.cpp embed texts?"""

from __future__ import annotations

import unicodedata
from typing import Any

from model_compose.drivers.contract import CancelToken, LoadOptions, LoadProgress, ModelInfo, Outcome, Sink
from model_compose.drivers.llamacpp.engine import LlamaCpp
from model_compose.errors import Cancelled, InvalidInput, RequestTooLong
from model_compose.tasks.text_embedding.given import given_tokens
from model_compose.tasks.text_embedding.spec import Embedding, TextEmbedding
from model_compose.types import Usage

_EUCLIDEAN, _NONE = 2, -1


class Embedder:
    """An `EngineModel` for text-embedding; the engine puts the texts of all its slots into one batch."""

    def __init__(self) -> None:
        self.engine = LlamaCpp()

    async def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        """Load the weights."""
        return await self.engine.load(options, progress, embedding=True)

    async def run(self, request: TextEmbedding, sink: Sink, cancel: CancelToken) -> Outcome:
        """Embed one text."""
        return await self.engine.call(lambda: self._embed(request, cancel))  # type: ignore[no-any-return]

    def _embed(self, request: TextEmbedding, cancel: CancelToken) -> Outcome:
        if cancel.cancelled:
            raise Cancelled("the caller went away")
        limit = min(request.max_input_length or self._context, self._context)
        text: str | list[int]
        if isinstance(request.text, list):
            vocabulary = self.engine.vocabulary
            text, truncated = given_tokens(request.text, limit, vocabulary, truncate=request.truncate)
        else:
            text, truncated = self._text(request, self._normal(request.text), limit)
        answer = self.engine.embeddings([text], _EUCLIDEAN if _scales(request) else _NONE)
        vector = answer["data"][0]["embedding"]
        result = Embedding(_cut(vector, request), truncated)
        return Outcome(result, Usage(prompt_tokens=answer["usage"]["prompt_tokens"]))

    def _text(self, request: TextEmbedding, given: str, limit: int) -> tuple[str | list[int], bool]:
        """A text as the engine gets it, and whether it was cut."""
        text: str | list[int] = given
        truncated = False
        # A token is at least one byte, so a text that is short in bytes need not be counted.
        if len(given.encode()) + 2 > limit:
            tokens = self.engine.tokenize(given)
            truncated = len(tokens) > limit
            if truncated and not request.truncate:
                raise RequestTooLong(
                    f"the text has {len(tokens)} tokens, and the limit is {limit}",
                    size=len(tokens),
                    limit=limit,
                    field="text",
                    hint="shorten it, or set `truncate: true`",
                )
            if truncated:
                # The last token ends the text (`[SEP]`), and the model expects it.
                text = [*tokens[: limit - 1], tokens[-1]]
        return text, truncated

    def _normal(self, text: str) -> str:
        """BERT's tokenizer takes Hangul apart into its letters, and llama.cpp's copy of it does not."""
        return unicodedata.normalize("NFD", text) if self.engine.architecture == "bert" else text

    @property
    def _context(self) -> int:
        return self.engine.info.context_length or 0

    async def close(self) -> None:
        """Let go of the engine."""
        await self.engine.close()

    def metrics(self) -> dict[str, float]:
        """Counters of the engine."""
        return self.engine.metrics()


def _scales(request: TextEmbedding) -> bool:
    """Whether the vector shall have length 1; a GGUF file does not say."""
    return request.normalize is None or request.normalize


def _cut(vector: list[Any], request: TextEmbedding) -> list[float]:
    """The first `dimensions` numbers, at length 1 again if that was asked for."""
    if request.dimensions is None:
        return vector
    if request.dimensions > len(vector):
        raise InvalidInput(
            f"the model gives {len(vector)} numbers, and {request.dimensions} were asked for",
            field="dimensions",
        )
    first = vector[: request.dimensions]
    length = sum(x * x for x in first) ** 0.5
    return [x / length for x in first] if _scales(request) and length else first
