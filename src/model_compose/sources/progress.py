"""How does a download tell how far it is, and how is it stopped?"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from model_compose.errors import Cancelled


class Progress(Protocol):
    """Shown by whoever asked for a download: the command line as a bar, the service as log lines.

    The three are called in this order, from one thread; `finish` also after a failure.
    """

    def start(self, label: str, total_bytes: int | None, already: int = 0) -> None:
        """Begin one download; `total_bytes` is None when unknown, `already` bytes need not travel again."""

    def advance(self, n: int) -> None:
        """Count `n` further bytes; negative when a server made us start again."""

    def finish(self) -> None:
        """End this download."""


class Silent:
    """Progress that nobody watches."""

    def start(self, label: str, total_bytes: int | None, already: int = 0) -> None:
        pass

    def advance(self, n: int) -> None:
        pass

    def finish(self) -> None:
        pass


class Counted:
    """Progress that is shown, and told as well: bytes that are there, and of how many (0 if unknown)."""

    def __init__(self, shown: Progress, tell: Callable[[int, int], None]) -> None:
        self._shown = shown
        self._tell = tell

    def start(self, label: str, total_bytes: int | None, already: int = 0) -> None:
        self._total, self._there = total_bytes or 0, already
        self._tell(self._there, self._total)
        self._shown.start(label, total_bytes, already)

    def advance(self, n: int) -> None:
        self._there += n
        self._tell(self._there, self._total)
        self._shown.advance(n)

    def finish(self) -> None:
        self._shown.finish()


def stop_if(cancel: threading.Event) -> None:
    """Raise Cancelled when nobody wants the download any more. To be called between chunks."""
    if cancel.is_set():
        raise Cancelled("the download was cancelled")
