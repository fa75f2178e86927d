"""How does it shout? Imported in the worker process and nowhere else."""

from __future__ import annotations

import asyncio

import msgspec

from model_compose.drivers.contract import CancelToken, LoadOptions, LoadProgress, ModelInfo, Outcome, Sink
from model_compose.tasks.generation import Completion, TextDelta
from model_compose.tasks.text_generation.spec import TextGeneration
from model_compose.types import FinishReason, Usage
from shout_driver.spec import ShoutOptions


class Shouter:
    """An `EngineModel`: it takes several requests at once, and streams."""

    async def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        """Take the settings; a real engine loads `options.source` here."""
        self._end = "!" * msgspec.convert(options.options, ShoutOptions).exclamation_marks
        return ModelInfo(slots=4)

    async def run(self, request: TextGeneration, sink: Sink, cancel: CancelToken) -> Outcome:
        """Serve one request. In a thread, because computing and `emit` block."""
        return await asyncio.to_thread(self._shout, request, sink)

    def _shout(self, request: TextGeneration, sink: Sink) -> Outcome:
        words = request.prompt.upper().split()
        said = words[: request.max_output_length]
        text = " ".join(said) + self._end
        for piece in (*(f"{word} " for word in said[:-1]), *said[-1:], self._end):
            if not sink.emit(TextDelta(piece)):
                break  # the caller went away
        usage = Usage(prompt_tokens=len(words), completion_tokens=len(said))
        reason: FinishReason = "stop" if len(said) == len(words) else "length"
        return Outcome(Completion(text, reason, usage), usage, reason)

    async def close(self) -> None:
        """Let go of everything."""

    def metrics(self) -> dict[str, float]:
        """Counters of the engine."""
        return {}
