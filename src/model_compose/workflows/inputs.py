"""What does a workflow take? Its input schema, and the check of an input against it.

Inputs are the `${input...}` references of its jobs. A job without `input` passes the workflow's input
on, so that the references of its action count. What a value is for tells its type where the
reference names none, and whether it may be missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Union

import msgspec
from msgspec import UNSET

from model_compose.config.annotations import bare, is_list, is_map, is_struct, members
from model_compose.config.expression import Reference, references
from model_compose.config.schema import Action, Call, Filter, Project, Tree, Workflow
from model_compose.config.spec import ActionSpec, Field, fields_of
from model_compose.config.template import List, Map
from model_compose.config.values import Type
from model_compose.config.variables import variables
from model_compose.errors import InvalidInput, did_you_mean
from model_compose.workflows.graph import trees_of


class Slot(msgspec.Struct, frozen=True):
    """What a reference fills: a field of a request, and whether nothing happens without it."""

    field: Field | None = None
    required: bool = False


class InputVariable(msgspec.Struct, frozen=True):
    """One field of a workflow's input.

    name         dotted path; the part before the first dot is a key of the input
    type         what the file says after `as`, if it does
    accepts      the type of the request's field that it fills, if that is known
    default      UNSET if there is none
    instead_of   names of which this is one: one of them is enough
    alias_of     the field of the request that it fills under another name
    media        what the field's bytes are, where the file does not say it
    """

    name: str
    type: Type | None = None
    accepts: Any = None
    default: Any = UNSET
    required: bool = False
    description: str = ""
    annotations: tuple[tuple[str, str], ...] = ()
    instead_of: tuple[str, ...] = ()
    alias_of: str | None = None
    media: str | None = None

    @property
    def key(self) -> str:
        """The key of the input that it stands under."""
        return self.name.partition(".")[0]


class WorkflowInputs(msgspec.Struct, frozen=True):
    """All fields of a workflow's input.

    keys    the keys of an input, as far as they are known
    refused parameters that the engine does not have, with their default and the reason
    closed  other keys are mistakes; false when something takes the input as a whole
    main    the field that an input which is no map fills
    """

    variables: tuple[InputVariable, ...]
    keys: frozenset[str]
    refused: Mapping[str, tuple[Any, str]] = {}
    closed: bool = True
    main: str | None = None

    def accept(self, given: Any) -> dict[str, Any]:
        """An input as a map that the workflow can run with. Raises InvalidInput, naming the field."""
        value = self._without_refused(self._map(given))
        if self.closed and not value.keys() <= self.keys:
            name = next(name for name in value if name not in self.keys)
            hint = did_you_mean(name, self.keys) or "it takes no input"
            raise InvalidInput(f"unknown field `{name}` in the input", field=name, hint=hint)
        for variable in self.variables:
            if variable.required and _missing(value, variable.name):
                others = variable.instead_of or (variable.name,)
                if all(_missing(value, name) for name in others):
                    names = " or ".join(f"`{name}`" for name in others)
                    raise InvalidInput(f"{names} is missing in the input", field=variable.name)
        return value

    def from_texts(self, given: Any) -> Any:
        """An input as a form gives it: texts where fields want numbers, or true and false."""
        if not isinstance(given, dict):
            return given
        value = dict(given)
        for variable in self.variables:
            text = value.get(variable.name)
            # What the file converts (`as number`) it converts itself; what cannot be one is told later.
            if isinstance(text, str) and variable.type is None and variable.accepts is not None:
                value[variable.name] = _from_text(text, variable.accepts)
        return value

    def _without_refused(self, value: dict[str, Any]) -> dict[str, Any]:
        """An input without parameters that say what happens anyway. Raises InvalidInput for others."""
        if self.refused.keys().isdisjoint(value):
            return value
        for name, (default, reason) in self.refused.items():
            if value.get(name, default) not in (default, None):
                raise InvalidInput(f"`{name}` cannot be used here: {reason}", field=name)
        return {name: each for name, each in value.items() if name not in self.refused}

    def _map(self, given: Any) -> dict[str, Any]:
        if given is None:
            return {}
        if isinstance(given, dict):
            return given
        if self.main is None:
            hint = did_you_mean("", self.keys)
            raise InvalidInput("`input` must be a map of fields", field="input", hint=hint)
        return {self.main: given}


def inputs_of(workflow: Workflow, project: Project) -> WorkflowInputs:
    """The inputs of a workflow, in the order in which its jobs use them; what it is about comes first."""
    found = _Found()
    mains = set()
    refused: dict[str, tuple[Any, str]] = {}
    for job in workflow.jobs:
        call = job.call
        if call is None or not isinstance(job.work, Call):
            for tree in trees_of(job):
                found.tree(tree)
            found.whole = found.whole or (isinstance(job.work, Filter) and job.work.input is UNSET)
            continue
        action = project.components[call.component].action(call.action)
        slots = _action_slots(action)
        if call.input is UNSET or _is_whole_input(call.input):
            for name in sorted(action.values, key=lambda name: name != action.spec.main):
                found.tree(action.values[name], slots.get(name, Slot()), action.spec)
            found.tree(action.output)
            if _reads_main(action):
                mains.add(action.spec.main)
            if action.synthesised:
                refused |= _refused(action.spec)
        else:
            found.job_input(call, _variable_slots(action, slots))
        found.tree(job.output)
        found.tree(call.repeat_count)
        found.tree(job.on_error.output if job.on_error is not None else None)
    found.tree(workflow.output)
    main = mains.pop() if len(mains) == 1 and len(workflow.jobs) == 1 else None
    every = tuple(found.variables.values())
    keys = frozenset(variable.key for variable in every)
    return WorkflowInputs(every, keys, refused, not found.whole, main)


def _from_text(text: str, accepts: Any) -> Any:
    """The number or the like that a text stands for; the text itself where there is none."""
    options = [each for each in members(accepts) if not (is_list(each) or is_map(each) or is_struct(each))]
    if not options or any(bare(each) in (str, Any) for each in options):
        return text
    try:
        return msgspec.convert(text, Union[tuple(options)], strict=False)  # noqa: UP007  made at run time
    except msgspec.ValidationError:
        return text


def _refused(spec: ActionSpec) -> dict[str, tuple[Any, str]]:
    """What a default action would take from its input if its engine had it."""
    fields = [field for field in fields_of(spec.request) if field.name in spec.refuses]
    return {name: (field.default, spec.refuses[field.name]) for field in fields for name in field.names}


class _Found:
    def __init__(self) -> None:
        self.variables: dict[str, InputVariable] = {}
        self.whole = False

    def tree(self, tree: Tree, slot: Slot | None = None, spec: ActionSpec | None = None) -> None:
        """Note the inputs of a tree, whose value as a whole fills a slot."""
        slot = slot or Slot()
        if isinstance(tree, Reference):
            self.reference(tree, slot)
        elif isinstance(tree, Map):
            for key, node in tree.rendered:
                needed = spec is not None and spec.needs is not None and spec.needs(tree.constants, key)
                self.tree(node, Slot(required=needed), spec)
        elif isinstance(tree, List):
            for _, node in tree.rendered:
                self.tree(node, Slot(), spec)
        else:
            for reference in references(tree):
                self.reference(reference, Slot())

    def job_input(self, call: Call, slots: Mapping[str, Slot]) -> None:
        if not isinstance(call.input, Map):
            self.tree(call.input)
            return
        for key, node in call.input.rendered:
            self.tree(node, slots.get(key, Slot()))

    def reference(self, reference: Reference, slot: Slot) -> None:
        chain = list(_alternatives(reference))
        names = [v.name for each in chain for v in variables(each)[:1] if v.name is not None]
        # A default that is a constant, or another source than the input, is enough.
        last = chain[-1].default
        required = slot.required and last is UNSET and all(each.key == "input" for each in chain)
        for each in chain:
            for variable in variables(each)[:1]:
                if variable.name is None:
                    self.whole = True
                    continue
                self.add(
                    InputVariable(
                        variable.name,
                        variable.type,
                        slot.field.accepts if slot.field is not None else None,
                        _default(variable.default, slot),
                        required,
                        _description(variable.annotations, slot),
                        variable.annotations,
                        tuple(names) if required and len(names) > 1 else (),
                        _alias_of(variable.name, names, slot),
                        slot.field.media if slot.field is not None else None,
                    )
                )
            for other in references(each.default):
                if other not in chain:
                    self.reference(other, Slot())

    def add(self, variable: InputVariable) -> None:
        before = self.variables.get(variable.name)
        if before is not None:
            variable = InputVariable(
                before.name,
                before.type or variable.type,
                before.accepts or variable.accepts,
                variable.default if before.default is UNSET else before.default,
                before.required or variable.required,
                before.description or variable.description,
                before.annotations or variable.annotations,
                before.instead_of or variable.instead_of,
                before.alias_of and variable.alias_of,
                before.media or variable.media,
            )
        self.variables[variable.name] = variable


def _alternatives(reference: Reference) -> Iterator[Reference]:
    """`${a | ${b | ${c}}}`: a, b, c."""
    yield reference
    if isinstance(reference.default, Reference):
        yield from _alternatives(reference.default)


def _action_slots(action: Action) -> dict[str, Slot]:
    return {field.name: Slot(field, field.required) for field in fields_of(action.spec.request)}


def _variable_slots(action: Action, slots: Mapping[str, Slot]) -> dict[str, Slot]:
    """What the inputs of an action are for, so that the job that gives them can tell."""
    found: dict[str, Slot] = {}
    for name, tree in action.values.items():
        if isinstance(tree, Reference):
            for each in _alternatives(tree):
                if each.key == "input" and len(each.path) == 1 and isinstance(each.path[0], str):
                    found.setdefault(each.path[0], slots[name])
    return found


def _reads_main(action: Action) -> bool:
    """Whether what the action is about is the field of that name in the input."""
    main = action.spec.main
    tree = None if main is None else action.values.get(main)
    return isinstance(tree, Reference) and tree.key == "input" and tree.path == (main,)


def _is_whole_input(tree: Tree) -> bool:
    return isinstance(tree, Reference) and tree.key == "input" and not tree.path


def _default(written: Any, slot: Slot) -> Any:
    if written is not UNSET or slot.field is None or slot.field.required:
        return written
    return slot.field.default


def _description(annotations: tuple[tuple[str, str], ...], slot: Slot) -> str:
    said = dict(annotations).get("description", "")
    return said or (slot.field.description if slot.field is not None else "")


def _alias_of(name: str, names: list[str], slot: Slot) -> str | None:
    """The field that a name stands for, where its proper name is taken too."""
    field = slot.field
    return field.name if field is not None and name in field.aliases and field.name in names else None


def _missing(value: Any, name: str) -> bool:
    for part in name.split("."):
        if not isinstance(value, dict) or value.get(part) is None:
            return True
        value = value[part]
    return False
