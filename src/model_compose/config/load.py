"""What does the text of a YAML file say?

Read from PyYAML's events rather than from its nodes: only events tell where an alias stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import yaml
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    StreamEndEvent,
)

from model_compose.config.scalars import resolve
from model_compose.config.spots import spots
from model_compose.config.syntax import explain
from model_compose.config.text import Source, is_unicode, read_text
from model_compose.config.tree import Entry, Node
from model_compose.errors import ConfigError, ConfigErrors, Note, Place, did_you_mean

if TYPE_CHECKING:
    from yaml._yaml import Mark as CMark
    from yaml.error import Mark

FILE_NAMES = ("model-compose.yml", "model-compose.yaml")
MAX_DEPTH = 100
MAX_NODES = 100_000
"""Keys and values of a file, once its aliases are followed."""

# Keys with a form for several: who writes one of them twice wants that.
_HAVE_PLURALS = ("component", "workflow", "listener", "gateway", "logger", "job", "action")
# The anchor and the tag before a value, and what may stand between them and it.
_PROPERTIES = re.compile(r"(?:[&!][^\s,\[\]{}]*(?:\s+(?:#.*)?)*)+")


def find(folder: Path) -> Path:
    """The file that stands for a folder when none is named. Raises ConfigErrors."""
    for name in FILE_NAMES:
        if (folder / name).is_file():
            return folder / name
    hint = "`model-compose init` writes one to start from, `-f FILE` names another"
    raise ConfigErrors([ConfigError(f"there is no `{FILE_NAMES[0]}` in this folder", hint=hint)])


class Document(msgspec.Struct, frozen=True):
    """What a file says, and the mistakes in how it says that; what they spoil is `lost` in the tree."""

    root: Node
    errors: tuple[ConfigError, ...]


def read(path: Path, *, name: str | None = None) -> Document:
    """What a file says, which errors call `name`. Raises ConfigErrors if it cannot be read at all."""
    name = name or str(path)
    return parse(read_text(path, name), name)


def parse(text: str, name: str) -> Document:
    """What a text says that should hold one map. Raises ConfigErrors if that cannot be told."""
    return _parse(text, name, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _parse(text: str, name: str, loader: type[yaml.SafeLoader | yaml.CSafeLoader]) -> Document:
    source = Source(name, text.removeprefix("\ufeff"))
    unprintable = source.unprintable()
    if unprintable:
        raise ConfigErrors([unprintable])
    builder = _Builder(source, yaml.parse(source.text, Loader=loader))
    try:
        root = builder.document()
    except yaml.MarkedYAMLError as error:
        raise ConfigErrors([*builder.errors, explain(error, source)]) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: `"\U00110000"` with the Python parser
        raise ConfigErrors([*builder.errors, ConfigError(f"`{name}` is no YAML: {error}")]) from None
    if not isinstance(root.value, dict):
        raise ConfigErrors(builder.errors)
    return Document(root, tuple(builder.errors))


class _Builder:
    """Turns events into nodes; collects mistakes and goes on where it can."""

    def __init__(self, source: Source, events: Iterator[Event]) -> None:
        self.errors: list[ConfigError] = []
        self._source = source
        self._events = events
        self._anchors: dict[str, Node | None] = {}  # None: its end has not come yet
        self._size = 0

    def document(self) -> Node:
        """The root of the only document."""
        next(self._events)  # the start of the stream
        if isinstance(next(self._events), StreamEndEvent):
            root = Node(None, self._source.place(0, 0), text="")
        else:
            root = self._node(next(self._events), 0)
            next(self._events)  # the end of the document
            second = next(self._events)
            if not isinstance(second, StreamEndEvent):
                self._mistake(
                    "a second document begins here",
                    self._word(second),
                    hint="remove the `---`, or move what follows to its own file and name both with `-f`",
                )
        if not isinstance(root.value, dict):
            self._not_a_map(root)
        return root

    def _not_a_map(self, root: Node) -> None:
        if root.value is None and not root.text:
            hint = "`model-compose init` writes a file to start from"
            self._mistake(f"`{self._source.name}` is empty", root.place, hint=hint)
        else:
            hint = "begin with a key such as `component:`; a space stands between the colon and a value"
            self._mistake("the file is not a map of keys", root.place, hint=hint)

    def _node(self, event: Event, depth: int, how: str = "used here through the alias `*{}`") -> Node:
        """The value that begins with `event`; `how` says what an alias at its top does."""
        self._count(event, depth)
        if isinstance(event, AliasEvent):
            return self._alias(event, depth, how)
        assert isinstance(event, ScalarEvent | CollectionStartEvent)
        if event.tag is not None:
            hint = "put the value in quotes if it is text"
            self._mistake("tags are not used here", self._word(event), hint=hint)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        if isinstance(event, ScalarEvent):
            node = self._scalar(event)
        elif isinstance(event, MappingStartEvent):
            node = self._map(event, depth)
        else:
            node = self._list(event, depth, how)
        if event.tag is not None:
            node = Node(None, node.place, lost=True)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _scalar(self, event: ScalarEvent) -> Node:
        style = event.style or ""
        value = event.value if style else resolve(event.value)
        place = self._place(event)
        if not isinstance(value, str):
            return Node(value, place, text=event.value)
        if not is_unicode(value):  # the Python parser lets `"\ud800"` pass
            self._mistake("half of a character is written here", place)
        if "${" not in value:
            return Node(value, place)
        return Node(value, place, spots=spots(self._source, style, *self._span(event), value))

    def _list(self, event: CollectionStartEvent, depth: int, how: str) -> Node:
        items: list[Node] = []
        while not isinstance(item := next(self._events), SequenceEndEvent):
            items.append(self._node(item, depth + 1, how))
        return Node(tuple(items), self._place(event, item))

    def _map(self, event: MappingStartEvent, depth: int) -> Node:
        own: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        written: dict[str, Place] = {}
        broken = False
        while not isinstance(key_event := next(self._events), MappingEndEvent):
            key, place = self._key(key_event, depth)
            if key is not None and key in written:
                self._duplicate(key, place, written[key])
            broken = broken or key is None
            if _is_merge(key_event):
                mistakes = len(self.errors)
                for entry in self._merge(depth):
                    merged.setdefault(entry.key, entry)  # of a list of maps the first wins
                broken = broken or len(self.errors) > mistakes
            else:
                node = self._node(next(self._events), depth + 1)
                if key is not None:
                    own.setdefault(key, Entry(key, place, node))
            if key is not None:
                written.setdefault(key, place)
        return Node({**merged, **own}, self._place(event, key_event), lost=broken)

    def _key(self, event: Event, depth: int) -> tuple[str | None, Place]:
        """The key as it is written, so that `8080` is text, or None after a mistake; and its place."""
        mistakes = len(self.errors)
        place = self._node(event, depth + 1).place
        if len(self.errors) > mistakes:
            return None, place
        if not isinstance(event, ScalarEvent):
            hint = "put text that starts with `{` or `[` in quotes; a reference is written `${input.x}`"
            self._mistake("a key must be text", self._place(event), hint=hint)
            return None, place
        if not event.value and not event.style:
            self._mistake("a key is missing here", place)
            return None, place
        return event.value, place

    def _merge(self, depth: int) -> Iterator[Entry]:
        """What the value of a `<<` brings in."""
        mistakes = len(self.errors)
        node = self._node(next(self._events), depth, "merged here by `<<: *{}`")
        for each in node.value if isinstance(node.value, tuple) else (node,):
            if isinstance(each.value, dict):
                yield from each.value.values()
            elif len(self.errors) == mistakes:
                self._mistake("`<<` takes a map or a list of maps", each.place)

    def _duplicate(self, key: str, place: Place, first: Place) -> None:
        if key in _HAVE_PLURALS:
            hint = f"keep one of them, or make both items of a list `{key}s:`"
        elif key == "<<":
            hint = "merge several maps with a list: `<<: [*a, *b]`"
        else:
            hint = "keep one of them"
        notes = [Note("it stands here already", first)]
        self.errors.append(
            ConfigError(f"the key `{key}` stands twice in one map", hint=hint, place=place, notes=notes)
        )

    def _alias(self, event: AliasEvent, depth: int, how: str) -> Node:
        """A copy of what the alias stands for: it keeps its places, and a note in each tells of the alias."""
        name, place = str(event.anchor), self._word(event)
        if name not in self._anchors:
            hint = did_you_mean(name, self._anchors) or f"write `&{name}` before the value that it stands for"
            self._mistake(f"nothing has the anchor `&{name}` above this alias", place, hint=hint)
        elif (node := self._anchors[name]) is not None:
            return self._copy(node, event, depth, Note(how.format(name), place))
        else:
            self._mistake(f"the alias `*{name}` stands inside the value that it stands for", place)
        return Node(None, place, lost=True)

    def _copy(self, node: Node, alias: AliasEvent, depth: int, note: Note) -> Node:
        self._count(alias, depth)
        value = node.value
        if isinstance(value, dict):
            value = {
                key: Entry(key, entry.key_place, self._copy(entry.node, alias, depth + 1, note))
                for key, entry in value.items()
            }
        elif isinstance(value, tuple):
            value = tuple(self._copy(item, alias, depth + 1, note) for item in value)
        return msgspec.structs.replace(node, value=value, notes=(*node.notes, note))

    def _count(self, event: Event, depth: int) -> None:
        self._size += 1
        if depth > MAX_DEPTH:
            self._mistake(f"values stand in one another more than {MAX_DEPTH} deep", self._word(event))
        elif self._size > MAX_NODES:
            hint = "what an alias stands for counts again wherever it is used"
            self._mistake(
                f"the file has more than {MAX_NODES:,} keys and values", self._word(event), hint=hint
            )
        else:
            return
        raise ConfigErrors(self.errors)

    def _span(self, event: Event) -> tuple[int, int]:
        """Offsets of a scalar, or of the beginning of a collection, without anchor and tag."""
        start, end = self._offset(event.start_mark), self._offset(event.end_mark)
        if isinstance(event, ScalarEvent | CollectionStartEvent) and (event.anchor or event.tag):
            properties = _PROPERTIES.match(self._source.text, start)
            start = properties.end() if properties else start
        return (min(start, end), end) if isinstance(event, ScalarEvent) else (start, end)

    def _place(self, event: Event, end: Event | None = None) -> Place:
        """Where the value that begins with `event`, and ends with `end` if it is a collection, stands."""
        start, stop = self._span(event)
        if isinstance(event, ScalarEvent):
            find = self._source.content if event.style in ("|", ">") else self._source.place
            return find(start, stop)
        if isinstance(event, CollectionStartEvent) and end is not None and event.flow_style:
            return self._source.place(start, self._offset(end.end_mark))
        return self._source.rest_of_line(start)

    def _word(self, event: Event) -> Place:
        """What stands first at an event: an anchor, a tag, an alias, `---`."""
        start = self._offset(event.start_mark)
        word = re.compile(r"[^\s,\[\]{}]+").match(self._source.text, start)
        return self._source.place(start, word.end() if word else start + 1)

    def _offset(self, mark: Mark | CMark | None) -> int:
        assert mark is not None  # only events that were made by hand have none
        return self._source.offset(mark.line, mark.column)

    def _mistake(self, message: str, place: Place, *, hint: str | None = None) -> None:
        self.errors.append(ConfigError(message, hint=hint, place=place))


def _is_merge(event: Event) -> bool:
    return isinstance(event, ScalarEvent) and event.value == "<<" and not event.style
