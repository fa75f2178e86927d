"""What does a service say while it runs, and how does it look?

Everything goes into the log file as JSON lines; on the screen it is text, unless JSON is asked for.
"""

from __future__ import annotations

import logging
import logging.handlers
import select
import threading
import traceback
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

import msgspec

from model_compose.cli.terminal import paint

_FILE_BYTES: Final = 10_000_000
_OLD_FILES: Final = 3
#: Lines that wait for a slow reader of the screen.
MOST_UNPRINTED: Final = 1000
#: The end of a service waits so long for somebody to read its last lines.
LAST_LINES_S: Final = 0.5
#: Characters: in UTF-8 not more bytes than a pipe takes at once whenever it takes any.
_PIECE: Final = 1024
_LOOK_S: Final = 0.1
_WORKER: Final = "model_compose.worker."
#: What lines without a component are about.
_SERVICE: Final = "service"


class LogLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the log.

    component  what it is about; None for the service as a whole
    task_id    the run that it is about
    trace      a Python traceback
    """

    time: datetime
    level: str
    message: str
    component: str | None = None
    task_id: str | None = None
    trace: str | None = None

    @classmethod
    def of(cls, record: logging.LogRecord) -> LogLine:
        """A record of Python's logging. What a worker prints is logged under its component's name."""
        component = getattr(record, "component", None)
        if component is None and record.name.startswith(_WORKER):
            component = record.name.removeprefix(_WORKER)
        return cls(
            datetime.fromtimestamp(record.created, UTC),
            record.levelname.lower(),
            record.getMessage(),
            component,
            getattr(record, "task_id", None),
            "".join(traceback.format_exception(*record.exc_info)).rstrip() if record.exc_info else None,
        )


class LogText:
    """Log lines as text: `12:03:44 chat | ready`. The column of names grows with the names."""

    def __init__(self, stream: IO[str], names: tuple[str, ...] = ()) -> None:
        self._stream = stream
        self._width = max(map(len, (*names, _SERVICE)))

    def __call__(self, line: LogLine) -> str:
        """The text of a line, without its end; several lines if the message or a traceback has them."""
        name = line.component or _SERVICE
        self._width = max(self._width, len(name))
        text = line.message if line.trace is None else f"{line.message}\n{line.trace}"
        first, *others = text.split("\n")
        if line.level in ("error", "critical"):
            first = paint("error: ", "red", self._stream) + first
        elif line.level == "warning":
            first = paint("warning: ", "yellow", self._stream) + first
        at = paint(f"{line.time.astimezone():%H:%M:%S}", "dim", self._stream)
        bar = paint("|", "dim", self._stream)
        who = paint(name.ljust(self._width), "cyan" if line.component else "dim", self._stream)
        indent = " " * (len("00:00:00 ") + self._width)
        return "\n".join([f"{at} {who} {bar} {first}", *(f"{indent} {bar} {other}" for other in others)])


def as_json(line: LogLine) -> str:
    """A line as JSON."""
    return msgspec.json.encode(line).decode()


class Screen(logging.Handler):
    """Prints lines on a stream, asked for anew each time: bars that are drawn stand in for stdout.

    It prints from a thread of its own: a reader that stops reading, as behind a full pipe or after
    Ctrl-S, stops nothing but the printing. Lines that do not fit into the memory set aside for them are
    dropped, and their number is told.
    """

    def __init__(self, stream: Callable[[], IO[str]], form: Callable[[LogLine], str]) -> None:
        super().__init__()
        self._stream = stream
        self._form = form
        self._lines: deque[LogLine] = deque()
        self._lost = 0
        self._more = threading.Condition()
        self._closed = False
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="screen", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Have a record printed, soon."""
        try:
            line = LogLine.of(record)
        except Exception:  # noqa: BLE001  logging must not break what is logged, says Python's own
            self.handleError(record)
            return
        with self._more:
            if len(self._lines) < MOST_UNPRINTED:
                self._tell_of_lost()
                self._lines.append(line)
                self._more.notify()
            else:
                self._lost += 1

    def close(self) -> None:
        """Print what is left, unless nobody reads it within `LAST_LINES_S`."""
        with self._more:
            self._closed = True
            self._more.notify()
        self._thread.join(LAST_LINES_S)
        self._given_up.set()
        self._thread.join()
        super().close()

    def _run(self) -> None:
        try:
            while (line := self._next()) is not None:
                self._print(self._form(line) + "\n")
        except (BrokenPipeError, _GivenUp):  # the reader has gone, as `head` does, or does not read
            logging.getLogger().removeHandler(self)

    def _next(self) -> LogLine | None:
        """The next line, once there is one; None after the last."""
        with self._more:
            self._more.wait_for(lambda: self._lines or self._lost or self._closed)
            if not self._lines:
                self._tell_of_lost()
            return self._lines.popleft() if self._lines else None

    def _tell_of_lost(self) -> None:
        if self._lost:
            told = f"{self._lost} lines are not shown: they came faster than they were read"
            self._lines.append(LogLine(datetime.now(UTC), "warning", told))
            self._lost = 0

    def _print(self, text: str) -> None:
        stream = self._stream()
        for at in range(0, len(text), _PIECE):
            self._await_room(stream)
            stream.write(text[at : at + _PIECE])
            stream.flush()

    def _await_room(self, stream: IO[str]) -> None:
        """Wait until a piece can be written without blocking: a thread that blocks could not be ended."""
        try:
            number = stream.fileno()
        except OSError:  # not a file, so it never blocks
            return
        while not select.select([], [number], [], _LOOK_S)[1]:
            if self._given_up.is_set():
                raise _GivenUp


class _GivenUp(Exception):
    """Nobody reads."""


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return as_json(LogLine.of(record))


def set_up(*handlers: logging.Handler, level: int) -> None:
    """Log to these, and nowhere else, from this level on. Libraries are heard from warnings on."""
    root = logging.getLogger()
    root.handlers[:] = handlers
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger("model_compose").setLevel(level)


def file_handler(path: Path) -> logging.Handler:
    """Writes the log file; a full one is put aside as `service.log.1`."""
    handler = logging.handlers.RotatingFileHandler(
        path, maxBytes=_FILE_BYTES, backupCount=_OLD_FILES, encoding="utf-8"
    )
    handler.setFormatter(_JsonLines())
    return handler
