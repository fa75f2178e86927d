"""What does the type annotation of a field say?

Declared types are small: scalars, `Literal`, lists and tuples of one type, maps with text keys,
structs, unions of those, each of them with limits in `Annotated[..., Meta(...)]`.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Collection, Iterator
from typing import Annotated, Any, Literal

import msgspec

_KINDS = {str: "text", int: "an integer", float: "a number", bool: "`true` or `false`", Any: "a value"}


def members(annotation: Any) -> list[Any]:
    """The members of a union, or the type alone; limits of an annotated union go to each member."""
    if typing.get_origin(annotation) is Annotated:
        inner, *metas = typing.get_args(annotation)
        return [Annotated[member, *metas] for member in members(inner)] if _is_union(inner) else [annotation]
    if _is_union(annotation):
        return [member for each in typing.get_args(annotation) for member in members(each)]
    return [annotation]


def bare(annotation: Any) -> Any:
    """A type without its limits and description."""
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation


def meta(annotation: Any) -> msgspec.Meta | None:
    """Limits and description of a type."""
    if typing.get_origin(annotation) is Annotated:
        return next((m for m in typing.get_args(annotation)[1:] if isinstance(m, msgspec.Meta)), None)
    return None


def is_struct(annotation: Any) -> bool:
    """Whether values are maps with declared keys."""
    return isinstance(annotation, type) and issubclass(annotation, msgspec.Struct)


def is_list(annotation: Any) -> bool:
    """Whether values are lists."""
    return typing.get_origin(bare(annotation)) in (list, tuple)


def is_map(annotation: Any) -> bool:
    """Whether values are maps with keys of the user's own."""
    return typing.get_origin(bare(annotation)) is dict


def choices(options: Collection[Any]) -> list[str]:
    """The words that `Literal` members of a union allow."""
    literals = [each for each in map(bare, options) if typing.get_origin(each) is Literal]
    return [value for each in literals for value in typing.get_args(each) if isinstance(value, str)]


def names_in(annotation: Any) -> dict[str, None] | None:
    """What `${result.NAME}` can name in a result of this type; None if that cannot be told.

    A name on a list means that of each of its items.
    """
    names: dict[str, None] = {}
    for member in map(bare, members(annotation)):
        if is_struct(member):
            properties = (name for name in dir(member) if isinstance(getattr(member, name), property))
            names |= dict.fromkeys((*member.__struct_fields__, *properties))
        elif is_list(member):
            inner = names_in(typing.get_args(member)[0])
            if inner is None:
                return None
            names |= inner
        elif member not in (str, int, float, bool, type(None)):
            return None
    return names


def in_words(options: Collection[Any]) -> str:
    """The members of a union as a reader would say it: `an integer of at least 1 or null`."""
    words = dict.fromkeys(word for option in options for word in _words(option))
    return " or ".join(sorted(words, key=lambda word: (word == "null", word.startswith(("a list", "a map")))))


def _words(option: Any) -> Iterator[str]:
    kind, limits = bare(option), meta(option)
    if typing.get_origin(kind) is Literal:
        values = [f"`{value}`" for value in typing.get_args(kind)]
        yield values[0] if len(values) == 1 else f"one of {', '.join(values)}"
    elif is_list(kind):
        yield "a list with at least one item" if limits and limits.min_length else "a list"
    elif is_map(kind) or is_struct(kind):
        yield "a map"
    elif kind is type(None):
        yield "null"
    else:
        yield _KINDS.get(kind, "something else") + _limits(kind, limits)


def _limits(kind: Any, limits: msgspec.Meta | None) -> str:
    if limits is None:
        return ""
    if kind is str:
        return " that is not empty" if limits.min_length else ""
    if limits.ge is not None:
        return f" from {limits.ge} to {limits.le}" if limits.le is not None else f" of at least {limits.ge}"
    if limits.gt is not None:
        return f" above {limits.gt}" + (f" and at most {limits.le}" if limits.le is not None else "")
    return f" of at most {limits.le}" if limits.le is not None else ""


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)
