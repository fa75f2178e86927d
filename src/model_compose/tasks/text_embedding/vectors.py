"""How does what a model gives for a text become the vector that a request wants? Without torch."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_compose.drivers.contract import Outcome
from model_compose.errors import EngineError, InvalidInput
from model_compose.tasks.text_embedding.spec import Embedding, TextEmbedding
from model_compose.types import Usage


class Row(NamedTuple):
    """What came of a text."""

    vector: NDArray[np.float32]
    tokens: int
    truncated: bool


def embedding_of(
    request: TextEmbedding, row: Row, *, normalizes: bool, if_too_large: str | None = None
) -> Outcome:
    """Cut and scale a vector as the request wants it. Raises InvalidInput, EngineError.

    normalizes    what the model does where the request says nothing
    if_too_large  what to do where numbers are no numbers any more
    """
    vector = row.vector
    if request.dimensions is not None:
        if request.dimensions > len(vector):
            raise InvalidInput(
                f"the model gives {len(vector)} numbers, and {request.dimensions} were asked for",
                field="dimensions",
            )
        vector = vector[: request.dimensions]
    length = math.sqrt(float(np.dot(vector, vector)))
    if not math.isfinite(length):
        raise EngineError("the model gave numbers that are too large for its precision", hint=if_too_large)
    if length and (normalizes if request.normalize is None else request.normalize):
        vector = vector / np.float32(length)
    return Outcome(Embedding(vector.tolist(), row.truncated), Usage(prompt_tokens=row.tokens))
