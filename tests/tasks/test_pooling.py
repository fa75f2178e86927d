"""Do the vectors of tokens become what their definitions say?"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model_compose.tasks.text_embedding.pooling import MODES, pool, without_prompt

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=5)
SEEDS = st.integers(0, 2**31)


def batch(lengths: list[int], seed: int, filler: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random vectors for rows of these lengths; behind them stands `filler`."""
    width, dim = max(lengths), 3
    hidden = torch.randn(len(lengths), width, dim, generator=torch.Generator().manual_seed(seed))
    mask = (torch.arange(width) < torch.tensor(lengths).unsqueeze(1)).long()
    return hidden.masked_fill(mask.unsqueeze(-1) == 0, filler), mask


def by_hand(mode: str, tokens: list[list[float]]) -> list[float]:
    """The definition, for one row without padding."""
    count = len(tokens)
    weights = {
        "cls": [1.0] + [0.0] * (count - 1),
        "lasttoken": [0.0] * (count - 1) + [1.0],
        "mean": [1 / count] * count,
        "mean_sqrt_len_tokens": [1 / math.sqrt(count)] * count,
        "weightedmean": [2 * (i + 1) / (count * (count + 1)) for i in range(count)],
    }
    columns = list(zip(*tokens, strict=True))
    if mode == "max":
        return [max(column) for column in columns]
    return [sum(w * x for w, x in zip(weights[mode], column, strict=True)) for column in columns]


@pytest.mark.parametrize("mode", MODES)
@given(lengths=LENGTHS, seed=SEEDS)
@settings(deadline=None)
def test_a_row_is_pooled_as_its_definition_says(mode: str, lengths: list[int], seed: int) -> None:
    hidden, mask = batch(lengths, seed)
    found = pool(hidden, mask, [mode])
    for row, vectors, length in zip(found.tolist(), hidden, lengths, strict=True):
        assert row == pytest.approx(by_hand(mode, vectors[:length].tolist()), abs=1e-5)


@pytest.mark.parametrize("mode", MODES)
@given(lengths=LENGTHS, seed=SEEDS, filler=st.sampled_from([-1e4, 1e4, 7.0]))
@settings(deadline=None)
def test_padding_changes_nothing(mode: str, lengths: list[int], seed: int, filler: float) -> None:
    plain, mask = batch(lengths, seed)
    filled, _ = batch(lengths, seed, filler)
    assert torch.allclose(pool(filled, mask, [mode]), pool(plain, mask, [mode]), atol=1e-5)


@given(lengths=LENGTHS, seed=SEEDS, modes=st.lists(st.sampled_from(list(MODES)), min_size=1, max_size=3))
@settings(deadline=None)
def test_vectors_of_several_modes_stand_side_by_side(lengths: list[int], seed: int, modes: list[str]) -> None:
    hidden, mask = batch(lengths, seed)
    parts = torch.chunk(pool(hidden, mask, modes), len(modes), dim=-1)
    assert [
        torch.equal(part, pool(hidden, mask, [mode])) for part, mode in zip(parts, modes, strict=True)
    ] == [True] * len(modes)


@pytest.mark.parametrize("mode", ["cls", "lasttoken", "mean", "mean_sqrt_len_tokens", "max"])
@given(lengths=LENGTHS, seed=SEEDS, skipped=st.integers(0, 4))
@settings(deadline=None)
def test_a_prompt_that_does_not_count_might_as_well_not_be_there(
    mode: str, lengths: list[int], seed: int, skipped: int
) -> None:
    longer = [length + skipped for length in lengths]
    hidden, mask = batch(longer, seed)
    found = pool(hidden, without_prompt(mask, [skipped] * len(longer)), [mode])
    assert torch.allclose(found, pool(hidden[:, skipped:], mask[:, skipped:], [mode]), atol=1e-5)


def test_half_precision_does_not_lose_long_texts() -> None:
    hidden = torch.ones(1, 4096, 2, dtype=torch.float16)
    assert pool(hidden, torch.ones(1, 4096, dtype=torch.long), ["mean"]).tolist() == [[1.0, 1.0]]
