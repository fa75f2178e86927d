"""How does a model compute once for nobody, before its first request?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from model_compose.drivers.contract import Item, LoadOptions, LoadProgress, Step

_WARMING: Final = "warm-up"


class Alone:
    """The `Step` of a forward pass that nobody waits for."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def emit(self, i: int, chunk: Any) -> None:
        """Nobody listens."""

    def progress(self, i: int, done: int, total: int) -> None:
        """Nobody watches."""

    def cancelled(self, i: int) -> bool:
        """Nobody goes away."""
        return False


def warm_up(
    items: Sequence[Item],
    forward: Callable[[Sequence[Item], Step], Sequence[Any]],
    options: LoadOptions,
    progress: LoadProgress,
) -> None:
    """Compute once before the first request, if the file says so."""
    if options.warmup:
        progress(_WARMING, 0, 1)
        forward(items, Alone(options.threads))
        progress(_WARMING, 1, 1)
