"""How does transformers embed texts?"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from model_compose.drivers.alone import warm_up
from model_compose.drivers.contract import Item, LoadOptions, LoadProgress, ModelInfo, Outcome, Step
from model_compose.drivers.huggingface.encoder import Encoder, in_order
from model_compose.drivers.huggingface.load import Auto, Files, read_config
from model_compose.drivers.huggingface.passes import Tokens
from model_compose.tasks.text_embedding.given import given_tokens
from model_compose.tasks.text_embedding.heads import layer
from model_compose.tasks.text_embedding.modules import read
from model_compose.tasks.text_embedding.pooling import pool, without_prompt
from model_compose.tasks.text_embedding.spec import TextEmbedding
from model_compose.tasks.text_embedding.vectors import Row, embedding_of


class _Text(NamedTuple):
    """A text as a row of a batch, how it is pooled, and how many tokens at its beginning do not count."""

    tokens: Tokens
    modes: tuple[str, ...]
    skipped: int


class Embedder:
    """A `BatchModel` for text-embedding, equal to what sentence-transformers gives for the same model."""

    def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        """Load the weights, and what sentence-transformers has written about them."""
        assert options.source is not None
        folder, origin = Path(Files.of(options.source.path).folder), options.source.origin
        self._recipe = recipe = read(folder, origin)
        if recipe.folder != folder:
            options = replace(options, source=replace(options.source, path=str(recipe.folder)))
        config = read_config(options)
        # Of models that translate one text into another, the half that reads.
        auto: Auto = "AutoModelForTextEncoding" if config.is_encoder_decoder else "AutoModel"
        self._encoder = Encoder.load(options, auto, progress, config, trained_limit=recipe.max_seq_length)
        _drop_pooler(self._encoder.loaded.model)
        self._encoder.pack()
        layers = [layer(head, origin) for head in recipe.heads]
        self._heads = [each.to(self._encoder.device).eval().requires_grad_(False) for each in layers]
        self._skipped: dict[str, int] = {}
        warm_up(self.prepare(TextEmbedding(text="warm up")), self.forward, options, progress)
        return self._encoder.info

    def budget(self) -> tuple[int, int]:
        """The most rows, and the most tokens with padding."""
        return self._encoder.budget()

    def prepare(self, request: TextEmbedding) -> list[Item]:
        """Put the prompt before the text, and tokenize; tokens are taken as they are."""
        modes = self._recipe.modes(request)
        if isinstance(request.text, list):
            limit = min(request.max_input_length or self._encoder.limit, self._encoder.limit)
            ids, cut = given_tokens(request.text, limit, self._encoder.vocabulary, truncate=request.truncate)
            return [Item(len(ids), modes, _Text(Tokens(ids, None, cut), modes, 0))]
        prompt = self._recipe.prompt(request.prompt_name)
        text = self._recipe.cased(prompt + request.text)
        tokens = self._encoder.tokens(text, request.max_input_length, truncate=request.truncate)
        skipped = self._length(prompt) if self._recipe.skips_prompt and prompt else 0
        return [Item(len(tokens.ids), modes, _Text(tokens, modes, skipped))]

    def _length(self, prompt: str) -> int:
        """How many tokens a prompt has, without the one that ends a text."""
        found = self._skipped.get(prompt)
        if found is None:
            found = self._skipped[prompt] = self._encoder.beginning(self._recipe.cased(prompt))
        return found

    def forward(self, items: Sequence[Item], step: Step) -> Sequence[Row]:
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
            Row(row, len(text.tokens.ids), text.tokens.truncated)
            for row, text in zip(rows, texts, strict=True)
        ]

    def finish(self, request: TextEmbedding, raws: Sequence[Row]) -> Outcome:
        """Cut and scale the vector as the request wants it."""
        (row,) = raws
        return embedding_of(
            request,
            row,
            normalizes=self._recipe.normalizes,
            if_too_large="set `precision: bfloat16` or `float32`",
        )

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
