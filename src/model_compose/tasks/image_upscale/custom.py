"""Which engine upscales pictures with these weights?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from model_compose.drivers.contract import Item, LoadOptions, LoadProgress, ModelInfo, Outcome, Step
from model_compose.tasks.image_upscale.spec import ImageUpscale


class Upscaler:
    """A `BatchModel` for image-upscale: that of onnxruntime or of torch, by the format of the weights."""

    def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        """Import the engine that reads the weights, and load them."""
        self._model = _model_for(options)
        info: ModelInfo = self._model.load(options, progress)
        return info

    def budget(self) -> tuple[int, int]:
        budget: tuple[int, int] = self._model.budget()
        return budget

    def prepare(self, request: ImageUpscale) -> list[Item]:
        items: list[Item] = self._model.prepare(request)
        return items

    def forward(self, items: Sequence[Item], step: Step) -> Sequence[Any]:
        rows: Sequence[Any] = self._model.forward(items, step)
        return rows

    def finish(self, request: ImageUpscale, raws: Sequence[Any]) -> Outcome:
        outcome: Outcome = self._model.finish(request, raws)
        return outcome

    def metrics(self) -> Mapping[str, float]:
        counted: Mapping[str, float] = self._model.metrics()
        return counted

    def memory(self) -> Mapping[str, int]:
        taken: Mapping[str, int] = self._model.memory()
        return taken


def _model_for(options: LoadOptions) -> Any:
    if options.source is not None and options.source.format in ("onnx", "tensorrt"):
        from model_compose.tasks.image_upscale.onnx import OnnxUpscaler

        return OnnxUpscaler()
    from model_compose.tasks.image_upscale.network import Upscaler as NetworkUpscaler

    return NetworkUpscaler()
