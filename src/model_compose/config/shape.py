"""How are the ways of writing the same thing brought into one shape?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from model_compose.config.mistakes import Mistakes
from model_compose.config.spec import fields_of
from model_compose.config.tree import Entry, Node, at_key, locate, locate_key
from model_compose.errors import Note

_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def listed(entries: Mapping[str, Entry], singular: str, mistakes: Mistakes) -> list[Node]:
    """The items of `things:`, or the one of `thing:`; both together is a mistake."""
    one, many = entries.get(singular), entries.get(f"{singular}s")
    if many is None:
        return [one.node] if one is not None else []
    if one is not None:
        note = Note("the other", many.key_place)
        message = f"both `{singular}` and `{singular}s` are given"
        mistakes.add(message, one.key_node, hint="make one list of them", notes=[note])
    alone = [one.node] if one is not None else []
    if many.node.lost:
        return alone
    if isinstance(many.node.value, tuple):
        if not many.node.value:
            mistakes.add(f"`{singular}s` is an empty list", many.node)
        return [*alone, *many.node.value]
    hint = f"write `- ` before each, or use `{singular}:` for one"
    mistakes.add(f"`{singular}s` is not a list", many.node, hint=hint)
    return alone


def part(node: Node, keys: Collection[str]) -> Node:
    """A map with only these of its keys."""
    assert isinstance(node.value, dict)
    return replace(node, value={key: entry for key, entry in node.value.items() if key in keys})


def quoted(name: str) -> str:
    """A name as messages have it."""
    return f"`{name}`"


def enumerated(names: Sequence[str]) -> str:
    """Names as a sentence has them: `a`, `b` and `c`."""
    *first, last = map(quoted, names)
    return " and ".join(filter(None, (", ".join(first), last)))


def names_of(struct: type[msgspec.Struct]) -> frozenset[str]:
    """Every key that the fields of a struct may be written as."""
    return frozenset(name for field in fields_of(struct) for name in field.names)


def id_of(node: Node, unnamed: str) -> str | None:
    """The id of a map, `unnamed` if it has none, None if it has one that cannot be read."""
    found = at_key(node, "id")
    if found is None:
        return None if node.lost else unnamed
    return found.value if isinstance(found.value, str) else found.text if found.value is not None else None


class Ids:
    """The ids of things of one kind, which differ and can be used in URLs and references."""

    def __init__(self, kind: str, unnamed: str, mistakes: Mistakes, *, dots: bool = True) -> None:
        self._kind = kind
        self._unnamed = unnamed
        self._mistakes = mistakes
        self._allowed = _ID_CHARACTERS if dots else _ID_CHARACTERS - {"."}
        self._first: dict[str, Node] = {}
        #: Whether some id cannot be read, so that nobody can say which names there are.
        self.incomplete = False

    def add(self, node: Node) -> str | None:
        """Take in the id of a map, and note what is wrong with it; None if it cannot be read."""
        name = id_of(node, self._unnamed) if isinstance(node.value, dict) else None
        if name is None:
            self.incomplete = True
            return None
        at = locate(node, ["id"])
        if name == "__default__":
            self._mistakes.add(f"`__default__` is not an id: it means the default {self._kind}", at)
        elif not name.strip(".") or not self._allowed.issuperset(name):
            signs = "`-`, `_` and `.`" if "." in self._allowed else "`-` and `_`"
            hint = f"use letters, digits, {signs}"
            self._mistakes.add(f"`{name}` cannot be an id", at, hint=hint)
        if name in self._first:
            first = Note("the first is here", locate(self._first[name], ["id"]).place)
            if at_key(node, "id"):
                self._mistakes.add(f"two {self._kind}s are named `{name}`", at, notes=[first])
            else:
                message = f"only one {self._kind} can do without an `id`"
                self._mistakes.add(message, at, hint="give each an `id`", notes=[first])
        self._first.setdefault(name, node)
        return name


def one_default(kind: str, nodes: Iterable[Node], mistakes: Mistakes) -> None:
    """Note every `default: true` after the first."""
    defaults = ((node, at_key(node, "default")) for node in nodes)
    marked = [node for node, default in defaults if default is not None and default.value is True]
    for node in marked[1:]:
        note = Note("the first is here", locate_key(marked[0], ["default"]).place)
        message = f"more than one {kind} has `default: true`"
        mistakes.add(message, locate_key(node, ["default"]), hint="keep one", notes=[note])
