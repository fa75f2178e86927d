"""Keys and values in slots: what was written to a cell is read from it, wherever its sequence lies."""

from __future__ import annotations

import torch

from model_compose.drivers.huggingface.cache import SlotCache

HEADS, WIDTH = 2, 3


def states(*rows: list[float]) -> torch.Tensor:
    """Keys whose numbers are all the same in a cell: `[rows, heads, cells, width]`."""
    return torch.tensor(rows)[:, None, :, None].expand(-1, HEADS, -1, WIDTH).clone()


def written(cache: SlotCache, first: int, starts: list[int], *rows: list[float]) -> list[list[float]]:
    cache.aim(first, starts, len(rows[0]))
    keys, values = cache.update(states(*rows), states(*rows) * 10, 0)
    assert torch.equal(values, keys * 10)
    assert torch.equal(keys, keys[:, :1, :, :1].expand_as(keys))
    found: list[list[float]] = keys[:, 0, :, 0].tolist()
    return found


def test_cells_are_read_back_behind_those_before_them() -> None:
    cache = SlotCache(1000)
    assert written(cache, 0, [0, 0], [1, 2], [5, 6]) == [[1, 2], [5, 6]]
    assert written(cache, 0, [2, 2], [3], [7]) == [[1, 2, 3], [5, 6, 7]]
    assert written(cache, 1, [3], [8]) == [[5, 6, 7, 8]]


def test_sequences_of_different_lengths_are_written_where_each_ends() -> None:
    cache = SlotCache(1000)
    written(cache, 0, [0], [1, 2, 3])
    written(cache, 1, [0], [5, 6, 7])
    assert written(cache, 0, [1, 3], [9], [8]) == [[1, 9, 3, 0], [5, 6, 7, 8]]


def test_growing_keeps_what_is_there() -> None:
    cache = SlotCache(100_000)
    written(cache, 0, [0], [1, 2])
    long = [float(i) for i in range(500)]
    written(cache, 3, [0], long)
    assert written(cache, 0, [2], [3]) == [[1, 2, 3]]
    assert written(cache, 3, [500], [7]) == [[*long, 7]]


def test_it_does_not_grow_in_advance_beyond_its_budget() -> None:
    cache = SlotCache(100)
    written(cache, 0, [0], [1.0] * 60)
    written(cache, 1, [0], [1.0] * 60)
    assert cache.size_bytes == 2 * 2 * 60 * HEADS * WIDTH * 4


def test_a_sequence_can_be_moved() -> None:
    cache = SlotCache(1000)
    written(cache, 0, [0, 0], [1, 2], [5, 6])
    cache.move(1, 0, 2)
    assert written(cache, 0, [2], [7]) == [[5, 6, 7]]


def test_nothing_is_held_after_clearing() -> None:
    cache = SlotCache(1000)
    written(cache, 0, [0], [1, 2])
    assert cache.size_bytes > 0
    cache.clear()
    assert cache.size_bytes == 0
    assert written(cache, 0, [0], [3]) == [[3]]
