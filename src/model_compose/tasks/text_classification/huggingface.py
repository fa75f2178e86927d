"""How does transformers classify texts?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_compose.drivers.contract import Item, LoadOptions, LoadProgress, ModelInfo, Outcome, Step
from model_compose.drivers.huggingface.encoder import Encoder, warm_up
from model_compose.drivers.huggingface.load import read_config
from model_compose.drivers.huggingface.passes import Tokens
from model_compose.errors import EngineError, InvalidInput
from model_compose.tasks.text_classification.spec import Classification, TextClassification
from model_compose.types import Usage

Numbers = NDArray[np.float64]

#: From which probability on a label fits, of those that do not exclude each other.
_FITS: Final = 0.5


class _Row(NamedTuple):
    """What came of a text: a number for each label."""

    logits: Numbers
    tokens: int
    truncated: bool


class Classifier:
    """A `BatchModel` for text-classification."""

    def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        """Load the weights."""
        config = read_config(options)
        self._encoder = Encoder.load(options, "AutoModelForSequenceClassification", progress, config)
        self._encoder.pack()
        self._labels = tuple(str(config.id2label[i]) for i in range(config.num_labels))
        self._several = config.problem_type == "multi_label_classification"
        self._probabilities = _probabilities(config)
        warm_up(self.prepare(TextClassification(text="warm up")), self.forward, options, progress)
        return self._encoder.info

    def budget(self) -> tuple[int, int]:
        """The most rows, and the most tokens with padding."""
        return self._encoder.budget()

    def prepare(self, request: TextClassification) -> list[Item]:
        """Tokenize."""
        if request.labels is not None and len(request.labels) != len(self._labels):
            raise InvalidInput(
                f"the model has {len(self._labels)} labels, and {len(request.labels)} names are given",
                field="labels",
            )
        tokens = self._encoder.tokens(request.text, request.max_input_length, truncate=request.truncate)
        return [Item(len(tokens.ids), None, tokens)]

    def forward(self, items: Sequence[Item], step: Step) -> Sequence[_Row]:
        """A number for each label of each text."""
        texts: list[Tokens] = [item.payload for item in items]
        with self._encoder.passing(step.threads):
            logits = self._encoder.logits(texts).double().cpu().numpy()
        return [_Row(row, len(text.ids), text.truncated) for row, text in zip(logits, texts, strict=True)]

    def finish(self, request: TextClassification, raws: Sequence[_Row]) -> Outcome:
        """Choose the label."""
        (row,) = raws
        scores = self._probabilities(row.logits)
        if not np.isfinite(scores).all():
            raise EngineError(
                "the model gave numbers that are too large for its precision",
                hint="set `precision: bfloat16` or `float32`",
            )
        names = request.labels or self._labels
        best = int(scores.argmax())
        result = Classification(
            names[best],
            float(scores[best]),
            best,
            probabilities=scores.tolist() if request.return_probabilities else None,
            labels=[names[i] for i in np.flatnonzero(scores >= _FITS)] if self._several else None,
            truncated=row.truncated,
        )
        return Outcome(result, Usage(prompt_tokens=row.tokens))

    def metrics(self) -> Mapping[str, float]:
        """Batches and their rows."""
        return self._encoder.metrics()

    def memory(self) -> Mapping[str, int]:
        """What it takes on GPUs."""
        return self._encoder.memory()


def _probabilities(config: Any) -> Callable[[Numbers], Numbers]:
    """What makes probabilities of a model's numbers, as it was trained."""
    if config.problem_type == "regression":
        return lambda logits: logits
    alone = config.num_labels == 1 or config.problem_type == "multi_label_classification"
    return sigmoid if alone else softmax


def softmax(logits: Numbers) -> Numbers:
    """Probabilities of labels that exclude each other: they add up to 1."""
    grown = np.exp(logits - logits.max())
    found: Numbers = grown / grown.sum()
    return found


def sigmoid(logits: Numbers) -> Numbers:
    """Probabilities of labels that have nothing to do with each other."""
    found: Numbers = 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
    return found
