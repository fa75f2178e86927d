"""Which blocks do our pages have, and what is each of them for?

A block is YAML that must pass `check`, unless a comment right above it says something else:

    <!-- test: mistake -->        it must not; the next block is what `check` prints
    <!-- test: part component --> keys of a component, which has others too
    <!-- test: part -->           sections of a file, which has others too
    <!-- test: save NAME -->      also a file of that name for what is run on this page
    <!-- test: with NAME -->      variables of the environment are in this file of the page
    <!-- test: run -->            commands that are run, one page from top to bottom in one folder
    <!-- test: in FILE -->        this text is a part of that file of the repository, which other tests run
    <!-- test: output -->         what the commands above print; `...` is anything

Several stand in one comment, with commas between them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
_GENERATED = ROOT / "docs" / "reference"
_MARK = re.compile(r"\s*<!-- test: (.*) -->\s*")
_FENCE = re.compile(r"( *)(```+)(\w*)(.*)")


@dataclass(frozen=True)
class Block:
    """What stands between two fences."""

    page: Path
    line: int
    language: str
    text: str
    marks: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Everything that we tell people in Markdown, but for what is made from the code."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]
    return sorted(page for page in found if _GENERATED not in page.parents)


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, from top to bottom."""
    marks: dict[str, str] = {}
    opened: tuple[int, str, str, str] | None = None
    lines: list[str] = []
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        fence = _FENCE.fullmatch(line)
        if opened is None:
            if mark := _MARK.fullmatch(line):
                words = (each.strip().partition(" ") for each in mark[1].split(","))
                marks = {name: argument for name, _, argument in words}
            elif fence:
                opened, lines = (number, str(fence[1]), str(fence[2]), str(fence[3])), []
            elif line.strip():
                marks = {}
        elif fence and fence[2] == opened[2] and not fence[3]:
            first, indent, _, language = opened
            text = "".join(each.removeprefix(indent) + "\n" for each in lines)
            yield Block(page, first, language, text, marks)
            opened, marks = None, {}
        else:
            lines.append(line)
    assert opened is None, f"{page}:{opened and opened[0]}: a block is not closed"


def matches(expected: str, found: str) -> bool:
    """Whether a text is what a page says, where `...` stands for anything."""
    parts = (re.escape(part) for part in expected.strip().split("..."))
    return re.fullmatch(r"[\s\S]*?".join(parts), found.strip()) is not None
