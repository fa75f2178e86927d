"""Which token comes next, for each row of a batch by its own rules?

The order is that of transformers: penalties, temperature, `top_k`, `top_p`, `min_p`. Each row draws from a
random generator of its own, so its output does not depend on who else is in the batch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

import torch

from model_compose.errors import EngineError
from model_compose.tasks.generation import Generation

#: A row that wants all tokens sorts all of them; no more than so many are looked at when it wants fewer.
_EVERYTHING: Final = 0
_NO_TOKEN: Final = -1


def not_finite() -> EngineError:
    """What is said where a model gives numbers that are none."""
    return EngineError(
        "the model gives numbers that are not finite",
        hint="set `precision: bfloat16` or `float32`, and weigh adapters less",
    )


class Sampler:
    """The rules of one output, and what it has said so far.

    ends    tokens that end an output
    prompt  tokens of the prompt, which count as said
    """

    def __init__(
        self, request: Generation, index: int, ends: Sequence[int], prompt: Sequence[int], vocabulary: int
    ) -> None:
        self.request = request
        self.greedy = request.greedy
        self.ends = list(ends)
        self._said = 0
        self._random = random.Random(None if request.seed is None else request.seed + index)  # noqa: S311
        self._counts: torch.Tensor | None = None
        if self._penalised:
            self._counts = torch.bincount(torch.tensor(list(prompt)), minlength=vocabulary)

    @property
    def _penalised(self) -> bool:
        asked = self.request
        return (asked.repetition_penalty, asked.presence_penalty, asked.frequency_penalty) != (1.0, 0.0, 0.0)

    def said(self, token: int) -> None:
        """A token was chosen."""
        self._said += 1
        if self._counts is not None:
            self._counts[token] += 1

    def adjust(self, logits: torch.Tensor) -> None:
        """Apply the penalties to a row of logits, in place; hold back the end of an output too short."""
        if self._counts is not None:
            asked, counts = self.request, self._counts.to(logits.device)
            said = counts > 0
            if asked.repetition_penalty != 1.0:
                penalised = torch.where(
                    logits > 0, logits / asked.repetition_penalty, logits * asked.repetition_penalty
                )
                logits.copy_(torch.where(said, penalised, logits))
            logits -= asked.presence_penalty * said + asked.frequency_penalty * counts
        if self._said < self.request.min_output_length:
            logits[self.ends] = -torch.inf

    @property
    def adjusts(self) -> bool:
        """Whether `adjust` does anything now."""
        return self._counts is not None or self._said < self.request.min_output_length

    def draw(self) -> float:
        """A number from 0 to 1."""
        return self._random.random()


def choose(logits: torch.Tensor, rows: Sequence[Sampler]) -> list[int]:
    """The next token of each row, -1 where the model gives numbers that are none.

    logits  float [rows, vocabulary]; rows with penalties are changed in place
    """
    for i, row in enumerate(rows):
        if row.adjusts:
            row.adjust(logits[i])
    if all(row.greedy for row in rows):
        values, tokens = logits.max(-1)
        return list(tokens.masked_fill(~values.isfinite(), _NO_TOKEN).tolist())
    return _sampled(logits, rows)


def _sampled(logits: torch.Tensor, rows: Sequence[Sampler]) -> list[int]:
    wanted = [1 if row.greedy else row.request.top_k for row in rows]
    vocabulary = logits.shape[-1]
    most = vocabulary if _EVERYTHING in wanted else min(max(wanted), vocabulary)
    values, tokens = logits.topk(most, dim=-1)

    def column(numbers: list[Any]) -> torch.Tensor:
        return torch.tensor(numbers, device=logits.device)[:, None]

    place = torch.arange(most, device=logits.device)[None]
    temperature = column([1.0 if row.greedy else row.request.temperature for row in rows])
    top_k = column([k or vocabulary for k in wanted])
    scores = (values / temperature).masked_fill(place >= top_k, -torch.inf)
    chances = scores.softmax(-1)
    before = chances.cumsum(-1) - chances
    chances = chances.masked_fill(before >= column([row.request.top_p for row in rows]), 0.0)
    chances = chances.masked_fill(chances < column([row.request.min_p for row in rows]) * chances[:, :1], 0.0)
    reached = chances.cumsum(-1)
    # Drawn in float64: in float32 a draw may round up to the whole sum.
    drawn = column([row.draw() for row in rows]).to(reached.dtype) * reached[:, -1:]
    picked = (reached <= drawn).sum(-1, keepdim=True)
    last = (chances > 0).sum(-1, keepdim=True) - 1
    found = tokens.gather(-1, torch.minimum(picked, last).clamp(min=0)).masked_fill(last < 0, _NO_TOKEN)
    return list(found.squeeze(-1).tolist())


def log_probabilities(logits: torch.Tensor, tokens: Sequence[int], most: int) -> list[Any]:
    """For each row: the log probability of its token, and the likeliest `most` tokens with theirs."""
    scores = logits.float().log_softmax(-1)
    mine = scores.gather(-1, torch.tensor(tokens, device=logits.device)[:, None]).squeeze(-1).tolist()
    if most == 0:
        return [(value, []) for value in mine]
    values, places = scores.topk(most, dim=-1)
    return [
        (value, list(zip(others, numbers, strict=True)))
        for value, others, numbers in zip(mine, places.tolist(), values.tolist(), strict=True)
    ]
