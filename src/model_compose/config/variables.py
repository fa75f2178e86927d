"""Which inputs does a tree take?"""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
from msgspec import UNSET

from model_compose.config.expression import Reference, Renderable, references
from model_compose.config.values import Type


class Variable(msgspec.Struct, frozen=True):
    """One field of a workflow's input, as far as the references to it tell.

    name         dotted path below `input`; None for the input as a whole
    type         None if no reference names one
    default      the first constant default; UNSET if there is none
    optional     every reference has a default, be it constant or not
    annotations  name and text of each `@(name text)`
    """

    name: str | None
    type: Type | None = None
    default: Any = UNSET
    optional: bool = False
    annotations: tuple[tuple[str, str], ...] = ()


def variables(tree: Any) -> list[Variable]:
    """The `${input...}` of a compiled tree, each name once, in the order of the file.

    Of several references to one name the first that has a type, a default or an annotation gives it.
    """
    found: dict[str | None, Variable] = {}
    for reference in references(tree):
        if reference.key == "input":
            variable = _variable(reference)
            before = found.get(variable.name)
            found[variable.name] = variable if before is None else _joined(before, variable)
    return list(found.values())


_ANY_LIST = Type("list")


def _variable(reference: Reference) -> Variable:
    names = list(itertools.takewhile(lambda segment: isinstance(segment, str), reference.path))
    name = ".".join(map(str, names)) or None
    optional = reference.default is not UNSET
    if len(names) < len(reference.path):
        # `${input.messages[0].content as text}` tells of `messages` only that it is a list.
        return Variable(name, _ANY_LIST, optional=optional)
    default = UNSET if isinstance(reference.default, Renderable) else reference.default
    return Variable(name, reference.type, default, optional, reference.annotations)


def _joined(first: Variable, second: Variable) -> Variable:
    known = {name for name, _ in first.annotations}
    return Variable(
        first.name,
        (second.type or first.type) if first.type in {None, _ANY_LIST} else first.type,
        second.default if first.default is UNSET else first.default,
        first.optional and second.optional,
        first.annotations + tuple(each for each in second.annotations if each[0] not in known),
    )
