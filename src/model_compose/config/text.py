"""How do the bytes of a file become text, and where in that text does something stand?"""

from __future__ import annotations

import bisect
import re
from pathlib import Path

from model_compose.errors import ConfigError, ConfigErrors, Place

MAX_BYTES = 10_000_000

# What YAML 1.1 calls a line break, because PyYAML counts lines that way.
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
# What libyaml refuses; it names no line for it, so we look first.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")

_SURROGATE = re.compile("[\ud800-\udfff]")
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class Source:
    """A text with a name, and places in it.

    Lines and columns are 0-based here, as PyYAML counts them, and 1-based in a `Place`.
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        breaks = list(_BREAK.finditer(text))
        self._starts = [0, *(each.end() for each in breaks)]
        ends = [*(each.start() for each in breaks), len(text)]
        shown = _UNPRINTABLE.sub("\ufffd", text)  # a terminal must not see them
        self.lines = [shown[start:end] for start, end in zip(self._starts, ends, strict=True)]

    def offset(self, line: int, column: int) -> int:
        """The offset of a position in the text."""
        if line == len(self._starts):  # libyaml ends a last line that has no break
            return len(self.text)
        return self._starts[line] + column

    def position(self, offset: int) -> tuple[int, int]:
        """The line and column of an offset in the text."""
        line = bisect.bisect_right(self._starts, offset) - 1
        return line, offset - self._starts[line]

    def start_of_line(self, offset: int) -> int:
        """The offset at which the line of an offset begins."""
        return offset - self.position(offset)[1]

    def place(self, start: int, end: int) -> Place:
        """The place of `text[start:end]`, or of what its first line has of it."""
        line, column = self.position(start)
        text = self.lines[line]
        end_column = max(column, min(column + end - start, len(text)))
        return Place(self.name, line + 1, column + 1, end_column + 1, text)

    def character(self, offset: int) -> Place:
        """The place of one character."""
        return self.place(offset, offset + 1)

    def rest_of_line(self, offset: int) -> Place:
        """The place from an offset to the end of its line, without the space there."""
        line, column = self.position(offset)
        return self.place(offset, offset + len(self.lines[line][column:].rstrip()))

    def content(self, start: int, end: int) -> Place:
        """The place of the first line with text in a block scalar that spans `start` to `end`."""
        first, _ = self.position(start)
        last, _ = self.position(max(start, end - 1))
        for line in range(first + 1, last + 1):
            text = self.lines[line]
            if text.strip():
                return self.rest_of_line(self._starts[line] + len(text) - len(text.lstrip()))
        return self.place(start, end)

    def unprintable(self) -> ConfigError | None:
        """A mistake, when there is a character that YAML does not allow."""
        found = _UNPRINTABLE.search(self.text)
        if found is None:
            return None
        code = ord(found[0])
        return ConfigError(
            f"the character `U+{code:04X}` is not allowed in YAML",
            hint=f'remove it, or write it as `"\\u{code:04x}"`, in double quotes',
            place=self.place(*found.span()),
        )


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: whether no half of a surrogate pair stands in it."""
    return text.isascii() or _SURROGATE.search(text) is None


def read_text(path: Path, name: str) -> str:
    """The text of a UTF-8 file, with or without a byte order mark; errors call the file `name`.

    Raises ConfigErrors.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigErrors([ConfigError(f"there is no file `{name}`")]) from None
    except IsADirectoryError:
        hint = "name a file in it"
        raise ConfigErrors([ConfigError(f"`{name}` is a folder", hint=hint)]) from None
    except OSError as error:
        raise ConfigErrors([ConfigError(f"`{name}` cannot be read: {error.strerror}")]) from None
    except ValueError as error:  # a path with a null character in it
        raise ConfigErrors([ConfigError(f"`{name}` cannot be read: {error}")]) from None
    if len(content) > MAX_BYTES:
        raise ConfigErrors([ConfigError(f"`{name}` is larger than {MAX_BYTES // 1_000_000} MB")])
    if content.startswith(_UTF_16_MARKS):
        raise ConfigErrors([ConfigError(f"`{name}` is UTF-16 text", hint="save it as UTF-8")])
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = Source(name, content[: error.start].decode().removeprefix("\ufeff"))
        place = before.place(len(before.text), len(before.text))
        message = f"`{name}` is not UTF-8: byte `0x{content[error.start]:02x}` at offset {error.start}"
        raise ConfigErrors([ConfigError(message, hint="save it as UTF-8", place=place)]) from None
