"""How do the vectors of a text's tokens become one vector?

Every function takes the vectors as float [batch, tokens, dim] and a mask as int [batch, tokens], 1 = a token
that counts, and gives float [batch, dim]. Rows are padded on the right; tokens of a prompt that does not
count have 0 in the mask too, at its left. Sums are in float32: half precision loses low bits of long texts.
Source: sentence-transformers 6, `Pooling`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor


def cls(hidden: Tensor, mask: Tensor) -> Tensor:
    """The vector of the first token that counts; the very first where none does."""
    return _at(hidden, mask.argmax(1))


def last(hidden: Tensor, mask: Tensor) -> Tensor:
    """The vector of the last token that counts; zeros where none does."""
    backwards = mask.flip(1).argmax(1)
    found = _at(hidden, mask.shape[1] - 1 - backwards)
    return found * mask.any(1).unsqueeze(-1).to(found.dtype)


def largest(hidden: Tensor, mask: Tensor) -> Tensor:
    """The largest number of each dimension."""
    return hidden.masked_fill(mask.unsqueeze(-1) == 0, float("-inf")).amax(1)


def mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """The average of the tokens that count; zeros where none does."""
    return _weighed(hidden, mask, mask.sum(1))


def mean_sqrt_len(hidden: Tensor, mask: Tensor) -> Tensor:
    """Their sum, divided by the square root of how many they are."""
    return _weighed(hidden, mask, mask.sum(1).sqrt())


def weighted_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Their average, in which the first token of a text has weight 1, the second 2, and so on."""
    weights = mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return _weighed(hidden, weights, weights.sum(1))


def _at(hidden: Tensor, index: Tensor) -> Tensor:
    return hidden[torch.arange(len(hidden), device=hidden.device), index]


def _weighed(hidden: Tensor, weights: Tensor, divisor: Tensor) -> Tensor:
    total = torch.einsum("bth,bt->bh", hidden.float(), weights.float())
    return (total / divisor.float().clamp(min=1e-9).unsqueeze(-1)).to(hidden.dtype)


#: By the names that sentence-transformers has for them.
MODES: Final[Mapping[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "cls": cls,
    "max": largest,
    "mean": mean,
    "mean_sqrt_len_tokens": mean_sqrt_len,
    "weightedmean": weighted_mean,
    "lasttoken": last,
}


def pool(hidden: Tensor, mask: Tensor, modes: Sequence[str]) -> Tensor:
    """One vector for each row, float [batch, dim]; those of several modes side by side."""
    found = [MODES[mode](hidden, mask) for mode in modes]
    return found[0] if len(found) == 1 else torch.cat(found, dim=-1)


def without_prompt(mask: Tensor, prompt_tokens: Sequence[int]) -> Tensor:
    """The mask with the first so many tokens of each row left out."""
    if not any(prompt_tokens):
        return mask
    skipped = torch.tensor(prompt_tokens, device=mask.device).unsqueeze(1)
    return mask * (torch.arange(mask.shape[1], device=mask.device) >= skipped)
