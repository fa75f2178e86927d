"""How does an error read, on a terminal and in a log?

    error: unknown field `batchsize` in component `embedder`
     --> model-compose.yml:7:5
      |
    7 |     batchsize: 4
      |     ^^^^^^^^^

    hint: did you mean `batch_size`?

Names and values come from files and strangers: whatever a terminal would obey instead of showing it is
written as an escape, here and nowhere else.
"""

from __future__ import annotations

import io

from model_compose.errors import ConfigError, ConfigErrors, ModelComposeError, Place

_LINE_WIDTH = 200
"""Characters of a line that a frame shows; of longer lines, those around the caret."""

_LONG_HINT = 200
"""Characters. Of hints that say the same one after the other, such as all valid names, one is enough."""


def render(error: ModelComposeError) -> str:
    """The whole error as text: message, code frame with a caret, notes, hint.

    A `ConfigErrors` renders each of its mistakes and a last line that counts them.
    """
    if not isinstance(error, ConfigErrors):
        return _render(error, error.hint)
    parts, before = [], None
    for each in error.errors:
        repeated = each.hint is not None and each.hint == before and len(each.hint) > _LONG_HINT
        parts.append(_render(each, "the same as above" if repeated else each.hint))
        before = each.hint
    if len(parts) > 1:
        parts.append(f"{error.message}\n")
    return "\n".join(parts)


def _render(error: ModelComposeError, hint: str | None) -> str:
    # Only other errors have several lines to say, such as the last ones of a log.
    lines = "" if isinstance(error, ConfigError) else "\n"
    places = [error.place, *(note.place for note in error.notes)]
    width = len(str(max((place.line for place in places if place), default=0)))
    out = io.StringIO()
    out.write(f"error: {_visible(error.message, lines)}\n")
    _frame(out, error.place, width)
    for note in error.notes:
        out.write(f"note: {_visible(note.message, lines)}\n")
        _frame(out, note.place, width)
    if hint:
        out.write(f"\nhint: {_visible(hint, lines)}\n")
    return out.getvalue()


def _frame(out: io.StringIO, place: Place | None, width: int) -> None:
    if place is None:
        return
    gutter = " " * width
    out.write(f"{gutter}--> {_visible(place.file)}:{place.line}:{place.column}\n")
    if not place.text:
        return
    length = len(place.text)
    start = min(place.column - 1, length)
    first = max(0, min(start - _LINE_WIDTH // 2, length - _LINE_WIDTH))
    last = min(length, first + _LINE_WIDTH)
    end = max(start, min(place.end_column - 1, last))
    before = ("..." if first else "") + _shown(place.text[first:start])
    marked = _shown(place.text[start:end])
    after = _shown(place.text[end:last]) + ("..." if last < length else "")
    carets = "^" * max(1, _cells(marked))
    out.write(f"{gutter} |\n{place.line:>{width}} | {before}{marked}{after}\n")
    out.write(f"{gutter} | {' ' * _cells(before)}{carets}\n")


def _shown(line: str) -> str:
    """A part of a line, character by character: a tab is one space, so that carets stand under columns."""
    line = line.replace("\t", " ")
    return line if line.isprintable() else "".join(c if _is_harmless(c) else "\ufffd" for c in line)


def _visible(text: str, allowed: str = "") -> str:
    """A text with escapes for the characters that nobody would see, but for those that are allowed."""
    if text.isprintable():
        return text
    return "".join(char if char in allowed or _is_harmless(char) else ascii(char)[1:-1] for char in text)


def _is_harmless(char: str) -> bool:
    """Whether a terminal shows a character, or joins others by it as in emojis, and does nothing else."""
    return char.isprintable() or char in "\u00a0\u3000\u200c\u200d"


def _cells(text: str) -> int:
    """How many columns of a terminal a text takes; Korean or Chinese characters take two each."""
    return len(text) if text.isascii() else sum(map(_width, text))


def _width(char: str) -> int:
    import unicodedata

    # A syllable in parts, as macOS writes names: the first takes the two columns of the whole.
    part = "\u1160" <= char <= "\u11ff" or "\ud7b0" <= char <= "\ud7ff"
    if part or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "FW" else 1
