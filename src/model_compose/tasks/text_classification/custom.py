"""How does a fixed graph, an ONNX file or a TensorRT engine, classify texts?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from model_compose.drivers.alone import warm_up
from model_compose.drivers.contract import Item, LoadOptions, LoadProgress, ModelInfo, Outcome, Step
from model_compose.drivers.custom.session import unfit
from model_compose.drivers.custom.texts import Texts, output_of
from model_compose.drivers.custom.tokens import Tokens
from model_compose.tasks.text_classification.labels import Labels, Numbers, Row
from model_compose.tasks.text_classification.spec import TextClassification

_OUTPUTS: Final = ("logits",)


class Classifier:
    """A `BatchModel` for text-classification."""

    def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        """Load the graph, its tokenizer and the names of its labels."""
        self._texts = texts = Texts.load(options)
        port = output_of(texts.session, _OUTPUTS, rank=2)
        if port is None:
            raise unfit(texts.session, "does not classify texts: it has no output `logits` [texts, labels]")
        self._output = port.name
        count = port.shape[1] or len(self._logits([texts.tokens("a", None, truncate=True)])[0])
        names = _names(texts.config, count)
        if len(names) != count:
            raise unfit(texts.session, f"has {count} labels, and `config.json` names {len(names)}")
        self._labels = Labels(names, texts.config.get("problem_type"))
        warm_up(self.prepare(TextClassification(text="warm up")), self.forward, options, progress)
        return texts.info

    def budget(self) -> tuple[int, int]:
        """The most rows, and the most tokens with padding."""
        return self._texts.budget()

    def prepare(self, request: TextClassification) -> list[Item]:
        """Tokenize."""
        self._labels.check(request)
        tokens = self._texts.tokens(
            request.text, request.max_input_length, truncate=request.truncate, pair=request.text_pair
        )
        return [Item(self._texts.cost(tokens), None, tokens)]

    def forward(self, items: Sequence[Item], step: Step) -> Sequence[Row]:
        """A number for each label of each text."""
        texts: list[Tokens] = [item.payload for item in items]
        found = self._logits(texts)
        return [Row(row, len(text.ids), text.truncated) for row, text in zip(found, texts, strict=True)]

    def _logits(self, texts: Sequence[Tokens]) -> list[Numbers]:
        found: dict[int, Numbers] = {}
        for part in self._texts.run(texts, [self._output]):
            found |= zip(part.indexes, part.outputs[self._output].astype(np.float64), strict=True)
        return [found[i] for i in range(len(texts))]

    def finish(self, request: TextClassification, raws: Sequence[Row]) -> Outcome:
        """Choose the label."""
        (row,) = raws
        return self._labels.choose(request, row)

    def metrics(self) -> Mapping[str, float]:
        """Batches and their rows."""
        return self._texts.metrics()

    def memory(self) -> Mapping[str, int]:
        """What it takes on GPUs, which onnxruntime does not tell."""
        return {}


def _names(config: dict[str, Any], count: int) -> tuple[str, ...]:
    """What the configuration calls the labels; where it does not, what transformers calls them then."""
    told = config.get("id2label")
    if not isinstance(told, dict):
        return tuple(f"LABEL_{i}" for i in range(count))
    return tuple(str(told[key]) for key in sorted(told, key=int))
