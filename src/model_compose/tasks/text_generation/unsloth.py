"""How does Unsloth continue a text? As transformers does, with another library that holds the weights."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from model_compose.drivers.contract import CancelToken, LoadOptions, LoadProgress, ModelInfo, Outcome, Sink
from model_compose.drivers.unsloth.library import Unsloth, begin

if TYPE_CHECKING:
    from typing import Any

    from model_compose.tasks.text_generation.huggingface.model import Generator as Serving


class Generator:
    """An `EngineModel` for text-generation: that of transformers, made when Unsloth has been imported."""

    def __init__(self) -> None:
        self._serving: Serving

    async def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        """Load the weights."""
        progress("unsloth", 0, 0)
        await asyncio.to_thread(begin, options)
        self._serving = self._made()
        return await self._serving.load(options, progress)

    def _made(self) -> Serving:
        from model_compose.tasks.text_generation.huggingface.model import Generator as Serving

        return Serving(Unsloth())

    async def run(self, request: Any, sink: Sink, cancel: CancelToken) -> Outcome:
        """Generate the outputs of a request."""
        return await self._serving.run(request, sink, cancel)

    async def close(self) -> None:
        """Let go of the engine."""
        await self._serving.close()

    async def lease(self, threads: int) -> None:
        """Compute with this many threads."""
        await self._serving.lease(threads)

    def metrics(self) -> Mapping[str, float]:
        """Counters of the engine."""
        return self._serving.metrics()

    def memory(self) -> Mapping[str, int]:
        """Bytes by pool, where they are not those of the process."""
        return self._serving.memory()
