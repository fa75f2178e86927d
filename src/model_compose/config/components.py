"""Which components does a file name, and what are they?"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from model_compose.config.actions import Actions
from model_compose.config.mistakes import Mistakes
from model_compose.config.read import WRONG, Reader
from model_compose.config.references import CONTEXT, check_references, compiled
from model_compose.config.schema import (
    SYNTHESISED_COMPONENT,
    ActionKeys,
    Component,
    ComponentKeys,
    default_of,
)
from model_compose.config.shape import Ids, id_of, names_of, one_default, part
from model_compose.config.spec import Catalog, fields_of
from model_compose.config.tree import Node, at_key, locate

_COMMON = names_of(ComponentKeys)


class Components:
    """Reads components, and keeps them by id.

    found     those that have an id, the wrong ones too: that they are wrong has then been told, and who
              names them is right; they have no type
    declared  the ids of those that stand at the top of the file
    nodes     where they are, the others too
    """

    def __init__(self, catalog: Catalog, mistakes: Mistakes) -> None:
        self.found: dict[str, Component] = {}
        self.declared: tuple[str, ...] = ()
        self.nodes: dict[str, Node] = {}
        self._catalog = catalog
        self._mistakes = mistakes
        self._reader = Reader(mistakes, catalog)
        self._ids = Ids("component", SYNTHESISED_COMPONENT, mistakes)

    @property
    def incomplete(self) -> bool:
        """Whether there are some whose id cannot be read."""
        return self._ids.incomplete

    def default(self) -> Component | None:
        """The declared component that is meant where none is named, if that is clear."""
        return default_of(tuple(self.found[name] for name in self.declared))

    def declare(self, nodes: list[Node]) -> None:
        """Take in the components of the file."""
        for node in nodes:
            name = self._ids.add(node)
            component = self._read(node)
            if name is not None:
                self.found.setdefault(name, component or Component(name, "", None, ()))
                self.nodes.setdefault(name, node)
        self.declared = tuple(self.found)
        one_default("component", nodes, self._mistakes)

    def inline(self, node: Node, name: str) -> Component:
        """Take in a component that stands inside a job; `name` is its id if it has none of its own."""
        if at_key(node, "id") is not None:
            name = self._ids.add(node) or name
        component = self._read(node) or Component(name, "", None, ())
        self.nodes.setdefault(name, node)
        return self.found.setdefault(name, msgspec.structs.replace(component, id=name))

    def _read(self, node: Node) -> Component | None:
        name = id_of(node, "")
        where = f"component `{name}`" if name else "the component"
        if not self._reader.is_map(node, where):
            return None
        keys = self._reader.struct(part(node, _COMMON), ComponentKeys, where)
        if keys is WRONG:
            if at_key(node, "type") is None:
                self._check_keys(node, where)
            return None
        spec = self._catalog.component(keys.type)
        assert spec is not None  # the reader has looked
        own = names_of(spec.config)
        values = self._reader.values(part(node, own), spec.config, where)
        wrong = {name for name, value in values.items() if value is WRONG}
        needed = [field.name for field in fields_of(spec.config) if field.required and field.name in wrong]
        if needed:
            if all(at_key(node, name) is None for name in needed):
                self._check_keys(node, where)
            return None
        config = spec.config(**{name: value for name, value in values.items() if name not in wrong})
        report = _Report(node, where, wrong, self._reader, self._mistakes)
        if spec.complete is not None:
            config = spec.complete(config, self._catalog, report)
        action = spec.action(config, self._catalog, report)
        if action is None:
            if spec.complete is not None and not wrong:
                self._check_keys(node, where)  # what it lacks hides no mistake in its other keys
            return None
        reading = Actions(action, where, self._catalog, self._mistakes)
        actions = reading.read(node, own | _COMMON)
        if actions is None:
            return None
        return Component(
            keys.id,
            keys.type,
            config,
            actions,
            keys.default,
            keys.max_concurrent_count,
            node.place,
            reading.direct(actions) if spec.direct else None,
            spec.aliases(config) if spec.aliases is not None else (),
        )

    def _check_keys(self, node: Node, where: str) -> None:
        """Note keys that no component has, of one of which nobody can say what it does."""
        assert isinstance(node.value, dict)
        own, of_actions = component_keys(self._catalog)
        for key, entry in node.value.items():
            if key not in own | of_actions:
                self._reader.strange_key(entry, own, where, "component")


def component_keys(catalog: Catalog) -> tuple[frozenset[str], frozenset[str]]:
    """The keys that a component of some type can have, and those of the actions of some task."""
    specs = [spec for name in catalog.components() if (spec := catalog.component(name)) is not None]
    tasks = [task for name in catalog.tasks() if (task := catalog.task(name)) is not None]
    own = _COMMON.union({"action", "actions"}, *(names_of(spec.config) for spec in specs))
    requests = [*(task.request for task in tasks), *(request for spec in specs for request in spec.requests)]
    of_actions = names_of(ActionKeys).union({"params"}, *map(names_of, requests))
    return own, of_actions


class _Report:
    """A component's own part of the file, for what its type has to say about it."""

    def __init__(
        self, node: Node, where: str, wrong: Collection[str], reader: Reader, mistakes: Mistakes
    ) -> None:
        self._node = node
        self._wrong = wrong
        self._where = where
        self._reader = reader
        self._mistakes = mistakes

    def error(self, message: str, *path: str | int, hint: str | None = None) -> None:
        self._mistakes.add(message, locate(self._node, path), hint=hint)

    def warn(self, message: str, *path: str | int) -> None:
        self._mistakes.warn(message, locate(self._node, path))

    def wrong(self, key: str) -> bool:
        return key in self._wrong

    def read(self, struct: type[msgspec.Struct], *path: str | int, more: bool = False) -> Any:
        node = locate(self._node, path)
        if node is self._node:
            return struct()
        where = f"`{'.'.join(map(str, path))}` of {self._where}"
        value = self._reader.struct(node, struct, where, more=more)
        return None if value is WRONG else value

    def tree(self, *path: str | int) -> Any:
        node = locate(self._node, path)
        tree = compiled(node, self._mistakes)
        check_references(node, tree, {"input": None, "context": CONTEXT}, self._mistakes)
        return tree
