"""Where in the file does each character of a scalar stand?

Needed only for texts with `${` in them: the caret of an error should stand under the reference, also
when escapes or folded lines come before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from model_compose.config.text import Source
from model_compose.errors import Place

Spots = tuple[tuple[int, Place], ...]

_BREAK = "(?:\r\n|[\n\r\x85\u2028\u2029])"
_FOLD = rf"(?P<fold>[ \t]*(?:{_BREAK}[ \t]*)+)"
_PARTS = {
    "": _FOLD,
    "'": rf"{_FOLD}|(?P<escape>'')",
    '"': rf"{_FOLD}|(?P<joined>\\(?:{_BREAK}[ \t]*)+)|(?P<escape>\\(?:x..|u.{{4}}|U.{{8}}|.))",
}
"""What does not stand for itself in a scalar of each style."""

_LONGEST = 100_000
"""Characters. In a longer scalar, mistakes are told at its beginning."""


def spots(source: Source, style: str, start: int, end: int, value: str) -> Spots:
    """For rising offsets into `value`: the place from which on it stands there character by character.

    style   how the scalar is written: plain (empty), `'`, `"`, `|` or `>`
    start, end   offsets of the scalar in the source, with its quotes or its `|`
    """
    if end - start > _LONGEST:
        return ()
    if style in ("|", ">"):
        return _block_spots(source, start, end, value)
    quotes = len(style)
    found: list[tuple[int, Place]] = []
    offset = 0
    for at, length, size in _runs(source.text[start + quotes : end - quotes], style):
        if size:
            begin = start + quotes + at
            found.append((offset, source.place(begin, begin + length)))
        offset += size
    # A scalar that we read otherwise than PyYAML did has its beginning at least.
    return tuple(found) if offset == len(value) else ((0, source.place(start, end)),)


def _runs(raw: str, style: str) -> Iterator[tuple[int, int, int]]:
    """Pieces of a plain or quoted scalar: where each begins, its length, the characters it stands for."""
    verbatim = 0
    for part in re.finditer(_PARTS[style], raw):
        if part.start() > verbatim:
            yield verbatim, part.start() - verbatim, part.start() - verbatim
        yield part.start(), len(part[0]), _size(part)
        verbatim = part.end()
    if len(raw) > verbatim:
        yield verbatim, len(raw) - verbatim, len(raw) - verbatim


def _size(part: re.Match[str]) -> int:
    breaks = len(re.findall(_BREAK, part[0]))
    if part.lastgroup == "fold":  # one line break is a space, more of them are all but the first
        return max(1, breaks - 1)
    return breaks - 1 if part.lastgroup == "joined" else 1


def _block_spots(source: Source, start: int, end: int, value: str) -> Spots:
    """What stands on a line stands so in the value; only the space around it may differ."""
    found: list[tuple[int, Place]] = []
    offset = 0
    first, _ = source.position(start)
    last, _ = source.position(end)
    for number in range(first + 1, last + 1):
        line = source.lines[number]
        content = line.strip(" ")
        at = value.find(content, offset) if content else -1
        if at < 0:
            continue
        begin = source.offset(number, line.index(content))
        found.append((at, source.place(begin, begin + len(content))))
        offset = at + len(content)
    return tuple(found)
