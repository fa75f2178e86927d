"""Which texts of a batch share a row, so that little is computed for padding? Pure.

Texts of a few words are what people send most, and of different lengths: padded to the longest, a third of a
batch is nothing. So several texts stand in one row, behind each other; the attention mask keeps them apart.
"""

from __future__ import annotations

from collections.abc import Sequence


def bins(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Indexes of the texts of each row: no row is longer than `width`, unless one text alone is.

    First fit, the longest first: at most 11/9 of the least number of rows, and one more.
    Source: Johnson 1973, Near-optimal bin packing algorithms.
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        for row, left in enumerate(free):
            if lengths[i] <= left:
                rows[row].append(i)
                free[row] -= lengths[i]
                break
        else:
            rows.append([i])
            free.append(width - lengths[i])
    return rows


def groups(lengths: Sequence[int], overhead: int) -> list[list[int]]:
    """Indexes of the texts that are padded together, in passes of their own, at the least cost.

    overhead  tokens that take as long as a pass by itself
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    # The least cost of all texts from here on, and where the group that begins here ends.
    least = [0.0] * (len(order) + 1)
    ends = [0] * len(order)
    for start in reversed(range(len(order))):
        longest = lengths[order[start]]
        least[start], ends[start] = min(
            (overhead + longest * (end - start) + least[end], end) for end in range(start + 1, len(order) + 1)
        )
    found: list[list[int]] = []
    start = 0
    while start < len(order):
        found.append(order[start : ends[start]])
        start = ends[start]
    return found
