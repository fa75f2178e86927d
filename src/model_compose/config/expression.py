r"""What does a text with `${...}` in it consist of, and what is its value?

    ${source[index].path as type/subtype;format | default @(name text)}

`grammar.py` reads a text once, when its file is loaded, into a `Template` of constant texts and
`Reference`s. Rendering walks what was read: a value that comes in is never searched for `${`.
A text that is exactly one expression gives the value itself; beside other text it is written out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import UNSET

from model_compose.config.values import LISTS, Converters, Type, convert, to_text
from model_compose.errors import ConfigError
from model_compose.types import Result

TreePath = tuple[str | int, ...]
"""Keys and indexes from the root of a tree."""


class ExpressionError(ConfigError):
    """A `${...}` that cannot be read, or an operator key that is used wrongly.

    start, end  offsets into the text, for a mistake in an expression
    path        keys and indexes from the root of the tree, for a mistake in its shape
    """

    def __init__(
        self,
        message: str,
        start: int = 0,
        end: int = 0,
        *,
        path: TreePath = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.start, self.end, self.path = start, end, path


class UnsetVariable(ExpressionError):
    """An `${env.X}` without default whose `variable` is not set."""

    def __init__(self, variable: str, start: int, end: int) -> None:
        hint = f"set it, or give a default: `${{env.{variable} | ...}}`"
        super().__init__(f"environment variable `{variable}` is not set", start, end, hint=hint)
        self.variable = variable


class Scope(msgspec.Struct, frozen=True):
    """What sources such as `input`, `jobs` or `result[]` (one chunk of a stream) stand for.

    Nothing changes a scope: a parallel job or an item of a list gets a child of its own.
    """

    values: Mapping[str, Any]
    converters: Converters = {}

    def child(self, values: Mapping[str, Any]) -> Scope:
        """This scope with `values` added, or in place of those of the same name."""
        return Scope({**self.values, **values}, self.converters)


class Slice(msgspec.Struct, frozen=True):
    """`[start:stop]` of a path."""

    start: int | None = None
    stop: int | None = None


class Each(msgspec.Struct, frozen=True):
    """`[*]` of a path: what follows applies to every item of the list."""


Segment = str | int | Slice | Each
"""A name of a map or result, an index of a list (from the end if negative), a slice, or every item."""


class Renderable(msgspec.Struct, frozen=True):
    """Whatever has a value only within a scope. Anything else in a tree is a constant."""

    def render(self, scope: Scope) -> Any:
        """The value. Constants in it are shared between calls and are not to be changed.

        Raises InvalidInput, with the name of the field, where a conversion fails.
        """
        raise NotImplementedError

    def references(self) -> Iterator[Reference]:
        """Every reference that `render` may follow, those in defaults too, in the order of the file."""
        raise NotImplementedError


def render(tree: Any, scope: Scope) -> Any:
    """The value of a compiled tree, constant or not."""
    return tree.render(scope) if isinstance(tree, Renderable) else tree


def references(tree: Any) -> Iterator[Reference]:
    """Every reference that rendering a compiled tree may follow to something outside of it."""
    if isinstance(tree, Renderable):
        yield from tree.references()


class Reference(Renderable, frozen=True):
    """One `${...}`.

    text         as it is written, with the braces
    start, end   its offsets in the text that was parsed
    key          the source: `input`, `jobs`, `gateway:8090`; with `[]` for the current chunk of a stream;
                 empty where only the default is left, as of an unset `${env.X as image | ...}`
    path         the way from the source to the value
    field        the value's name in messages: `temperature` for `${input.temperature}`
    type         what to convert to
    default      for null: a constant, a reference, a text with references; UNSET if there is none
    annotations  name and text of each `@(name text)`
    """

    text: str
    start: int
    end: int
    key: str
    path: tuple[Segment, ...]
    field: str
    type: Type | None = None
    default: Any = UNSET
    annotations: tuple[tuple[str, str], ...] = ()

    @property
    def source(self) -> str:
        """The key without the `[]` of a stream."""
        return self.key.removesuffix("[]")

    @property
    def per_chunk(self) -> bool:
        """Whether this has a value for every chunk of a stream."""
        return self.key.endswith("[]")

    def render(self, scope: Scope) -> Any:
        value = scope.values.get(self.key)
        if self.path and value is not None:
            value = follow(value, self.path)
        if value is None:
            value = self.default
            if value is UNSET:
                return None
            if isinstance(value, Renderable):
                value = value.render(scope)
        if self.type is None:
            return value
        return convert(value, self.type, self.field, scope.converters)

    def references(self) -> Iterator[Reference]:
        if self.key:
            yield self
        if isinstance(self.default, Renderable):
            yield from self.default.references()


class Template(Renderable, frozen=True):
    """A text with at least one expression in it; `parts` are constant texts and references in turn."""

    text: str
    parts: tuple[str | Reference, ...]

    @property
    def whole(self) -> Reference | None:
        """The expression, when there is nothing else in the text."""
        only = self.parts[0]
        return only if len(self.parts) == 1 and isinstance(only, Reference) else None

    def render(self, scope: Scope) -> Any:
        if (whole := self.whole) is not None:
            return whole.render(scope)
        return "".join(
            [
                part if isinstance(part, str) else to_text(part.render(scope), part.field)
                for part in self.parts
            ]
        )

    def references(self) -> Iterator[Reference]:
        for part in self.parts:
            if isinstance(part, Reference):
                yield from part.references()


def follow(value: Any, path: tuple[Segment, ...]) -> Any:
    """What stands at the end of `path` from `value`.

    A name needs a map or a result, everything else a list; a missing key, a wrong kind and an index
    out of range are null. A name on a list of results applies to each of them.
    """
    for position, segment in enumerate(path):
        if isinstance(segment, str):
            value = value.get(segment) if isinstance(value, dict) else _member(value, segment)
        elif not isinstance(value, LISTS):
            return None
        elif isinstance(segment, int):
            value = value[segment] if -len(value) <= segment < len(value) else None
        elif isinstance(segment, Slice):
            value = list(value[segment.start : segment.stop])
        else:
            return [follow(item, path[position + 1 :]) for item in value]
        if value is None:
            return None
    return value


def _member(value: Any, name: str) -> Any:
    if isinstance(value, msgspec.Struct):
        known = name in value.__struct_fields__ or isinstance(getattr(type(value), name, None), property)
        return getattr(value, name) if known else None
    if isinstance(value, LISTS):
        results = bool(value) and all(isinstance(item, Result) for item in value)
        return [_member(item, name) for item in value] if results else None
    return value.get(name) if isinstance(value, Mapping) else None


def template_of(text: str, pieces: Iterable[str | Reference]) -> str | Template:
    """`pieces` as what `text` comes to: a final text if no reference is among them."""
    parts = merged(pieces)
    if all(isinstance(part, str) for part in parts):
        return str(parts[0]) if parts else ""
    return Template(text, tuple(parts))


def merged(pieces: Iterable[str | Reference]) -> list[str | Reference]:
    """`pieces` without empty texts, and with neighbouring texts as one."""
    parts: list[str | Reference] = []
    for are_texts, run in itertools.groupby(pieces, lambda piece: isinstance(piece, str)):
        if not are_texts:
            parts.extend(run)
        elif text := "".join(map(str, run)):
            parts.append(text)
    return parts
