"""How does vLLM embed texts?

The engine pools the tokens as the model was trained. For another pooling, which a request may ask for, it
gives the vectors of all tokens, and they are pooled here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_compose.drivers.contract import CancelToken, LoadOptions, LoadProgress, ModelInfo, Outcome, Sink
from model_compose.drivers.vllm.arguments import weights_folder
from model_compose.drivers.vllm.engine import Vllm
from model_compose.drivers.vllm.texts import Texts, Tokens
from model_compose.errors import InvalidInput, ModelLoadError
from model_compose.tasks.text_embedding.array_pooling import pool, without_prompt
from model_compose.tasks.text_embedding.given import given_tokens
from model_compose.tasks.text_embedding.modules import Recipe, read
from model_compose.tasks.text_embedding.spec import TextEmbedding
from model_compose.tasks.text_embedding.vectors import Row, embedding_of

#: Ways of pooling that the engine has, by our names.
_OF_THE_ENGINE: Final = {"mean": "MEAN", "cls": "CLS", "lasttoken": "LAST"}


class _Text(NamedTuple):
    """A text, how it is pooled, and how many tokens at its beginning do not count."""

    tokens: Tokens
    modes: tuple[str, ...]
    skipped: int


class Embedder:
    """An `EngineModel` for text-embedding, equal to what sentence-transformers gives for the same model."""

    def __init__(self) -> None:
        self.engine = Vllm()
        self._recipe: Recipe
        self._texts: Texts
        self._skipped: dict[str, int] = {}

    async def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        """Start the engine, and read what sentence-transformers has written about the model."""
        assert options.source is not None
        folder = weights_folder(options)
        self._recipe = recipe = read(folder, options.source.origin)
        if recipe.heads:
            kinds = ", ".join(f"`{head.kind}`" for head in recipe.heads)
            raise ModelLoadError(
                f"the model has layers behind its pooling ({kinds}), which this driver does not compute",
                hint="use driver `huggingface`",
            )
        if recipe.folder.resolve() != folder.resolve():
            raise ModelLoadError(
                f"`{options.source.origin}` has its weights in a folder of their own, `{recipe.folder.name}`",
                hint="use driver `huggingface`",
            )
        # What the engine does not pool itself is pooled here, from all tokens.
        info = await self.engine.load(options, progress, pooling=_OF_THE_ENGINE.get(self._own or "", "MEAN"))
        limit = min(filter(None, (self.engine.context, recipe.max_seq_length, options.max_seq_length)))
        self._texts = Texts(self.engine.tokenizer, limit)
        if options.warmup:
            progress("warm-up", 0, 1)
            await self._vector(self._text(TextEmbedding(text="warm up")))
            progress("warm-up", 1, 1)
        return info

    @property
    def _own(self) -> str | None:
        """The way of pooling that the model was trained with, if it is one alone."""
        pooling = self._recipe.pooling
        return pooling[0] if len(pooling) == 1 else None

    async def run(self, request: TextEmbedding, sink: Sink, cancel: CancelToken) -> Outcome:
        """Embed one text."""
        return await self.engine.serve(self._run(request), cancel)

    async def _run(self, request: TextEmbedding) -> Outcome:
        text = await asyncio.to_thread(self._text, request)
        vector = await self._vector(text)
        row = Row(vector, len(text.tokens.ids), text.tokens.truncated)
        hint = "set `precision: bfloat16` or `float32`"
        return embedding_of(request, row, normalizes=self._recipe.normalizes, if_too_large=hint)

    def _text(self, request: TextEmbedding) -> _Text:
        """Put the prompt before the text, and tokenize; tokens are taken as they are. Blocks."""
        recipe, texts = self._recipe, self._texts
        modes = recipe.modes(request)
        if isinstance(request.text, list):
            limit = min(request.max_input_length or texts.limit, texts.limit)
            ids, cut = given_tokens(request.text, limit, self.engine.vocabulary, truncate=request.truncate)
            return _Text(Tokens(ids, None, cut), modes, 0)
        prompt = recipe.prompt(request.prompt_name)
        text = recipe.cased(prompt + request.text)
        tokens = texts.tokens(text, request.max_input_length, truncate=request.truncate)
        if not tokens.ids:
            raise InvalidInput("the text has no tokens", field="text")
        return _Text(tokens, modes, self._length(prompt) if recipe.skips_prompt and prompt else 0)

    def _length(self, prompt: str) -> int:
        """How many tokens a prompt has, without the one that ends a text."""
        found = self._skipped.get(prompt)
        if found is None:
            found = self._skipped[prompt] = self._texts.beginning(self._recipe.cased(prompt))
        return found

    async def _vector(self, text: _Text) -> NDArray[np.float32]:
        from vllm import PoolingParams

        whole = text.modes == (self._own,) and self._own in _OF_THE_ENGINE and not text.skipped
        params = PoolingParams(task="embed" if whole else "token_embed", use_activation=False)
        async with self.engine.adapter(None) as adapter:
            found = await self.engine.encode(text.tokens.ids, params, adapter)
        numbers: NDArray[np.float32] = found.float().numpy()
        return numbers if whole else await asyncio.to_thread(_pooled, numbers, text)

    async def close(self) -> None:
        """Stop the engine."""
        await self.engine.close()

    def metrics(self) -> Mapping[str, float]:
        """Counters of the engine."""
        return self.engine.metrics()

    def memory(self) -> Mapping[str, int]:
        """Bytes that the processes of the engine take."""
        return self.engine.memory()


def _pooled(hidden: NDArray[np.float32], text: _Text) -> NDArray[np.float32]:
    """One vector of those of all tokens, float [tokens, dim]."""
    mask = without_prompt(np.ones((1, len(hidden)), dtype=np.int64), [text.skipped])
    found: NDArray[np.float32] = pool(hidden[None], mask, text.modes)[0]
    return found
