"""What can a component be asked to do, and with which values?

Actions stand in a list `actions`, alone in `action`, or with their keys among those of the component;
a component that says nothing of actions has one that takes every value from the input.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from model_compose.config.annotations import names_in
from model_compose.config.expression import Reference, Renderable, Template
from model_compose.config.grammar import parse
from model_compose.config.later import Part
from model_compose.config.mistakes import Mistakes
from model_compose.config.read import WRONG, Reader
from model_compose.config.references import CONTEXT, Known, check_references, compiled, results
from model_compose.config.schema import DIRECT, SYNTHESISED_ACTION, Action, ActionKeys, Tree, default_of
from model_compose.config.shape import Ids, id_of, listed, names_of, one_default, part, quoted
from model_compose.config.spec import ActionSpec, Catalog, Field, fields_of
from model_compose.config.template import accept_lists
from model_compose.config.tree import Entry, Node, at_key, locate, locate_key
from model_compose.config.values import Type, shown
from model_compose.errors import did_you_mean

#: What the values of an action can refer to.
_SOURCES: Mapping[str, Known] = {"input": None, "context": CONTEXT}
_COMMON = names_of(ActionKeys)


class Actions:
    """Reads the actions of one component, which `where` names in messages."""

    def __init__(self, spec: ActionSpec, where: str, catalog: Catalog, mistakes: Mistakes) -> None:
        self.spec = spec
        self.where = where
        self.mistakes = mistakes
        self.reader = Reader(mistakes, catalog)
        self.fields = {name: field for field in fields_of(spec.request) for name in field.names}
        self.variants = {name: Actions(v, where, catalog, mistakes) for name, v in spec.variants.items()}
        self.valid: set[str] = {*self.fields, *_COMMON, *spec.nested}.union(
            *(v.valid for v in self.variants.values())
        )
        if spec.by is not None:
            self.valid.add(spec.by)

    def read(self, node: Node, own: Collection[str]) -> tuple[Action, ...] | None:
        """The actions of a component with these keys of its `own`; None if nobody can say which it has."""
        assert isinstance(node.value, dict)
        entries = {key: entry for key, entry in node.value.items() if not key.startswith("x-")}
        name = at_key(node, "action")
        if name is not None and isinstance(name.value, str):
            del entries["action"]  # it names the one whose keys stand here
        else:
            name = None
        nested = listed(entries, "action", self.mistakes)
        inlined = entries.keys() - set(own) - {"action", "actions"}
        if nested:
            for key in inlined:
                self.misplaced(node.value[key], own)
            if name is not None:
                self.mistakes.add("`action` is a name here, and there are `actions`", name, hint="keep one")
            return self.several(nested)
        if not inlined:
            found = self.defaults(None if name is None else str(name.value), node)
        else:
            called = None if name is None else str(name.value)
            action = self.one(part(node, inlined), self.where, own, "component", called)
            found = () if action is None else (action,)
        if entries.keys() & {"action", "actions"}:
            return None  # they are no list, or an empty one, which has been told
        if name is not None and len(found) == 1:
            found = (replace(found[0], id=str(name.value)),)
        return found or None

    def misplaced(self, entry: Entry, own: Collection[str]) -> None:
        """Note a key of a component that should be one of an action, or nowhere."""
        if entry.key not in self.valid:
            valid = {*own, "action", "actions"}
            self.reader.strange_key(entry, valid, self.where, "component")
            return
        message = f"`{entry.key}` of {self.where} belongs in one of its actions"
        hint = "keys of an action stand in the component only if it has no others"
        self.mistakes.add(message, entry.key_node, hint=hint, once="misplaced")

    def several(self, nodes: list[Node]) -> tuple[Action, ...] | None:
        """The actions of a list."""
        ids = Ids("action", SYNTHESISED_ACTION, self.mistakes)
        found = []
        for node in nodes:
            name = ids.add(node)
            called = f"action `{name}`" if name and at_key(node, "id") else "an action"
            action = self.one(node, f"{called} of {self.where}")
            if action is not None and name is not None:
                found.append(action)
        if len(found) < len(nodes):
            return None
        one_default("action", nodes, self.mistakes)
        return tuple(found)

    def one(
        self,
        node: Node,
        where: str,
        also_valid: Collection[str] = (),
        place: Part | None = None,
        name: str | None = None,
    ) -> Action | None:
        """One action; None if nobody can say what it is. `name` is what the component calls it."""
        if self.variants:
            variant = self.variant(node, where, name)
            if variant is None or not isinstance(node.value, dict):
                return None
            return variant.one(part(node, node.value.keys() - {self.spec.by}), where, also_valid, place)
        entries = self.reader.entries(node, {*self.valid, *also_valid}, where, place)
        if entries is None:
            return None
        keys = self.reader.struct(part(node, _COMMON), ActionKeys, where)
        assert isinstance(keys, ActionKeys)  # it has no required field
        if keys.streaming and self.spec.chunk is None:
            key = locate_key(node, ["streaming"])
            self.mistakes.add("`streaming` cannot be used here: what it gives does not come in pieces", key)
        values = self.values(self.flat(node, entries, where), node, where)
        output = self.output(node)
        if self.spec.check is not None:
            self.spec.check({**values, "output": output}, _Remarks(node, self.mistakes))
        return Action(keys.id, self.spec, values, output, keys.streaming, keys.timeout, keys.default)

    def variant(self, node: Node, where: str, name: str | None) -> Actions | None:
        """Which of its variants an action is; one that does not say may be named like it."""
        if not self.reader.is_map(node, where):
            return None
        assert self.spec.by is not None
        said = at_key(node, self.spec.by)
        wanted = name or id_of(node, "") if said is None else said.value
        if isinstance(wanted, str) and wanted in self.variants:
            return self.variants[wanted]
        hint = did_you_mean(str(wanted), self.variants) or f"valid: {', '.join(map(quoted, self.variants))}"
        if said is None:
            self.mistakes.add(f"`{self.spec.by}` of {where} is missing", node, hint=hint)
        elif not said.lost:
            self.mistakes.add(f"`{self.spec.by}` of {where} cannot be {shown(wanted)}", said, hint=hint)
        return None

    def flat(self, node: Node, entries: Mapping[str, Entry], where: str) -> dict[str, Entry]:
        """The values of an action by key, those of nested maps (`params`) among them."""
        flat = {key: entry for key, entry in entries.items() if key in self.fields}
        for group in self.spec.nested:
            inner = at_key(node, group)
            if inner is None or inner.value is None:
                continue
            nested = self.reader.entries(inner, self.fields, f"`{group}` of {where}")
            for key, entry in (nested or {}).items():
                if key in flat:
                    message = f"`{key}` stands both in `{group}` and beside it"
                    self.mistakes.add(message, entry.key_node, hint="keep one of them")
                flat[key] = entry
        return flat

    def values(self, flat: Mapping[str, Entry], node: Node, where: str) -> dict[str, Tree]:
        """A compiled tree for each field of the request that is given or required."""
        reader = self.reader.of_templates()
        given = reader.fields(flat, fields_of(self.spec.request), where)
        values: dict[str, Tree] = {}
        for field in fields_of(self.spec.request):
            if field.name not in given:
                continue
            entry = next(flat[name] for name in field.names if name in flat)
            data = given[field.name]
            self.refuse(entry, field, data)
            tree = compiled(entry.node, self.mistakes, UNSET if data is WRONG else data)
            sources = self.sources() if field.name in self.spec.late else _SOURCES
            check_references(entry.node, tree, sources, self.mistakes)
            values[field.name] = _of_slot(tree, field)
        # What it is about comes from the input, where the file does not say otherwise.
        missing = [f for f in fields_of(self.spec.request) if f.required and f.name not in given]
        self.missing([field for field in missing if field.name in self.spec.fixed], node, where)
        asked = {f.name: self.from_input(f) for f in missing if f.name not in self.spec.fixed}
        return {**self.spec.given, **asked, **values}

    def missing(self, fields: Collection[Field], node: Node, where: str) -> None:
        """Note fields that the file must say."""
        for field in fields:
            if not node.lost:
                hint = field.description
                self.mistakes.add(
                    f"`{field.name}` is missing in {where}", node, hint=hint, once=f"missing {field.name}"
                )

    def refuse(self, entry: Entry, field: Field, data: Any) -> None:
        """Note a parameter that this engine does not have, unless it says what happens anyway."""
        reason = self.spec.refuses.get(field.name)
        if reason is not None and data != field.default and not entry.node.lost:
            self.mistakes.add(f"`{entry.key}` cannot be used here: {reason}", entry.key_node)

    def output(self, node: Node) -> Tree:
        """The tree of what the action gives."""
        output = at_key(node, "output")
        if output is None:
            return UNSET
        tree = compiled(output, self.mistakes)
        check_references(output, tree, self.sources(), self.mistakes)
        return tree

    def sources(self) -> dict[str, Known]:
        """What can be referred to when there is a result."""
        whole = names_in(self.spec.result)
        chunk = {} if self.spec.chunk is None else names_in(self.spec.chunk)
        piece = None if whole is None or chunk is None else {**whole, **chunk}
        return {**_SOURCES, **results(whole, piece), **dict.fromkeys(self.spec.names)}

    def defaults(self, name: str | None, node: Node) -> tuple[Action, ...]:
        """What a component without actions does: one thing, or each of its variants, or the one it names."""
        if not self.variants:
            return (self.default(node),)
        chosen = {name} & self.variants.keys() or self.variants.keys()
        return tuple(replace(v.default(node), id=n) for n, v in self.variants.items() if n in chosen)

    def default(self, node: Node) -> Action:
        """Every field is a field of the input, but for those that only the file says."""
        fixed = [field for field in fields_of(self.spec.request) if field.name in self.spec.fixed]
        self.missing([field for field in fixed if field.required], node, self.where)
        values = {
            field.name: self.from_input(field)
            for field in fields_of(self.spec.request)
            if field.name not in self.spec.refuses and field.name not in self.spec.fixed
        }
        values = {
            **{name: tree for name, tree in self.spec.given.items() if name in self.spec.fixed},
            **values,
        }
        if self.spec.check is not None and not values:  # it has nothing but what the file does not say
            self.spec.check({"output": UNSET}, _Remarks(node, self.mistakes))
        return Action(SYNTHESISED_ACTION, self.spec, values, synthesised=True)

    def direct(self, actions: Sequence[Action]) -> Action:
        """What the component does for those who know its request: each field by its own name.

        A constant of the default action stands in for what such a caller does not say.
        """
        usual = default_of(tuple(actions))
        constants = {} if usual is None else usual.values
        values = {}
        for field in fields_of(self.spec.request):
            constant = constants.get(field.name, UNSET)
            if field.name == self.spec.main or isinstance(constant, Renderable):
                constant = UNSET
            if field.name not in self.spec.refuses:
                default = self.spec.given.get(field.name, UNSET) if constant is UNSET else constant
                values[field.name] = _of_slot(_from_input(field.name, default), field)
        timeout = None if usual is None else usual.timeout
        return Action(DIRECT, self.spec, values, timeout=timeout, synthesised=True)

    def from_input(self, field: Field) -> Tree:
        """`${input.prompt | ${input.text}}`: the names of a field in turn, then what the component gives."""
        tree: Any = self.spec.given.get(field.name, UNSET)
        for name in reversed(field.names):
            tree = _from_input(name, tree)
        return _of_slot(tree, field)


class _Remarks:
    """An action's part of the file, for what its kind has to say about it."""

    def __init__(self, node: Node, mistakes: Mistakes) -> None:
        self._node = node
        self._mistakes = mistakes

    def error(self, message: str, *path: str | int, hint: str | None = None) -> None:
        self._mistakes.add(message, locate(self._node, path), hint=hint)

    def warn(self, message: str, *path: str | int) -> None:
        self._mistakes.warn(message, locate(self._node, path))


def _from_input(name: str, default: Tree) -> Tree:
    template = parse(f"${{input.{name}}}")
    assert isinstance(template, Template)
    assert isinstance(template.whole, Reference)
    return replace(template.whole, default=default)


def _of_slot(tree: Tree, field: Field) -> Tree:
    """A tree that fills a field: what it is converted to follows from what the field takes."""
    if field.media is not None and isinstance(tree, Reference) and tree.type is None:
        tree = replace(tree, type=Type(field.media))
    return accept_lists(tree) if field.many else tree
