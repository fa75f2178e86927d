"""How is a ratio of two noisy things reported?

The two are measured in pairs, one right after the other and in changing order; the ratio is taken
pair by pair, so that a machine that gets slower in between does not show. The interval is a bootstrap
over the pairs.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Ratio(NamedTuple):
    """The median of the ratios of pairs, and a 95 % interval of it."""

    median: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.median:.3f}  [{self.low:.3f}, {self.high:.3f}]  ({self.pairs} pairs)"


def ratio(ours: Sequence[float], reference: Sequence[float], resamples: int = 5000) -> Ratio:
    """The ratio of paired measurements."""
    pairs = [a / b for a, b in zip(ours, reference, strict=True)]
    generator = random.Random(0)
    medians = sorted(statistics.median(generator.choices(pairs, k=len(pairs))) for _ in range(resamples))
    return Ratio(
        statistics.median(pairs), medians[int(resamples * 0.025)], medians[int(resamples * 0.975)], len(pairs)
    )


class Report:
    """Lines of a table: what, ours, reference, ratio, and whether it is what we promise."""

    def __init__(self) -> None:
        self.missed: list[str] = []

    def title(self, text: str) -> None:
        print(f"\n{text}\n{'-' * len(text)}", flush=True)

    def compare(
        self,
        what: str,
        ours: Sequence[float],
        reference: Sequence[float],
        unit: str,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> Ratio:
        """Report a paired comparison against a bound on its ratio."""
        found = ratio(ours, reference)
        bound = f">= {at_least}" if at_least is not None else f"<= {at_most}" if at_most is not None else ""
        met = not (at_least is not None and found.median < at_least) and not (
            at_most is not None and found.median > at_most
        )
        values = f"{statistics.median(ours):10.1f} / {statistics.median(reference):.1f} {unit}"
        self._line(what, values, f"{found}  {bound}", met)
        return found

    def single(
        self,
        what: str,
        values: Sequence[float],
        unit: str,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """Report a figure of its own: median and range."""
        median = statistics.median(values)
        bound = f">= {at_least}" if at_least is not None else f"<= {at_most}" if at_most is not None else ""
        met = (at_least is None or median >= at_least) and (at_most is None or median <= at_most)
        spread = f"[{min(values):.4g}, {max(values):.4g}]"
        self._line(what, f"{median:10.4g} {unit}", f"{spread}  {bound}", met)

    def _line(self, what: str, values: str, rest: str, met: bool) -> None:
        if not met:
            self.missed.append(what)
        print(f"{'ok  ' if met else 'MISS'} {what:<52} {values:<34} {rest}", flush=True)
