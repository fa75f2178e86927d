"""How does a node become a value of a declared type, and what is said when it cannot?

Every mistake is noted with its place; nothing stops at the first. Numbers that a text slot gets are
taken as they were written, so `revision: 1234567` needs no quotes.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from model_compose.config.annotations import (
    bare,
    choices,
    in_words,
    is_list,
    is_map,
    is_struct,
    members,
    meta,
)
from model_compose.config.expression import Template
from model_compose.config.later import KEYS, Part
from model_compose.config.mistakes import Mistakes
from model_compose.config.scalars import resolve
from model_compose.config.schema import WebUi
from model_compose.config.spec import Catalog, Field, fields_of
from model_compose.config.template import OPERATOR_KEYS
from model_compose.config.tree import Entry, Node, at_key, to_data
from model_compose.config.values import shown
from model_compose.errors import nearest

#: Stands for a value that could not be read; the mistake is noted.
WRONG: Any = msgspec.UNSET


class Reader:
    """Reads nodes as declared types, noting mistakes.

    templates  whether any value may contain `${...}` of a run, as those of an action do. What is read
               is then data to be compiled, with maps in place of structs
    """

    def __init__(self, mistakes: Mistakes, catalog: Catalog, *, templates: bool = False) -> None:
        self._mistakes = mistakes
        self._catalog = catalog
        self._templates = templates

    def of_templates(self) -> Reader:
        """The same for a place where any value may contain `${...}`."""
        return Reader(self._mistakes, self._catalog, templates=True)

    def struct(
        self,
        node: Node,
        cls: type[msgspec.Struct],
        where: str,
        part: Part | None = None,
        *,
        more: bool = False,
    ) -> Any:
        """A map as a struct; `where` names it in messages, `part` says which keys may come later.

        With `more` it may have other keys too, which are not looked at.

        A mistake in an optional field is noted, and the field has its default, so that the rest of
        the file can be looked at too. WRONG if a required field cannot be had.
        """
        values = self.values(node, cls, where, part, more=more)
        right = {name: value for name, value in values.items() if value is not WRONG}
        if any(field.required and field.name not in right for field in fields_of(cls)):
            return WRONG
        if self._templates:
            tag = cls.__struct_config__
            return {tag.tag_field: tag.tag, **right} if tag.tag_field else right
        try:
            return cls(**right)
        except ValueError as error:  # what a struct says of several fields together
            self._mistakes.add(f"{where}: {error}", node)
            return WRONG

    def values(
        self,
        node: Node,
        cls: type[msgspec.Struct],
        where: str,
        part: Part | None = None,
        *,
        more: bool = False,
    ) -> dict[str, Any]:
        """The fields of a struct that a map gives, WRONG those that cannot be read or should be there."""
        fields = fields_of(cls)
        tag = cls.__struct_config__.tag_field
        names = {name for field in fields for name in field.names}
        entries = self.entries(node, {*names, *([tag] if tag else [])}, where, part, more=more)
        if entries is None:
            return {field.name: WRONG for field in fields}
        values = self.fields(entries, fields, where)
        for field in fields:
            if field.required and field.name not in values:
                values[field.name] = WRONG
                if not node.lost:
                    self._missing(field, node, where)
        return values

    def entries(
        self,
        node: Node,
        valid: Collection[str],
        where: str,
        part: Part | None = None,
        *,
        more: bool = False,
    ) -> dict[str, Entry] | None:
        """The valid entries of a map. Others are noted, unless free (`x-...`) or allowed by `more`."""
        if not self.is_map(node, where):
            return None
        assert isinstance(node.value, dict)
        for key, entry in node.value.items():
            if key not in valid and not more:
                self.strange_key(entry, valid, where, part)
        return {key: entry for key, entry in node.value.items() if key in valid}

    def is_map(self, node: Node, where: str) -> bool:
        """Whether a node is a map; noted if it should be one and is not."""
        if not isinstance(node.value, dict) and not node.lost:
            self._expected("a map", node, where)
        return isinstance(node.value, dict)

    def strange_key(self, entry: Entry, valid: Collection[str], where: str, part: Part | None = None) -> None:
        """Note a key that is not valid, unless it is a free one."""
        later = KEYS[part] if part else {}
        if entry.key in later:
            self._mistakes.later(
                f"`{entry.key}` of {where}", entry.key_node, hint=later[entry.key], once="later"
            )
        elif not entry.key.startswith("x-"):
            self._mistakes.unknown("field", entry.key, valid, where, entry.key_node)

    def comes_later(self, node: Node, key: str, cls: type[msgspec.Struct], where: str) -> bool:
        """Whether a key of a map has a value of other versions of this format; that is noted."""
        value = at_key(node, key)
        field = next(field for field in fields_of(cls) if field.name == key)
        if value is None or not isinstance(value.value, str) or value.value not in field.later:
            return False
        self.field(value, field, key, where)
        return True

    def fields(self, entries: Mapping[str, Entry], fields: Collection[Field], where: str) -> dict[str, Any]:
        """The given fields by their proper names; the same field under two names is noted."""
        values = {}
        for field in fields:
            given = [entries[name] for name in field.names if name in entries]
            if len(given) > 1:
                names = " and ".join(f"`{entry.key}`" for entry in given)
                self._mistakes.add(f"{names} are the same field of {where}", given[1].key_node, once="same")
            if given:
                values[field.name] = self.field(given[0].node, field, given[0].key, where)
        return values

    def field(self, node: Node, field: Field, name: str, where: str) -> Any:
        """The value of one field, by the name that it is given under."""
        what = f"`{name}` of {where}"
        if isinstance(node.value, str) and node.value in field.later:
            value = f"`{node.value}` as {what}"
            self._mistakes.later(value, node, hint=field.later[node.value], once="later")
            return WRONG
        if field.quantity is not None and not (node.lost or isinstance(node.value, Template)):
            return self._quantity(node, field, what)
        value = self.value(node, field.accepts, what, template=self._templates or field.template)
        if field.refers_to is not None and isinstance(value, str):
            return self._referred(value, node, field.refers_to, where)
        return value

    def value(self, node: Node, expected: Any, what: str, *, template: bool = False) -> Any:
        """A node as the expected type; with `template` it may be an expression, to be compiled."""
        if node.lost and node.value is None:
            return WRONG
        if isinstance(node.value, Template):
            return node.value if template else self._too_early(node, node.value, expected, what)
        if template and expected is Any:
            return to_data(node)
        options = members(expected)
        if isinstance(node.value, dict):
            return self._map(node, node.value, options, what, template=template)
        if isinstance(node.value, tuple):
            return self._list(node, node.value, options, what, template=template)
        return self._scalar(node, options, what)

    def _missing(self, field: Field, node: Node, where: str) -> None:
        names = self._names(field.refers_to) if field.refers_to else ()
        listed = f"{field.description}: {', '.join(f'`{name}`' for name in names)}"
        message, hint = f"`{field.name}` is missing in {where}", listed if names else field.description
        self._mistakes.add(message, node, hint=hint or None, once=f"missing {field.name}")

    def _referred(self, name: str, node: Node, kind: str, where: str) -> Any:
        """A name of something in the catalog, if it has it."""
        found = self._catalog.task(name) if kind == "task" else self._catalog.component(name)
        if found is not None:
            return name
        kinds = self._names(kind)
        called = "component type" if kind == "component" else kind
        if kind == "component" and self._catalog.later(name):
            hint = f"supported: {', '.join(f'`{each}`' for each in kinds)}"
            self._mistakes.later(f"{called} `{name}`", node, hint=hint)
        else:
            self._mistakes.unknown(called, name, kinds, where, node)
        return WRONG

    def _names(self, kind: str) -> tuple[str, ...]:
        return self._catalog.tasks() if kind == "task" else self._catalog.components()

    def _quantity(self, node: Node, field: Field, what: str) -> Any:
        assert field.quantity is not None
        if node.value is None and field.default is None:
            return None
        try:
            return field.quantity.read(node.value)
        except ValueError:
            return self._expected(field.quantity.wanted, node, what)

    def _too_early(self, node: Node, template: Template, expected: Any, what: str) -> Any:
        """Note an expression where the file itself must say the value."""
        reference = next(template.references(), None)
        if reference is None:  # such as `${env.X as image}`
            return self._expected(in_words(members(expected)), node, what)
        self._mistakes.add(
            f"`{reference.text}` has no value yet when {what} is read",
            node,
            place=node.place_of(reference.start, reference.end),
            hint="only `${env.NAME}` is known when a file is loaded",
            once="too early",
        )
        return WRONG

    def _map(
        self, node: Node, entries: Mapping[str, Entry], options: list[Any], what: str, *, template: bool
    ) -> Any:
        if template and not OPERATOR_KEYS.isdisjoint(entries):
            return to_data(node)  # what it gives is known when it is rendered
        structs = [option for option in map(bare, options) if is_struct(option)]
        if structs:
            chosen = structs[0] if len(structs) == 1 else self._tagged(entries, structs, what)
            if chosen is WRONG:
                return WRONG
            if any(
                f.name == "type" and self.comes_later(node, f.name, chosen, what) for f in fields_of(chosen)
            ):
                return WRONG  # its other keys are not known here
            part: Part | None = "source" if chosen.__struct_config__.tag_field == "provider" else None
            part = "webui" if chosen is WebUi else part
            return self.struct(node, chosen, what, part)
        kind = next((option for option in map(bare, options) if option is Any or is_map(option)), None)
        if kind is None:
            return self._expected(in_words(options), node, what)
        item = Any if kind is Any else typing.get_args(kind)[1]
        values = {
            key: self.value(entry.node, item, f"`{key}` in {what}", template=template)
            for key, entry in entries.items()
            if template or not key.startswith("x-")
        }
        return WRONG if any(value is WRONG for value in values.values()) else values

    def _tagged(self, entries: Mapping[str, Entry], structs: list[Any], what: str) -> Any:
        """Which of several structs a map is, told by its tag or else by its keys."""
        tag_field = structs[0].__struct_config__.tag_field
        by_tag = {str(struct.__struct_config__.tag): struct for struct in structs}
        if tag_field not in entries:
            required = {s: {field.name for field in fields_of(s) if field.required} for s in structs}
            return max(structs, key=lambda struct: len(required[struct] & entries.keys()))
        tag = entries[tag_field].node
        if tag.lost:
            return WRONG
        if not isinstance(tag.value, str):
            return self._expected(
                f"one of {', '.join(f'`{each}`' for each in by_tag)}", tag, f"`{tag_field}` of {what}"
            )
        if tag.value not in by_tag:
            self._mistakes.unknown(tag_field, tag.value, by_tag, what, tag)
            return WRONG
        return by_tag[tag.value]

    def _list(
        self, node: Node, items: tuple[Node, ...], options: list[Any], what: str, *, template: bool
    ) -> Any:
        lists = [option for option in options if is_list(option)]
        if not lists and not any(bare(option) is Any for option in options):
            return self._expected(in_words(options), node, what)
        # Of `list[list[X]] | list[X]` the depth of the node tells which is meant.
        chosen = bare(min(lists, key=lambda option: _misfit(items, option))) if lists else list[Any]
        item = typing.get_args(chosen)[0]
        values = [
            self.value(each, item, f"item {number} of {what}", template=template)
            for number, each in enumerate(items, 1)
        ]
        if not values and any((limits := meta(each)) and limits.min_length for each in lists):
            return self._expected(in_words(options), node, what)
        if any(value is WRONG for value in values):
            return WRONG
        return tuple(values) if typing.get_origin(chosen) is tuple else values

    def _scalar(self, node: Node, options: list[Any], what: str) -> Any:
        value = node.value
        kinds = {bare(option) for option in options}
        wants_text = str in kinds and kinds.isdisjoint((int, float, bool, Any))
        if wants_text and node.text is not None and value is not None:
            value = node.text
        leaves = tuple(o for o in options if not (is_list(o) or is_map(o) or is_struct(bare(o))))
        if leaves and _sane(value):
            try:
                return msgspec.convert(value, typing.Union[leaves])  # noqa: UP007
            except msgspec.ValidationError:
                pass
        return self._expected(in_words(options), node, what, choices(options))

    def _expected(self, words: str, node: Node, what: str, choices: Collection[str] = ()) -> Any:
        if node.lost:
            return WRONG
        hint = _hint(node, words, choices) if isinstance(node.value, str) else None
        self._mistakes.add(f"{what}: expected {words}, found {found(node)}", node, hint=hint, once=words)
        return WRONG


def _hint(node: Node, words: str, choices: Collection[str]) -> str | None:
    """What to do about a text that should be something else."""
    text = str(node.value)
    if "`true`" in words and text in ("yes", "no", "on", "off"):
        return "in YAML 1.2 only `true` and `false` are booleans"
    kinds = ("`true`",) if isinstance(resolve(text), bool) else ("an integer", "a number")
    if not isinstance(resolve(text), str) and any(kind in words for kind in kinds) and not node.notes:
        return "leave out the quotes"
    near = nearest(text, choices)
    return f"did you mean `{near}`?" if near else None


def found(node: Node) -> str:
    """A value in words, for messages."""
    if isinstance(node.value, dict):
        return "a map"
    if isinstance(node.value, tuple):
        return "a list" if node.value else "an empty list"
    if isinstance(node.value, Template):
        return "an expression"
    if node.value is None:
        return "`null`" if node.text else "nothing"
    return shown(node.value) if isinstance(node.value, str) or not node.text else f"`{node.text}`"


def _sane(value: Any) -> bool:
    """Whether a number can be sent to an engine and written as JSON."""
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, int) or value.bit_length() < 64


def _misfit(items: tuple[Node, ...], option: Any) -> bool:
    """Whether the items of a list are lists where the type has none, or the other way round."""
    wants_lists = any(is_list(each) for each in members(typing.get_args(bare(option))[0]))
    return wants_lists != (bool(items) and isinstance(items[0].value, tuple))
