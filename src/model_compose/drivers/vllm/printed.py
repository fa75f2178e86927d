"""What did the engine print before it failed?

Its processes tell their reasons to nobody else. While a model loads, what is printed goes through pipes that
remember the last lines, and pass everything on.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections import deque
from typing import Final

_LINES: Final = 400
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
#: `(EngineCore pid=7) ERROR 11-26 10:00:00 [core.py:1]`, or less of it.
_PREFIX: Final = re.compile(r"^(\([^)]*\) ?)?(ERROR \S+ \S+ \[[^\]]*\] ?)?")
#: The last line of a traceback. What is told further up is the cause of it.
_RAISED: Final = re.compile(r"(?P<kind>[A-Za-z_.]*(?:Error|Exception)): (?P<why>\S.*)")
#: What one process says of another that has failed, whose own words may come sooner or later.
_PASSED_ON: Final = re.compile(r"Worker failed with error '(.*)', please check the stack trace above.*")
#: These say that something else said why.
_NO_REASONS: Final = ("see root cause", "See root cause", "initialization failed", "See stack trace")


class Printed:
    """What this process and those that it starts print, from now on."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._kept = {number: self._divert(number) for number in (1, 2)}

    def _divert(self, number: int) -> int:
        """Put a pipe before a file descriptor; -> where it leads to."""
        reading, writing = os.pipe()
        kept = os.dup(number)
        os.dup2(writing, number)
        os.close(writing)
        threading.Thread(target=self._pass_on, args=(reading, kept), name="printed", daemon=True).start()
        return kept

    def _pass_on(self, reading: int, kept: int) -> None:
        rest = b""
        while piece := os.read(reading, 1 << 16):
            os.write(kept, piece)
            *lines, rest = (rest + piece).split(b"\n")
            self._lines.extend(line.decode(errors="replace") for line in lines)
        os.close(reading)

    def release(self) -> None:
        """Give this process its own outputs back; what the others print is still passed on."""
        sys.stdout.flush()
        sys.stderr.flush()
        for number, kept in self._kept.items():
            os.dup2(kept, number)

    def reason(self) -> str | None:
        """Why the engine failed, as far as it was printed."""
        return reason_in(list(self._lines))


def reason_in(lines: list[str]) -> str | None:
    """The last thing that was raised in what an engine printed, and that is a reason."""
    for line in reversed(lines):
        text = _PREFIX.sub("", _COLOUR.sub("", line)).strip()
        match = _RAISED.match(text)
        if match is not None and not any(words in text for words in _NO_REASONS):
            passed_on = _PASSED_ON.fullmatch(match["why"])
            return passed_on[1] if passed_on else f"{match['kind'].rpartition('.')[2]}: {match['why']}"
    return None
