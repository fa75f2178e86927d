"""How does vLLM classify texts?"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from model_compose.drivers.contract import CancelToken, LoadOptions, LoadProgress, ModelInfo, Outcome, Sink
from model_compose.drivers.vllm.engine import Vllm
from model_compose.drivers.vllm.texts import Texts, Tokens
from model_compose.tasks.text_classification.labels import Labels, Numbers, Row
from model_compose.tasks.text_classification.spec import TextClassification


class Classifier:
    """An `EngineModel` for text-classification."""

    def __init__(self) -> None:
        self.engine = Vllm()
        self._texts: Texts
        self._labels: Labels

    async def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        """Start the engine, and read the labels."""
        info = await self.engine.load(options, progress)
        config = self.engine.hf_config
        self._labels = Labels(
            tuple(str(config.id2label[i]) for i in range(config.num_labels)),
            config.problem_type,
            if_too_large="set `precision: bfloat16` or `float32`",
        )
        limit = min(filter(None, (self.engine.context, options.max_seq_length)))
        self._texts = Texts(self.engine.tokenizer, limit)
        if options.warmup:
            progress("warm-up", 0, 1)
            await self._logits(self._texts.tokens("warm up", None, truncate=True))
            progress("warm-up", 1, 1)
        return info

    async def run(self, request: TextClassification, sink: Sink, cancel: CancelToken) -> Outcome:
        """Classify one text, or two together."""
        self._labels.check(request)
        return await self.engine.serve(self._run(request), cancel)

    async def _run(self, request: TextClassification) -> Outcome:
        tokens = await asyncio.to_thread(
            self._texts.tokens,
            request.text,
            request.max_input_length,
            truncate=request.truncate,
            pair=request.text_pair,
        )
        logits = await self._logits(tokens)
        return self._labels.choose(request, Row(logits, len(tokens.ids), tokens.truncated))

    async def _logits(self, tokens: Tokens) -> Numbers:
        """A number for each label."""
        from vllm import PoolingParams

        segments = None if tokens.segment is None else {"compressed_token_type_ids": tokens.segment}
        params = PoolingParams(task="classify", use_activation=False, extra_kwargs=segments)
        async with self.engine.adapter(None) as adapter:
            found = await self.engine.encode(tokens.ids, params, adapter)
        numbers: Numbers = found.double().numpy()
        return numbers

    async def close(self) -> None:
        """Stop the engine."""
        await self.engine.close()

    def metrics(self) -> Mapping[str, float]:
        """Counters of the engine."""
        return self.engine.metrics()

    def memory(self) -> Mapping[str, int]:
        """Bytes that the processes of the engine take."""
        return self.engine.memory()
