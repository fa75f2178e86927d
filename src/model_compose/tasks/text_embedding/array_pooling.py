"""The same as `pooling.py`, with numpy: for engines that come without torch.

hidden float [batch, tokens, dim], mask int [batch, tokens], 1 = a token that counts; -> float32 [batch, dim].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Vectors: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.int64]


def cls(hidden: Vectors, mask: Mask) -> Vectors:
    """The vector of the first token that counts; the very first where none does."""
    return _at(hidden, mask.argmax(1))


def last(hidden: Vectors, mask: Mask) -> Vectors:
    """The vector of the last token that counts; zeros where none does."""
    backwards = mask[:, ::-1].argmax(1)
    found: Vectors = _at(hidden, mask.shape[1] - 1 - backwards) * mask.any(axis=1, keepdims=True)
    return found


def largest(hidden: Vectors, mask: Mask) -> Vectors:
    """The largest number of each dimension."""
    found: Vectors = np.where(mask[..., None] == 0, -np.inf, hidden).max(1)
    return found


def mean(hidden: Vectors, mask: Mask) -> Vectors:
    """The average of the tokens that count; zeros where none does."""
    return _weighed(hidden, mask, mask.sum(1))


def mean_sqrt_len(hidden: Vectors, mask: Mask) -> Vectors:
    """Their sum, divided by the square root of how many they are."""
    return _weighed(hidden, mask, np.sqrt(mask.sum(1)))


def weighted_mean(hidden: Vectors, mask: Mask) -> Vectors:
    """Their average, in which the first token of a text has weight 1, the second 2, and so on."""
    weights = mask * np.arange(1, mask.shape[1] + 1)
    return _weighed(hidden, weights, weights.sum(1))


def _at(hidden: Vectors, index: NDArray[np.int64]) -> Vectors:
    found: Vectors = hidden[np.arange(len(hidden)), index]
    return found


def _weighed(hidden: Vectors, weights: Mask, divisor: NDArray[Any]) -> Vectors:
    total = np.einsum("bth,bt->bh", hidden, weights.astype(np.float32))
    found: Vectors = total / np.maximum(divisor, 1e-9).astype(np.float32)[:, None]
    return found


#: By the names that sentence-transformers has for them.
MODES: Final[Mapping[str, Callable[[Vectors, Mask], Vectors]]] = {
    "cls": cls,
    "max": largest,
    "mean": mean,
    "mean_sqrt_len_tokens": mean_sqrt_len,
    "weightedmean": weighted_mean,
    "lasttoken": last,
}


def pool(hidden: NDArray[Any], mask: Mask, modes: Sequence[str]) -> Vectors:
    """One vector for each row; those of several modes side by side."""
    exact = hidden.astype(np.float32, copy=False)
    return np.concatenate([MODES[mode](exact, mask) for mode in modes], axis=-1, dtype=np.float32)


def without_prompt(mask: Mask, prompt_tokens: Sequence[int]) -> Mask:
    """The mask with the first so many tokens of each row left out."""
    counts: Mask = mask * (np.arange(mask.shape[1]) >= np.array(prompt_tokens)[:, None])
    return counts
