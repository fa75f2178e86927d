"""Progress that remembers, and can stop a download at a certain byte."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Recorder:
    """`bytes` counts what arrived, and what was there `already`."""

    def __init__(self, on_advance: Callable[[int], None] | None = None) -> None:
        self.calls: list[str] = []
        self.label = ""
        self.total_bytes: int | None = None
        self.already = 0
        self.bytes = 0
        self._on_advance = on_advance

    def start(self, label: str, total_bytes: int | None, already: int = 0) -> None:
        self.calls.append("start")
        self.label, self.total_bytes, self.already, self.bytes = label, total_bytes, already, already

    def advance(self, n: int) -> None:
        self.bytes += n
        if self._on_advance is not None:
            self._on_advance(self.bytes)

    def finish(self) -> None:
        self.calls.append("finish")


def cancelling_after(n_bytes: int) -> tuple[Recorder, threading.Event]:
    """A recorder that cancels as soon as so many bytes are there."""
    cancel = threading.Event()
    return Recorder(lambda there: cancel.set() if there >= n_bytes else None), cancel
