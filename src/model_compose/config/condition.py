"""Which conditions can a file state, and how are they read?

A condition, in the operator `?` and in `where`, is {input, operator, value}, {all: [...]},
{any: [...]} or {not: ...}. Its parts may be trees with operators of their own.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from model_compose.config.expression import (
    ExpressionError,
    Reference,
    Renderable,
    Scope,
    TreePath,
    references,
    render,
)
from model_compose.config.values import COMPARISONS, holds, shown
from model_compose.errors import ConfigErrors, InvalidInput, did_you_mean

MAX_TREE_DEPTH: Final = 64
"""How deep maps and lists may stand in each other."""


class Comparison(Renderable, frozen=True):
    """`input` compared with `value`; true or false."""

    input: Any
    operator: str
    value: Any

    def render(self, scope: Scope) -> bool:
        return holds(self.operator, render(self.input, scope), render(self.value, scope))

    def references(self) -> Iterator[Reference]:
        yield from references(self.input)
        yield from references(self.value)


class Combination(Renderable, frozen=True):
    """`all` or `any` of some conditions, or `not` the only one."""

    kind: str
    conditions: tuple[Any, ...]

    def render(self, scope: Scope) -> bool:
        values = (render(condition, scope) for condition in self.conditions)
        if self.kind == "not":
            return not next(values)
        return all(values) if self.kind == "all" else any(values)

    def references(self) -> Iterator[Reference]:
        for condition in self.conditions:
            yield from references(condition)


class ConditionCompiler(ABC):
    """Turns data into conditions, and notes every mistake in it; `tree` is up to who knows all operators."""

    def __init__(self) -> None:
        self.errors: list[ExpressionError] = []

    @abstractmethod
    def tree(self, data: Any, path: TreePath) -> Any:
        """The tree of a part of a condition."""

    def finish(self) -> None:
        if self.errors:
            raise ConfigErrors(self.errors)

    def refuse(self, message: str, path: TreePath, hint: str | None = None) -> None:
        self.errors.append(ExpressionError(message, path=path, hint=hint))

    def condition(self, data: Any, path: TreePath) -> Any:
        if self.too_deep(path):
            return False
        if not isinstance(data, dict):
            self.refuse(
                "a condition is a map with `input`, `operator` and `value`, `all`, `any` or `not`", path
            )
            return False
        kind = next((key for key in ("all", "any", "not") if key in data), None)
        if kind is None:
            return self.comparison(data, path)
        self.known_keys(data, {kind}, path)
        parts = data[kind]
        path = (*path, kind)
        if kind == "not":
            conditions = (self.condition(parts, path),)
        elif isinstance(parts, list):
            conditions = tuple(self.condition(part, (*path, index)) for index, part in enumerate(parts))
        else:
            self.refuse(f"`{kind}` takes a list of conditions", path)
            return False
        return self.folded(Combination(kind, conditions), conditions, path)

    def comparison(self, data: Mapping[str, Any], path: TreePath) -> Any:
        self.known_keys(data, {"input", "operator", "value"}, path)
        if missing := [f"`{key}`" for key in ("input", "value") if key not in data]:
            self.refuse(f"a condition needs {' and '.join(missing)}", path)
        operator = data.get("operator", "eq")
        known = isinstance(operator, str) and operator in COMPARISONS
        if not known:
            hint = did_you_mean(str(operator), COMPARISONS)
            self.refuse(f"unknown operator {shown(operator)}", (*path, "operator"), hint)
        source, value = (self.tree(data.get(key), (*path, key)) for key in ("input", "value"))
        if missing or not known:
            return False
        if operator in {"match", "starts-with", "ends-with"} and not isinstance(value, str | Renderable):
            self.refuse(f"`{operator}` takes a text, not {shown(value)}", (*path, "value"))
        if operator == "match" and isinstance(value, str):
            try:
                value = re.compile(value)
            except re.error as error:
                self.refuse(f"{shown(value)} is not a regular expression: {error}", (*path, "value"))
        return self.folded(Comparison(source, operator, value), (source, value), path)

    def too_deep(self, path: TreePath) -> bool:
        if len(path) > MAX_TREE_DEPTH:
            self.refuse(f"values are nested more than {MAX_TREE_DEPTH} deep", path)
            return True
        return False

    def known_keys(self, data: Mapping[str, Any], valid: Collection[str], path: TreePath) -> None:
        for key in data:
            if key not in valid:
                self.refuse(f"unknown key `{key}`", (*path, key), did_you_mean(str(key), valid))

    def folded(self, node: Renderable, children: Collection[Any], path: TreePath) -> Any:
        """`node`, or its value if none of its `children` varies."""
        if self.errors or any(isinstance(child, Renderable) for child in children):
            return node
        try:
            return node.render(Scope({}))
        except InvalidInput as error:
            self.refuse(error.message, path, error.hint)
            return None
