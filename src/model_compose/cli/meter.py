"""How does somebody at a terminal see how far a run is?"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import IO, Final

from model_compose.cli.terminal import fitted, is_live, span

_WIDTH: Final = 24
_ERASE: Final = "\r\x1b[K"


class Meter:
    """Draws a bar on the last line of a terminal, and erases it at the end; elsewhere it draws nothing."""

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._first: tuple[int, float] | None = None
        self._last = 0
        self._drawn = False

    def __call__(self, done: int, total: int) -> None:
        """It is that far."""
        if not is_live(self._stream) or total <= 0:
            return
        if done >= total:
            self.clear()
            self._first = None  # what comes next is something else
            return
        if self._first is None or done < self._last:
            self._first = (done, self._clock())
        self._last = done
        self._drawn = True
        self._write(f"{_ERASE}{fitted(self._text(done, total), self._stream)}")

    def _text(self, done: int, total: int) -> str:
        assert self._first is not None
        full = _WIDTH * done // total
        before, began = self._first
        took_s = self._clock() - began
        left = f", {span(took_s / (done - before) * (total - done))} left" if done > before else ""
        return f"{'━' * full}{'─' * (_WIDTH - full)} {done} of {total}{left}"

    def clear(self) -> None:
        """Take it off the screen, for what is printed next."""
        if self._drawn:
            self._drawn = False
            self._write(_ERASE)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()
