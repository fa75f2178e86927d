"""Which events does a stream of bytes consist of, however it is cut?

Every decoder takes bytes as they come and gives what is complete; `end` gives the rest. Sources:
https://html.spec.whatwg.org/multipage/server-sent-events.html and https://jsonlines.org
"""

from __future__ import annotations

import codecs
from typing import Any, Final, NamedTuple, Protocol

import msgspec

_BOM: Final = codecs.BOM_UTF8
_decode = msgspec.json.Decoder().decode


class TooLong(Exception):
    """An event, or what is taken as a whole, has more bytes than are taken."""


class Event(NamedTuple):
    """A server-sent event: its name, `message` if it has none, and its data lines joined by newlines."""

    name: bytes
    data: bytes


class Decoder(Protocol):
    """Makes pieces of bytes."""

    def feed(self, data: bytes) -> list[Any]:
        """What is complete with these bytes. Raises TooLong."""

    def end(self) -> list[Any]:
        """What the rest comes to."""


class Lines:
    """Complete lines, without their ends."""

    def __init__(self, limit: int, *, returns: bool) -> None:
        self._limit = limit
        #: Whether a carriage return alone ends a line too.
        self._returns = returns
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Lines that are complete now."""
        data = self._rest + data if self._rest else data
        held = b""
        if self._returns and b"\r" in data:
            if data.endswith(b"\r"):  # the newline that may follow belongs to it
                data, held = data[:-1], b"\r"
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = data.split(b"\n")
        self._rest = rest + held
        if len(self._rest) > self._limit:
            raise TooLong
        return lines

    def end(self) -> list[bytes]:
        """The last line, if it has no end."""
        rest, self._rest = self._rest, b""
        if self._returns and rest.endswith(b"\r"):
            rest = rest[:-1]
            return [rest]
        return [rest] if rest else []


class ServerSentEvents:
    """Events of `text/event-stream`; comments, ids and retry times are dropped."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lines = Lines(limit, returns=True)
        self._name = b""
        self._data: list[bytes] = []
        self._size = 0
        self._start = True

    def feed(self, data: bytes) -> list[Event]:
        return self._of(self._lines.feed(data))

    def end(self) -> list[Event]:
        """The last event, of servers that forget the empty line after it."""
        return self._of([*self._lines.end(), b""])

    def _of(self, lines: list[bytes]) -> list[Event]:
        events = []
        for line in lines:
            if self._start:
                self._start, line = False, line.removeprefix(_BOM)
            if line.startswith(b"data:"):
                value = line[6:] if line[5:6] == b" " else line[5:]
                self._data.append(value)
                self._size += len(value)
                if self._size > self._limit:
                    raise TooLong
            elif not line:
                if self._data:
                    whole = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                    events.append(Event(self._name or b"message", whole))
                    self._data, self._size = [], 0
                self._name = b""
            elif line.startswith(b"event:"):
                self._name = line[6:].strip()
            elif line == b"data":
                self._data.append(b"")
            elif line.startswith(b"error:"):  # llama.cpp's way to say `event: error`
                self._name = b"error"
                self._data.append(line[6:].strip())
        return events


class JsonLines:
    """Values of newline-delimited JSON; or the one of an ordinary JSON text, line breaks and all.

    count    values so far
    skipped  lines after the first that are no JSON
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lines = Lines(limit, returns=False)
        #: Lines of what is no value line by line, from the first on.
        self._text: list[bytes] = []
        self._size = 0
        self.count = 0
        self.skipped = 0

    def feed(self, data: bytes) -> list[Any]:
        return self._of(self._lines.feed(data))

    def end(self) -> list[Any]:
        """The last value. Raises msgspec.DecodeError if nothing of it all was JSON."""
        values = self._of(self._lines.end())
        if self._text:
            values.append(_decode(b"\n".join(self._text)))
            self.count += 1
        return values

    def _of(self, lines: list[bytes]) -> list[Any]:
        values = []
        for line in lines:
            if self._text:
                self._keep(line)
            elif line and not line.isspace():
                try:
                    values.append(_decode(line if self.count else line.removeprefix(_BOM)))
                    self.count += 1
                except msgspec.DecodeError:
                    if self.count:
                        self.skipped += 1
                    else:
                        self._keep(line)
        return values

    def _keep(self, line: bytes) -> None:
        self._text.append(line)
        self._size += len(line) + 1
        if self._size > self._limit:
            raise TooLong


class Text:
    """Characters of a text; one that is cut in the middle waits for its rest."""

    def __init__(self, encoding: str) -> None:
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")

    def feed(self, data: bytes) -> list[str]:
        text = self._decoder.decode(data)
        return [text] if text else []

    def end(self) -> list[str]:
        text = self._decoder.decode(b"", final=True)
        return [text] if text else []
