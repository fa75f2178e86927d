"""How does transformers embed texts?"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from model_compose.drivers.contract import Item, LoadOptions, LoadProgress, ModelInfo, Outcome, Step
from model_compose.drivers.huggingface.encoder import Encoder, in_order, warm_up
from model_compose.drivers.huggingface.load import Auto, Files, read_config
from model_compose.drivers.huggingface.passes import Tokens
from model_compose.errors import EngineError, InvalidInput
from model_compose.tasks.text_embedding.modules import read
from model_compose.tasks.text_embedding.pooling import pool, without_prompt
from model_compose.tasks.text_embedding.spec import Embedding, TextEmbedding
from model_compose.types import Usage

_MODES: Final = {"mean": "mean", "cls": "cls", "max": "max", "last": "lasttoken"}


class _Text(NamedTuple):
    """A text as a row of a batch, how it is pooled, and how many tokens at its beginning do not count."""

    tokens: Tokens
    modes: tuple[str, ...]
    skipped: int


class _Row(NamedTuple):
    """What came of a text."""

    vector: NDArray[np.float32]
    tokens: int
    truncated: bool


class Embedder:
    """A `BatchModel` for text-embedding, equal to what sentence-transformers gives for the same model."""

    def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        """Load the weights, and what sentence-transformers has written about them."""
        assert options.source is not None
        folder = Path(Files.of(options.source.path).folder)
        self._recipe = recipe = read(folder, options.source.origin)
        if recipe.folder != folder:
            options = replace(options, source=replace(options.source, path=str(recipe.folder)))
        config = read_config(options)
        # Of models that translate one text into another, the half that reads.
        auto: Auto = "AutoModelForTextEncoding" if config.is_encoder_decoder else "AutoModel"
        self._encoder = Encoder.load(options, auto, progress, config, trained_limit=recipe.max_seq_length)
        _drop_pooler(self._encoder.loaded.model)
        self._encoder.pack()
        self._heads = [head.to(self._encoder.device).eval().requires_grad_(False) for head in recipe.heads]
        self._skipped: dict[str, int] = {}
        warm_up(self.prepare(TextEmbedding(text="warm up")), self.forward, options, progress)
        return self._encoder.info

    def budget(self) -> tuple[int, int]:
        """The most rows, and the most tokens with padding."""
        return self._encoder.budget()

    def prepare(self, request: TextEmbedding) -> list[Item]:
        """Put the prompt before the text, and tokenize."""
        prompt = self._recipe.prompt(request.prompt_name)
        text = self._cased(prompt + request.text)
        tokens = self._encoder.tokens(text, request.max_input_length, truncate=request.truncate)
        skipped = self._length(prompt) if self._recipe.skips_prompt and prompt else 0
        modes = self._modes(request)
        return [Item(len(tokens.ids), modes, _Text(tokens, modes, skipped))]

    def _modes(self, request: TextEmbedding) -> tuple[str, ...]:
        own = self._recipe.pooling
        if request.pooling is None:
            return own
        if self._heads and len(own) > 1:
            raise InvalidInput(
                f"the model has layers behind its pooling that need `{' + '.join(own)}`", field="pooling"
            )
        return (_MODES[request.pooling],)

    def _cased(self, text: str) -> str:
        return text.lower() if self._recipe.lower_case else text

    def _length(self, prompt: str) -> int:
        """How many tokens a prompt has, without the one that ends a text."""
        found = self._skipped.get(prompt)
        if found is None:
            found = self._skipped[prompt] = self._encoder.beginning(self._cased(prompt))
        return found

    def forward(self, items: Sequence[Item], step: Step) -> Sequence[_Row]:
        """Vectors of texts that are pooled in the same way."""
        texts: list[_Text] = [item.payload for item in items]
        modes = texts[0].modes
        with self._encoder.passing(step.threads):
            parts, indexes = [], []
            for part, hidden, mask in self._encoder.hidden([text.tokens for text in texts]):
                counted = without_prompt(mask, [texts[i].skipped for i in part])
                parts.append(pool(hidden, counted, modes).float())
                indexes.append(part)
            vectors = in_order(parts, indexes)
            for head in self._heads:
                vectors = head(vectors)
            rows = vectors.cpu().numpy()
        return [
            _Row(row, len(text.tokens.ids), text.tokens.truncated)
            for row, text in zip(rows, texts, strict=True)
        ]

    def finish(self, request: TextEmbedding, raws: Sequence[_Row]) -> Outcome:
        """Cut and scale the vector as the request wants it."""
        (row,) = raws
        vector = row.vector
        if request.dimensions is not None:
            if request.dimensions > len(vector):
                raise InvalidInput(
                    f"the model gives {len(vector)} numbers, and {request.dimensions} were asked for",
                    field="dimensions",
                )
            vector = vector[: request.dimensions]
        length = math.sqrt(float(np.dot(vector, vector)))
        if not math.isfinite(length):
            raise EngineError(
                "the model gave numbers that are too large for its precision",
                hint="set `precision: bfloat16` or `float32`",
            )
        if length and (self._recipe.normalizes if request.normalize is None else request.normalize):
            vector = vector / np.float32(length)
        return Outcome(Embedding(vector.tolist(), row.truncated), Usage(prompt_tokens=row.tokens))

    def metrics(self) -> Mapping[str, float]:
        """Batches and their rows."""
        return self._encoder.metrics()

    def memory(self) -> Mapping[str, int]:
        """What it takes on GPUs."""
        return self._encoder.memory()


def _drop_pooler(model: Any) -> None:
    """Remove the layer on top that an embedding does not use, where the model can do without."""
    if "add_pooling_layer" in inspect.signature(type(model).__init__).parameters:
        model.pooler = None
