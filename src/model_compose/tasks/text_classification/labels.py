"""How do a classifier's numbers become a label? Without torch: every engine gives such numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from model_compose.drivers.contract import Outcome
from model_compose.errors import EngineError, InvalidInput
from model_compose.tasks.text_classification.spec import Classification, TextClassification
from model_compose.types import Usage

Numbers = NDArray[np.float64]

#: From which probability on a label fits, of those that do not exclude each other.
_FITS: Final = 0.5


class Row(NamedTuple):
    """What came of a text: a number for each label."""

    logits: Numbers
    tokens: int
    truncated: bool


class Labels(msgspec.Struct, frozen=True):
    """The labels of a model.

    problem       `problem_type` of its configuration, as transformers writes it
    if_too_large  what to do where numbers are no numbers any more
    """

    names: tuple[str, ...]
    problem: str | None
    if_too_large: str | None = None

    def check(self, request: TextClassification) -> None:
        """Raise InvalidInput for names that are not as many as the labels."""
        if request.labels is not None and len(request.labels) != len(self.names):
            raise InvalidInput(
                f"the model has {len(self.names)} labels, and {len(request.labels)} names are given",
                field="labels",
            )

    def choose(self, request: TextClassification, row: Row) -> Outcome:
        """The label of a text. Raises EngineError."""
        scores = self._probabilities(row.logits)
        if not np.isfinite(scores).all():
            raise EngineError(
                "the model gave numbers that are too large for its precision", hint=self.if_too_large
            )
        names = request.labels or self.names
        best = int(scores.argmax())
        several = self.problem == "multi_label_classification"
        result = Classification(
            names[best],
            float(scores[best]),
            best,
            probabilities=scores.tolist() if request.return_probabilities else None,
            labels=[names[i] for i in np.flatnonzero(scores >= _FITS)] if several else None,
            truncated=row.truncated,
        )
        return Outcome(result, Usage(prompt_tokens=row.tokens))

    @property
    def _probabilities(self) -> Callable[[Numbers], Numbers]:
        """What makes probabilities of a model's numbers, as it was trained."""
        if self.problem == "regression":
            return lambda logits: logits
        alone = len(self.names) == 1 or self.problem == "multi_label_classification"
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
