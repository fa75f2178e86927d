"""Which parts does a text have, while it is still coming?

Two steps. A cutter takes units from the front of the text (sentences, paragraphs, words, or parts
between separators), each as soon as what follows cannot change it; a packer joins them to chunks. Every
decision depends on the text alone, so the chunks are the same however the text is cut up on its way.
"""

from __future__ import annotations

import abc
import re
from collections import deque
from typing import Final

from model_compose.components.text_splitter.sentences import MARGIN, UNDECIDED, sentence_end

#: A sentence, paragraph or word that is longer is cut; so much of a text is held back at most.
LONGEST_UNIT: Final = 8192
#: A long text is taken in parts: what is left of one is moved with every unit that goes.
_PART: Final = 4096
_SPACE: Final = re.compile(r"\s")
_BLANK_LINE: Final = re.compile(r"\n(?=\s*\n)")


class Splitter(abc.ABC):
    """Splits one text. `feed` gives the chunks that are complete, `finish` the rest."""

    def __init__(self) -> None:
        self._text = ""

    def feed(self, text: str) -> list[str]:
        """Take the next part of the text; -> the chunks that it completes."""
        chunks: list[str] = []
        for start in range(0, len(text), _PART):
            self._text += text[start : start + _PART]
            chunks += self._take(final=False)
        return chunks

    def finish(self) -> list[str]:
        """There is no more text; -> the chunks that are left."""
        return self._take(final=True)

    @abc.abstractmethod
    def _take(self, *, final: bool) -> list[str]:
        """Chunks from the front of `_text`, which are taken from it."""


class BySize(Splitter):
    """Chunks of at most `size` characters that end behind a separator, the first in the list if possible.

    A chunk begins `overlap` characters before the end of the one before, at a separator if there is one.
    A separator that would leave a chunk less than half full is second choice.
    """

    def __init__(self, size: int, overlap: int, separators: tuple[str, ...]) -> None:
        super().__init__()
        self._size = size
        self._overlap = overlap
        self._separators = tuple(filter(None, separators))
        self._needed = size + max(map(len, self._separators), default=0)
        #: Characters at the front that the chunk before had too.
        self._repeated = 0

    def _take(self, *, final: bool) -> list[str]:
        chunks: list[str] = []
        while True:
            white = len(self._text) - len(self._text.lstrip())
            self._text, self._repeated = self._text[white:], max(0, self._repeated - white)
            ready = final or len(self._text) > self._needed
            if not ready or len(self._text) <= self._repeated:
                return chunks
            end = len(self._text) if len(self._text) <= self._size else self._cut()
            chunks.append(self._text[:end].rstrip())
            back = 0 if end == len(self._text) else self._back(end)
            self._text, self._repeated = self._text[end - back :], back

    def _cut(self) -> int:
        """Where the chunk at the front ends: a longer text follows."""
        for least in (max(self._size // 2, self._repeated), self._repeated):
            for separator in self._separators:
                # White space at the end of a chunk is not counted, because it is dropped.
                room = self._size + len(separator) if separator.isspace() else self._size
                found = self._text.rfind(separator, least, room)
                if found >= 0 and found + len(separator) > self._repeated:
                    return found + len(separator)
        return self._size

    def _back(self, end: int) -> int:
        """How far the next chunk begins before the end of this one."""
        back = min(self._overlap, end - 1)
        begins = [
            found + len(separator)
            for separator in self._separators
            if (found := self._text.find(separator, max(0, end - back - len(separator)), end)) >= 0
        ]
        return end - min(begins, default=end - back)


class ByUnit(Splitter):
    """Units that are joined to chunks of at most `size` characters, or each of them as a chunk.

    The last units of a chunk that together have at most `overlap` characters begin the next one.
    """

    def __init__(self, size: int | None, overlap: int) -> None:
        super().__init__()
        self._size = size
        self._overlap = overlap
        self._most = min(size or LONGEST_UNIT, LONGEST_UNIT)
        self._units: deque[str] = deque()
        self._length = 0
        self._repeated = 0

    @abc.abstractmethod
    def _end(self, *, final: bool) -> int | None:
        """Where the first unit of the text ends; None if there is no end in it, or UNDECIDED."""

    def _take(self, *, final: bool) -> list[str]:
        chunks: list[str] = []
        while True:
            if not self._units:
                self._text = self._text.lstrip()
            unit = self._unit(final=final)
            if unit is None:
                break
            chunks += self._pack(unit)
        if final and len(self._units) > self._repeated:
            chunks.append(self._chunk())
        return chunks

    def _unit(self, *, final: bool) -> str | None:
        """The first unit, which is taken from the text: the white space before it belongs to it."""
        white = len(self._text) - len(self._text.lstrip())
        if white > LONGEST_UNIT:  # nobody needs so much of it
            self._text, white = self._text[white - 1 :], 1
        if white == len(self._text):
            return None
        end = self._end(final=final)
        if end == UNDECIDED:
            return None
        if end is not None and end - white > self._most:  # by what closes it
            end = self._forced(white)
        elif end is None:
            if len(self._text) - white > self._most + (0 if final else MARGIN):
                end = self._forced(white)
            elif final:
                end = len(self._text.rstrip())
            else:
                return None
        unit, self._text = self._text[:end], self._text[end:]
        return unit

    def _forced(self, white: int) -> int:
        """Where a unit ends that is too long: at the last white space in it, if it has some."""
        words = self._text[white : white + self._most + 1]
        last = max(words.rfind(" "), words.rfind("\n"), words.rfind("\t"))
        return white + (len(words[:last].rstrip()) if last > 0 else self._most)

    def _pack(self, unit: str) -> list[str]:
        chunks: list[str] = []
        if self._size is None:
            return [unit.strip()]
        if len(self._units) > self._repeated and self._length + len(unit) > self._size:
            chunks.append(self._chunk())
            self._keep(self._size - len(unit))
        if not self._units:
            unit = unit.lstrip()
        self._units.append(unit)
        self._length += len(unit)
        return chunks

    def _chunk(self) -> str:
        return "".join(self._units).strip()

    def _keep(self, room: int) -> None:
        """Keep the last units for the next chunk, if they leave room for what is new."""
        kept: deque[str] = deque()
        length = 0
        while self._units and length + len(self._units[-1]) <= min(self._overlap, room):
            unit = self._units.pop()
            kept.appendleft(unit)
            length += len(unit)
        if kept:
            length -= len(kept[0]) - len(kept[0].lstrip())
            kept[0] = kept[0].lstrip()
        self._units, self._length, self._repeated = kept, length, len(kept)


class BySentence(ByUnit):
    """Sentences."""

    def _end(self, *, final: bool) -> int | None:
        most = len(self._text) - len(self._text.lstrip()) + self._most
        text = self._text[: most + MARGIN]
        return sentence_end(text, most, final=final and len(text) == len(self._text))


class ByParagraph(ByUnit):
    """What stands between lines without text."""

    def _end(self, *, final: bool) -> int | None:
        white = len(self._text) - len(self._text.lstrip())
        found = _BLANK_LINE.search(self._text, white, white + self._most + MARGIN)
        if found is None or found.start() > white + self._most:
            return None
        return len(self._text[: found.start()].rstrip())


class ByWord(ByUnit):
    """What stands between white space."""

    def _end(self, *, final: bool) -> int | None:
        white = len(self._text) - len(self._text.lstrip())
        space = _SPACE.search(self._text, white, white + self._most + 1)
        return None if space is None else space.start()
