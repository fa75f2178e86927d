"""Where does go what a server prints? Into a file, into our log, and its last lines into errors.

A thread of its own reads it, so that neither a flood of lines stops the service, nor a slow log the
server: what comes faster than the log takes it is only in the file, and the log says how much that was.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import select
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from model_compose.components.http_server.commands import Secrets

log = logging.getLogger(__name__)

#: Lines that are kept for an error message.
LAST_LINES: Final = 20
#: Lines that the log takes at once, and each second.
BURST: Final = 1000
LINES_PER_S: Final = 200.0
MAX_LINE_BYTES: Final = 1 << 16
_CHUNK: Final = 1 << 16
_FILE_BYTES: Final = 8 << 20
_OLD_FILES: Final = 2

#: Colours, and whatever else a terminal would obey.
_CONTROL: Final = re.compile(
    rb"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f]"
)
_ENDS: Final = re.compile(rb"[\r\n]+")


class LogFile:
    """A file that is put aside as `name.log.1` when it is full; of those, `_OLD_FILES` are kept."""

    def __init__(self, path: Path, *, full: int = _FILE_BYTES) -> None:
        self.path = path
        self._full = full
        self._file: IO[bytes] | None = None
        self._failed = False

    def write(self, data: bytes) -> None:
        """Add to it. What cannot be written is lost, which is told once."""
        if self._failed:
            return
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("ab")
            if self._file.tell() + len(data) > self._full and self._file.tell():
                self._put_aside()
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            self._failed = True
            log.warning("`%s` cannot be written: %s", self.path, error.strerror)

    def _put_aside(self) -> None:
        assert self._file is not None
        self._file.close()
        for number in range(_OLD_FILES, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            newer = self.path.with_name(f"{self.path.name}.{number - 1}") if number > 1 else self.path
            if newer.exists():
                newer.replace(older)
        self._file = self.path.open("ab")

    def close(self) -> None:
        """Close it; it can be written again."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


class Output:
    """What the processes of one component print, one after the other.

    file     None where nothing is kept
    secrets  are hidden everywhere
    """

    def __init__(self, component: str, file: LogFile | None, secrets: Secrets) -> None:
        self._extra = {"component": component}
        self.file = file
        self.secrets = secrets
        self._room = float(BURST)
        self._at = time.monotonic()
        self._lost = 0
        self._taking = threading.Lock()  # a process that ends may overlap with the next

    def say(self, level: int, message: str, *args: object) -> None:
        """Log something of our own about the component."""
        log.log(level, message, *args, extra=self._extra)

    def take(self, raw: bytes, last: deque[str]) -> None:
        """Keep whole lines."""
        text = self.secrets.hidden(raw)
        with self._taking:
            if self.file is not None:
                self.file.write(text)
            some, others = self._shared_out(text)
            last.extend(_said(_ENDS.split(text[-MAX_LINE_BYTES:])[-LAST_LINES - 1 :]))
            for line in some:
                log.info("%s", line, extra=self._extra)
            self._lost += others

    def _shared_out(self, text: bytes) -> tuple[Sequence[str], int]:
        """The lines of a text that the log gets now, and how many others there are."""
        now = time.monotonic()
        self._room = min(float(BURST), self._room + (now - self._at) * LINES_PER_S)
        self._at = now
        most = int(self._room)
        if most == 0:
            return (), _count(text)
        self.tell_of_lost()
        *parts, rest = _ENDS.split(text, maxsplit=most)
        lines = _said(parts)
        self._room -= len(lines)
        return lines, _count(rest)

    def tell_of_lost(self) -> None:
        """Say how much is in the file only."""
        if self._lost:
            where = f"; they are in `{self.file.path}`" if self.file is not None else ""
            log.warning("%d lines are not shown: they came too fast%s", self._lost, where, extra=self._extra)
            self._lost = 0

    def close(self) -> None:
        """Close the file."""
        self.tell_of_lost()
        if self.file is not None:
            self.file.close()


def _said(lines: Sequence[bytes]) -> list[str]:
    """Lines that say something, as plain text."""
    plain = (_CONTROL.sub(b"", line) for line in lines)
    return [said for line in plain if (said := line.decode(errors="replace").rstrip())]


def _count(text: bytes) -> int:
    return text.count(b"\n") + text.count(b"\r")


class Printed:
    """What one process prints. `fd` is its end of the pipe, which it inherits."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._read, self.fd = os.pipe()
        self._enough, self._stop = os.pipe()
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="output", daemon=True)
        self._thread.start()

    def handed_over(self) -> None:
        """The process has its end, or never will: ours is not needed."""
        os.close(self.fd)

    async def end(self, within_s: float) -> None:
        """Wait for its last words; somebody who left its group may hold the pipe for longer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._ended.wait()
        with contextlib.suppress(BrokenPipeError):
            os.write(self._stop, b".")
        await self._ended.wait()
        os.close(self._enough)
        os.close(self._stop)

    def last(self) -> str:
        """Its last lines, for the end of a message."""
        return "; its last lines:\n  " + "\n  ".join(self._last) if self._last else ""

    def _run(self) -> None:
        rest = b""
        try:
            while chunk := self._chunk():
                text = rest + chunk
                end = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
                if not end and len(text) > MAX_LINE_BYTES:
                    text, end = text + b"\n", len(text) + 1
                if end:
                    self._output.take(text[:end], self._last)
                rest = text[end:]
            if rest:
                self._output.take(rest + b"\n", self._last)
        finally:
            os.close(self._read)
            with contextlib.suppress(RuntimeError):  # the loop is gone, and nobody waits
                self._loop.call_soon_threadsafe(self._ended.set)

    def _chunk(self) -> bytes:
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        poll.register(self._enough, select.POLLIN)
        ready = dict(poll.poll())
        return b"" if self._enough in ready else os.read(self._read, _CHUNK)
