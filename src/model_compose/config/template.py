"""What does a tree of values come to, with `${...}` and operator keys in it?

`compile_tree` takes maps, lists, constants and the `Template`s of parsed texts. Keys of a map that
are operators:

    "..."  spread the fields of a map into this one; null is ignored (in a list: an item `...${x}`)
    "*"    a list with the rest of this map for every `${item}` (at `${index}`) of a list or stream; the
           item itself if there is no rest. The list stands here, or as {input, where}
    "|"    the same, as one map of lists: one list for each key of the rest, or else of the items
    "?"    {input, operator, value, if_true, if_false}, or a list of them: the first branch that is
           there. Alone it replaces its map, beside other keys its fields join theirs
    "+"    alone: texts written one behind the other, lists in one list, or maps in one map

Conditions are those of `condition.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterable, AsyncIterator, Collection, Iterator, Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from model_compose.config.condition import ConditionCompiler
from model_compose.config.expression import (
    Reference,
    Renderable,
    Scope,
    Template,
    TreePath,
    references,
    render,
)
from model_compose.config.values import LISTS, MEDIA_TYPES, TEXT_TYPES, shown, to_text
from model_compose.errors import InvalidInput
from model_compose.types import Result, plain

OPERATOR_KEYS: Final = frozenset({"...", "*", "|", "?", "+"})


def compile_tree(data: Any) -> Any:
    """`data` with its operators understood: a `Renderable`, or a constant if nothing in it varies.

    Raises ConfigErrors: an ExpressionError for each mistake, with the `path` to its key.
    """
    compiler = _Compiler()
    tree = compiler.tree(data, ())
    compiler.finish()
    return tree


def accept_lists(tree: Any) -> Any:
    """A compiled tree for a slot that takes a list: `${x as text}`, or `as image`, leaves a list a list."""
    if isinstance(tree, Reference) and tree.type is not None and tree.type.name in TEXT_TYPES | MEDIA_TYPES:
        return replace(tree, type=replace(tree.type, lists=True))
    return tree


class Map(Renderable, frozen=True):
    """A map with ordinary keys; `constants` has them all, in order, the rendered ones as null."""

    constants: dict[str, Any]
    rendered: tuple[tuple[str, Renderable], ...]

    def render(self, scope: Scope) -> dict[str, Any]:
        out = self.constants.copy()
        for key, node in self.rendered:
            out[key] = node.render(scope)
        return out

    def references(self) -> Iterator[Reference]:
        for _, node in self.rendered:
            yield from node.references()


class List(Renderable, frozen=True):
    """A list without spread items; `constants` has them all, the rendered ones as null."""

    constants: list[Any]
    rendered: tuple[tuple[int, Renderable], ...]

    def render(self, scope: Scope) -> list[Any]:
        out = self.constants.copy()
        for index, node in self.rendered:
            out[index] = node.render(scope)
        return out

    def references(self) -> Iterator[Reference]:
        for _, node in self.rendered:
            yield from node.references()


class MergedMap(Renderable, frozen=True):
    """A map where the fields of some values (`spread`) stand beside ordinary keys; later ones win."""

    entries: tuple[tuple[str, Any], ...]
    spread: frozenset[str]

    def render(self, scope: Scope) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, node in self.entries:
            value = render(node, scope)
            if key not in self.spread:
                out[key] = value
            elif value is not None:
                out.update(_map(value, key))
        return out

    def references(self) -> Iterator[Reference]:
        for _, node in self.entries:
            yield from references(node)


class MergedList(Renderable, frozen=True):
    """A list where the items of some lists stand beside others; `items` are (is spread, node)."""

    items: tuple[tuple[bool, Any], ...]

    def render(self, scope: Scope) -> list[Any]:
        out: list[Any] = []
        for is_spread, node in self.items:
            value = render(node, scope)
            if not is_spread:
                out.append(value)
            elif value is not None:
                out.extend(_list(value, "..."))
        return out

    def references(self) -> Iterator[Reference]:
        for _, node in self.items:
            yield from references(node)


class Join(Renderable, frozen=True):
    """The `+` of texts, lists or maps."""

    values: Any

    def render(self, scope: Scope) -> Any:
        values = render(self.values, scope)
        if values is None:
            return None
        present = [_plain(value) for value in _list(values, "+") if value is not None]
        if not present:
            return None
        if all(isinstance(value, dict) for value in present):
            return {key: value for each in present for key, value in each.items()}
        if all(isinstance(value, LISTS) for value in present):
            return [value for each in present for value in each]
        if any(isinstance(value, (dict, *LISTS)) for value in present):
            raise InvalidInput("`+` joins texts, lists or maps, and not one kind with another", field="+")
        return "".join(to_text(value, "+") for value in present)

    def references(self) -> Iterator[Reference]:
        yield from references(self.values)


class Branch(msgspec.Struct, frozen=True):
    """What a condition leads to; UNSET where the file says nothing."""

    condition: Any
    if_true: Any = UNSET
    if_false: Any = UNSET


class Choice(Renderable, frozen=True):
    """The `?`: the first branch that is there, else null."""

    branches: tuple[Branch, ...]

    def render(self, scope: Scope) -> Any:
        for branch in self.branches:
            chosen = branch.if_true if render(branch.condition, scope) else branch.if_false
            if chosen is not UNSET:
                return render(chosen, scope)
        return None

    def references(self) -> Iterator[Reference]:
        for branch in self.branches:
            for node in (branch.condition, branch.if_true, branch.if_false):
                yield from references(node)


class ForEach(Renderable, frozen=True):
    """The `*`: `body` for the items of a list that `where` admits, or for chunks of a stream as they come."""

    input: Any
    where: Any
    body: Any

    def render(self, scope: Scope) -> Any:
        items = render(self.input, scope)
        if items is None:
            return None
        if isinstance(items, AsyncIterable):
            return self.render_stream(items, scope)
        scopes = (self.item_scope(scope, index, item) for index, item in enumerate(_list(items, "*")))
        return [render(self.body, each) for each in scopes if each is not None]

    async def render_stream(self, stream: AsyncIterable[Any], scope: Scope) -> AsyncIterator[Any]:
        """The same as a stream; when it is closed, so is the one that it reads."""
        try:
            index = 0
            async for item in stream:
                item_scope = self.item_scope(scope, index, item)
                if item_scope is not None:
                    yield render(self.body, item_scope)
                index += 1
        finally:
            if (close := getattr(stream, "aclose", None)) is not None:
                await close()

    def item_scope(self, scope: Scope, index: int, item: Any) -> Scope | None:
        child = scope.child({"item": item, "index": index})
        return child if render(self.where, child) else None

    def references(self) -> Iterator[Reference]:
        yield from references(self.input)
        for node in (self.where, self.body):
            yield from (each for each in references(node) if each.key not in {"item", "index"})


class Split(Renderable, frozen=True):
    """The `|`: the maps that `rows` gives as one map of lists, which has at least `fields`."""

    rows: Any
    fields: tuple[str, ...]

    def render(self, scope: Scope) -> Any:
        rows = render(self.rows, scope)
        if rows is None:
            return None
        maps = [_map(row, "|") for row in _list(rows, "|")]
        keys = dict.fromkeys(itertools.chain(self.fields, *maps))
        return {key: [each.get(key) for each in maps] for key in keys}

    def references(self) -> Iterator[Reference]:
        yield from references(self.rows)


def _plain(value: Any) -> Any:
    return plain(value) if isinstance(value, Result) else value


def _map(value: Any, operator: str) -> dict[str, Any]:
    value = _plain(value)
    if not isinstance(value, dict):
        raise InvalidInput(f"`{operator}` takes a map, not {shown(value)}", field=operator)
    return value


def _list(value: Any, operator: str) -> list[Any]:
    value = _plain(value)
    if not isinstance(value, LISTS):
        raise InvalidInput(f"`{operator}` takes a list, not {shown(value)}", field=operator)
    return list(value)


class _Compiler(ConditionCompiler):
    """Turns data into a tree, and notes every mistake in it."""

    def tree(self, data: Any, path: TreePath) -> Any:
        if self.too_deep(path):
            return None
        if isinstance(data, Template):
            return data.whole or data
        if isinstance(data, dict):
            return self.mapping(data, path)
        return self.sequence(data, path) if isinstance(data, LISTS) else data

    def mapping(self, data: Mapping[str, Any], path: TreePath) -> Any:
        for key, operator in (("*", self.for_each), ("|", self.split), ("+", self.join)):
            if key in data:
                return operator(data[key], {name: data[name] for name in data if name != key}, (*path, key))
        if set(data) == {"?"}:
            return self.choice(data["?"], (*path, "?"))
        entries = {
            key: (self.choice if key == "?" else self.tree)(value, (*path, key))
            for key, value in data.items()
        }
        if spread := OPERATOR_KEYS & set(entries):
            for key in sorted(spread):
                if not (entries[key] is None or isinstance(entries[key], dict | Renderable)):
                    self.refuse(f"`{key}` takes a map, not {shown(entries[key])}", (*path, key))
            return self.folded(MergedMap(tuple(entries.items()), spread), entries.values(), path)
        rendered = tuple((key, node) for key, node in entries.items() if isinstance(node, Renderable))
        return Map(entries | dict.fromkeys(key for key, _ in rendered), rendered) if rendered else entries

    def sequence(self, data: Collection[Any], path: TreePath) -> Any:
        items = [_spread_item(item) for item in data]
        nodes = [
            (is_spread, self.tree(item, (*path, index))) for index, (is_spread, item) in enumerate(items)
        ]
        if any(is_spread for is_spread, _ in nodes):
            return MergedList(tuple(nodes))
        values = [node for _, node in nodes]
        rendered = tuple((index, node) for index, node in enumerate(values) if isinstance(node, Renderable))
        if not rendered:
            return values
        return List([None if isinstance(node, Renderable) else node for node in values], rendered)

    def for_each(self, data: Any, rest: Mapping[str, Any], path: TreePath) -> Any:
        where: Any = True
        if isinstance(data, dict) and "input" in data:
            self.known_keys(data, {"input", "where"}, path)
            source = self.tree(data["input"], (*path, "input"))
            if "where" in data:
                where = self.condition(data["where"], (*path, "where"))
        else:
            source = self.tree(data, path)
        if isinstance(source, dict | Map | str):
            self.refuse(f"`{path[-1]}` takes a list, or a map of `input` and `where`", path)
        body = self.tree(rest, path[:-1]) if rest else Reference("${item}", 0, 7, "item", (), "item")
        return self.folded(ForEach(source, where, body), (source, where, body), path)

    def split(self, data: Any, rest: Mapping[str, Any], path: TreePath) -> Any:
        rows = self.for_each(data, rest, path)
        return self.folded(Split(rows, tuple(rest)), (rows,), path)

    def join(self, data: Any, rest: Mapping[str, Any], path: TreePath) -> Any:
        if rest:
            self.refuse("`+` stands alone in its map", path, "put the other keys and this map under `...`")
            self.tree(rest, path[:-1])  # they may have mistakes of their own
        values = self.tree(data, path)
        return self.folded(Join(values), (values,), path)

    def choice(self, data: Any, path: TreePath) -> Any:
        items = (
            [((*path, index), item) for index, item in enumerate(data)]
            if isinstance(data, list)
            else [(path, data)]
        )
        branches = tuple(self.branch(item, where) for where, item in items)
        nodes = [node for each in branches for node in (each.condition, each.if_true, each.if_false)]
        return self.folded(Choice(branches), nodes, path)

    def branch(self, data: Any, path: TreePath) -> Branch:
        if not isinstance(data, dict):
            return Branch(self.condition(data, path))
        if not data.keys() & {"if_true", "if_false"}:
            self.refuse("a conditional has `if_true`, `if_false` or both", path)
        if_true, if_false = (
            self.tree(data[key], (*path, key)) if key in data else UNSET for key in ("if_true", "if_false")
        )
        asked = {key: value for key, value in data.items() if key not in {"if_true", "if_false"}}
        return Branch(self.condition(asked, path), if_true, if_false)


def _spread_item(item: Any) -> tuple[bool, Any]:
    """Whether an item of a list is `...${x}`, and what is spread then."""
    if isinstance(item, Template) and len(item.parts) == 2 and item.parts[0] == "...":
        return True, item.parts[1]
    return False, item
