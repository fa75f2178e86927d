"""What does a file say, and where does it say so?

A file is a tree of frozen nodes. Each knows its place and, in notes, how it came there: through an
alias, a merge, a variable. Later errors are only as good as these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from model_compose.config.scalars import Scalar
from model_compose.errors import Note, Place

if TYPE_CHECKING:
    from model_compose.config.expression import Template


class Entry(msgspec.Struct, frozen=True):
    """A key of a map and what it stands for."""

    key: str
    key_place: Place
    node: Node

    @property
    def key_node(self) -> Node:
        """The key itself, for mistakes in it; it came where it is as its value did."""
        return Node(self.key, self.key_place, tuple(note for note in self.node.notes if note.place))


class Node(msgspec.Struct, frozen=True):
    """A value of a file.

    value   a scalar, a dict of entries in the order of the file, a tuple of nodes or, once the
            environment is filled in, a template
    place   where it stands; where it begins if it takes several lines
    notes   how it came here, the nearest step first
    text    how a null, boolean or number was written, for a reader that wants text: `1.10`
    lost    the value could not be read, which has been noted, and is null; or some keys of the map
    spots   only for text with `${`: from each offset on, up to the next, the text stands at the
            place character by character
    """

    value: Scalar | Template | dict[str, Entry] | tuple[Node, ...]
    place: Place
    notes: tuple[Note, ...] = ()
    text: str | None = None
    lost: bool = False
    spots: tuple[tuple[int, Place], ...] = ()

    def place_of(self, start: int, end: int) -> Place:
        """The place of `text[start:end]` of this text; of what its first line has of it."""
        first = self._spot(start)
        last = self._spot(max(start, end - 1))
        if first < 0:
            return self.place
        first_offset, first_place = self.spots[first]
        last_offset, last_place = self.spots[last]
        column = first_place.column + start - first_offset
        if last_place.line > first_place.line:
            end_column = len(first_place.text) + 1
        elif last + 1 < len(self.spots) and end >= self.spots[last + 1][0]:
            end_column = last_place.end_column  # may be an escape, of more columns than characters
        else:
            end_column = min(last_place.column + end - last_offset, last_place.end_column)
        return msgspec.structs.replace(first_place, column=column, end_column=max(end_column, column + 1))

    def _spot(self, offset: int) -> int:
        """The index of the spot before an offset, or -1."""
        return sum(begin <= offset for begin, _ in self.spots) - 1


def merge(base: Node, over: Node) -> Node:
    """`base` with `over` laid upon it: maps key by key, everything else (lists too) replaced.

    Files are merged from left to right. The order of merging does not matter as long as a key is a
    map in all files or in none.
    """
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return _noted(over, Note("it replaces this value", base.place))
    entries = dict(base.value)
    for key, entry in over.value.items():
        if key not in entries:
            entries[key] = entry
            continue
        entries[key] = Entry(key, entry.key_place, merge(entries[key].node, entry.node))
    both = Node(entries, base.place, base.notes, lost=base.lost or over.lost)
    return _noted(both, Note("it is merged with this map", over.place))


def locate(root: Node, loc: Sequence[str | int]) -> Node:
    """The node at the end of a path of keys and indices, or the last one on the way that exists."""
    return _follow(root, loc)[0]


def locate_key(root: Node, loc: Sequence[str | int]) -> Node:
    """The key at the end of a path; the value, if it has no key."""
    return _follow(root, loc)[1]


def at_key(node: Node, key: str) -> Node | None:
    """The value of a key of a map, None if there is none or this is no map."""
    return node.value[key].node if isinstance(node.value, dict) and key in node.value else None


def to_data(node: Node) -> Any:
    """The tree as dicts, lists and scalars, without places; templates stay."""
    if isinstance(node.value, dict):
        return {key: to_data(entry.node) for key, entry in node.value.items()}
    if isinstance(node.value, tuple):
        return [to_data(item) for item in node.value]
    return node.value


def _follow(node: Node, loc: Sequence[str | int]) -> tuple[Node, Node]:
    key = node
    for step in loc:
        if isinstance(node.value, dict) and str(step) in node.value:
            entry = node.value[str(step)]
            node, key = entry.node, entry.key_node
        elif isinstance(node.value, tuple) and isinstance(step, int) and 0 <= step < len(node.value):
            node = key = node.value[step]
        else:
            break
    return node, key


def _noted(node: Node, note: Note) -> Node:
    return msgspec.structs.replace(node, notes=(*node.notes, note))
