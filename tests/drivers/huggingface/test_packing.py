"""Does every text of a batch get its place, at little cost?"""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from model_compose.drivers.huggingface.packing import bins, groups

LENGTHS = st.lists(st.integers(1, 100), min_size=1, max_size=40)
FEW = st.lists(st.integers(1, 100), min_size=1, max_size=7)


@given(lengths=LENGTHS, width=st.integers(1, 120))
def test_every_text_is_in_one_row_that_it_fits_in(lengths: list[int], width: int) -> None:
    rows = bins(lengths, width)
    assert sorted(itertools.chain(*rows)) == list(range(len(lengths)))
    assert all(len(row) == 1 or sum(lengths[i] for i in row) <= width for row in rows)


@given(lengths=LENGTHS, width=st.integers(100, 300))
def test_no_two_rows_could_be_one(lengths: list[int], width: int) -> None:
    filled = [sum(lengths[i] for i in row) for row in bins(lengths, width)]
    assert all(a + b > width for a, b in itertools.combinations(filled, 2))


@given(lengths=LENGTHS, overhead=st.integers(0, 200))
def test_every_text_is_in_one_group_of_neighbours(lengths: list[int], overhead: int) -> None:
    found = groups(lengths, overhead)
    assert sorted(itertools.chain(*found)) == list(range(len(lengths)))
    ordered = [lengths[i] for group in found for i in group]
    assert ordered == sorted(lengths, reverse=True)


@given(lengths=FEW, overhead=st.integers(0, 200))
def test_no_other_grouping_costs_less(lengths: list[int], overhead: int) -> None:
    def cost(parts: list[list[int]]) -> int:
        return sum(overhead + max(part) * len(part) for part in parts)

    ordered = sorted(lengths, reverse=True)
    every = []
    for cuts in itertools.product([False, True], repeat=len(ordered) - 1):
        parts = [[ordered[0]]]
        for length, cut in zip(ordered[1:], cuts, strict=True):
            if cut:
                parts.append([length])
            else:
                parts[-1].append(length)
        every.append(cost(parts))
    assert cost([[lengths[i] for i in group] for group in groups(lengths, overhead)]) == min(every)


def test_equal_texts_go_through_together() -> None:
    assert groups([7, 7, 7, 7], 40) == [[0, 1, 2, 3]]
    assert groups([100, 5, 100, 5], 40) == [[0, 2], [1, 3]]
