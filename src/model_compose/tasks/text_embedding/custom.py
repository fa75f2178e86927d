"""How does a fixed graph, an ONNX file or a TensorRT engine, embed texts?

It gives the vectors of all tokens, which are pooled here as the files beside it say, or else the text's own
vector, which its exporter has put into the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from model_compose.drivers.alone import warm_up
from model_compose.drivers.contract import Item, LoadOptions, LoadProgress, ModelInfo, Outcome, Step
from model_compose.drivers.custom.session import beside, graph_of, unfit
from model_compose.drivers.custom.texts import Texts, output_of
from model_compose.drivers.custom.tokens import Tokens
from model_compose.errors import InvalidInput, ModelLoadError
from model_compose.tasks.text_embedding.array_pooling import Vectors, pool, without_prompt
from model_compose.tasks.text_embedding.given import given_tokens
from model_compose.tasks.text_embedding.modules import read
from model_compose.tasks.text_embedding.spec import TextEmbedding
from model_compose.tasks.text_embedding.vectors import Row, embedding_of

#: Names that transformers, optimum and sentence-transformers give to outputs.
_OF_TOKENS: Final = ("last_hidden_state", "token_embeddings")
_OF_TEXTS: Final = ("sentence_embedding",)


class _Text(NamedTuple):
    """A text as a row of a batch; no modes: the graph's own vector is wanted."""

    tokens: Tokens
    modes: tuple[str, ...]
    skipped: int


class Embedder:
    """A `BatchModel` for text-embedding."""

    def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        """Load the graph, and what sentence-transformers has written about it."""
        assert options.source is not None
        graph = graph_of(options)
        listed = beside(graph, "modules.json")
        self._recipe = recipe = read(graph.parent if listed is None else listed.parent, options.source.origin)
        self._texts = texts = Texts.load(options, graph, recipe.max_seq_length)
        of_tokens = output_of(texts.session, _OF_TOKENS, rank=3)
        of_texts = output_of(texts.session, _OF_TEXTS, rank=2)
        if of_tokens is None and of_texts is None:
            raise unfit(
                texts.session,
                "does not embed texts: it has no output `last_hidden_state` [texts, tokens, numbers], and no "
                "`sentence_embedding` [texts, numbers]",
            )
        self._of_tokens = None if of_tokens is None else of_tokens.name
        self._of_texts = None if of_texts is None else of_texts.name
        self._check_recipe()
        self._skipped: dict[str, int] = {}
        warm_up(self.prepare(TextEmbedding(text="warm up")), self.forward, options, progress)
        return texts.info

    def _check_recipe(self) -> None:
        """Raise ModelLoadError if the graph lacks what the files beside it say."""
        recipe, name = self._recipe, self._texts.session.path.name
        if recipe.heads and self._of_texts is None:
            kinds = ", ".join(f"`{head.kind}`" for head in recipe.heads)
            raise ModelLoadError(
                f"the model has layers behind its pooling ({kinds}), and `{name}` ends before them",
                hint="export it with sentence-transformers, which gives an output `sentence_embedding`; or "
                "use driver `huggingface`",
            )
        if recipe.skips_prompt and (self._of_tokens is None or recipe.heads):
            raise ModelLoadError(
                f"the tokens of prompts do not count in this model, and `{name}` counts all of them",
                hint="export it with the output `last_hidden_state`, or use driver `huggingface`",
            )

    def budget(self) -> tuple[int, int]:
        """The most rows, and the most tokens with padding."""
        return self._texts.budget()

    def prepare(self, request: TextEmbedding) -> list[Item]:
        """Put the prompt before the text, and tokenize; tokens are taken as they are."""
        recipe = self._recipe
        if isinstance(request.text, list):
            limit = min(request.max_input_length or self._texts.limit, self._texts.limit)
            ids, cut = given_tokens(request.text, limit, self._texts.vocabulary, truncate=request.truncate)
            tokens, modes = Tokens(ids, None, cut), self._modes(request, skips=False)
            return [Item(self._texts.cost(tokens), modes, _Text(tokens, modes, 0))]
        prompt = recipe.prompt(request.prompt_name)
        text = recipe.cased(prompt + request.text)
        tokens = self._texts.tokens(text, request.max_input_length, truncate=request.truncate)
        skipped = self._length(prompt) if recipe.skips_prompt and prompt else 0
        modes = self._modes(request, skips=skipped > 0)
        return [Item(self._texts.cost(tokens), modes, _Text(tokens, modes, skipped))]

    def _modes(self, request: TextEmbedding, *, skips: bool) -> tuple[str, ...]:
        """How the tokens are pooled; empty where the graph does that itself."""
        if request.pooling is None and self._of_texts is not None and not skips:
            return ()
        if self._of_tokens is None or self._recipe.heads:
            raise InvalidInput(
                "the pooling is in the ONNX file, and cannot be changed",
                field="pooling",
                hint="leave `pooling` out",
            )
        return self._recipe.modes(request)

    def _length(self, prompt: str) -> int:
        """How many tokens a prompt has, without the one that ends a text."""
        found = self._skipped.get(prompt)
        if found is None:
            found = self._skipped[prompt] = self._texts.beginning(self._recipe.cased(prompt))
        return found

    def forward(self, items: Sequence[Item], step: Step) -> Sequence[Row]:
        """Vectors of texts that are pooled in the same way."""
        texts: list[_Text] = [item.payload for item in items]
        found = self._vectors(texts, texts[0].modes)
        return [Row(found[i], len(text.tokens.ids), text.tokens.truncated) for i, text in enumerate(texts)]

    def _vectors(self, texts: Sequence[_Text], modes: tuple[str, ...]) -> dict[int, Vectors]:
        output = self._of_tokens if modes else self._of_texts
        assert output is not None
        found: dict[int, Vectors] = {}
        for part in self._texts.run([text.tokens for text in texts], [output]):
            vectors = part.outputs[output]
            if modes:
                counted = without_prompt(part.mask, [texts[i].skipped for i in part.indexes])
                vectors = pool(vectors, counted, modes)
            found |= zip(part.indexes, vectors.astype(np.float32, copy=False), strict=True)
        return found

    def finish(self, request: TextEmbedding, raws: Sequence[Row]) -> Outcome:
        """Cut and scale the vector as the request wants it."""
        (row,) = raws
        return embedding_of(request, row, normalizes=self._recipe.normalizes)

    def metrics(self) -> Mapping[str, float]:
        """Batches and their rows."""
        return self._texts.metrics()

    def memory(self) -> Mapping[str, int]:
        """What it takes on GPUs, which onnxruntime does not tell."""
        return {}
