"""How does text look on a terminal, and how in a pipe?"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from model_compose.errors import ModelComposeError, Note

Style = Literal["bold", "dim", "red", "green", "yellow", "blue", "cyan"]

_CODES: Final[dict[Style, str]] = {
    "bold": "1",
    "dim": "2",
    "red": "1;31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "cyan": "36",
}
_LABELS: Final[dict[str, Style]] = {"error:": "red", "warning:": "yellow", "note:": "blue", "hint:": "cyan"}


def is_live(stream: IO[str]) -> bool:
    """Whether somebody looks at a stream who can be shown something that moves."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def has_colour(stream: IO[str]) -> bool:
    """Whether colours are seen, and wanted (https://no-color.org)."""
    return is_live(stream) and not os.environ.get("NO_COLOR")


def paint(text: str, style: Style, stream: IO[str]) -> str:
    """The text in a colour, where the stream has colours."""
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m" if text and has_colour(stream) else text


def say(text: str, stream: IO[str] | None = None) -> None:
    """Print a line at once."""
    stream = stream or sys.stdout
    stream.write(text + "\n")
    stream.flush()


def say_json(value: Any) -> None:
    """Print a value as indented JSON; what JSON does not have, such as paths, as text."""
    import msgspec

    say(msgspec.json.format(msgspec.json.encode(value, enc_hook=str)).decode())


def say_error(error: ModelComposeError, stream: IO[str] | None = None) -> None:
    """Print an error of ours, or all mistakes of a file, on stderr."""
    from model_compose.frames import render

    stream = stream or sys.stderr
    say(_painted(render(error).rstrip("\n"), stream), stream)


def say_warning(note: Note, stream: IO[str] | None = None) -> None:
    """Print a warning with its place on stderr."""
    from model_compose.errors import ConfigError
    from model_compose.frames import render

    stream = stream or sys.stderr
    text = render(ConfigError(note.message, place=note.place)).rstrip("\n")
    say(_painted("warning:" + text.removeprefix("error:"), stream), stream)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines in which the cells of each column begin at the same place."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return ["   ".join(row).rstrip() for row in padded]


def fitted(line: str, stream: IO[str]) -> str:
    """A line cut to the width of a terminal; whole in a pipe."""
    width = shutil.get_terminal_size().columns
    return f"{line[: width - 1]}…" if is_live(stream) and len(line) > width else line


def span(seconds: float) -> str:
    """`42 s`, `5 min`, `3 h`, `2 d`: a time for people."""
    for unit, length, enough in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
        if seconds < enough * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def _painted(text: str, stream: IO[str]) -> str:
    """What `frames.render` gave, in colours: labels, arrows, gutters and carets."""
    return "\n".join(_painted_line(line, stream) for line in text.split("\n")) if has_colour(stream) else text


def _painted_line(line: str, stream: IO[str]) -> str:
    label, space, rest = line.partition(" ")
    if label in _LABELS:
        message = paint(rest, "bold", stream) if label == "error:" else rest
        return paint(label, _LABELS[label], stream) + space + message
    if line.lstrip().startswith("--> "):
        return paint(line, "blue", stream)
    gutter, bar, code = line.partition(" |")
    if bar and not gutter.strip("0123456789 "):
        return paint(gutter + bar, "blue", stream) + (
            paint(code, "red", stream) if not code.strip(" ^") else code
        )
    return line
