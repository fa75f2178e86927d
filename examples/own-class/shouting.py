"""Says whether a text shouts: the smallest model that is not a toy of one method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec


class Shouting:
    class Options(msgspec.Struct):
        least: int = 2

    class Params(msgspec.Struct):
        least: int | None = None

    def load(self, options: Any) -> None:
        self.least = options.options.least

    def prepare(self, request: Any) -> tuple[int, int]:
        """On a CPU thread, while the batch before computes: capital letters, and how many are needed."""
        least = self.least if request.params.least is None else request.params.least
        return sum(letter.isupper() for letter in request.text), least

    def forward(self, batch: Sequence[tuple[int, int]]) -> list[bool]:
        """Texts of all callers that wait, at once: a network would stand here."""
        return [count >= least for count, least in batch]

    def finish(self, request: Any, shouts: bool) -> dict[str, Any]:
        """On a CPU thread again: the fields of the task's result."""
        return {"label": "shouting" if shouts else "calm", "score": 1.0, "label_id": int(shouts)}
