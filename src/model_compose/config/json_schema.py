"""What does a file look like, in the language of editors?

The JSON Schema of a `model-compose.yml`, made from the classes that the check reads the file with, so
that an editor completes, explains and underlines what `check` would take or refuse. It sees one value
at a time: whether names resolve, whether an engine has a parameter, and what several keys mean
together, only `check` says. A file may be one of several that are merged, so no section is required.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from model_compose.config.job_keys import KEYS_OF
from model_compose.config.json_values import JsonSchema, Values, any_of, closed, ref, same_fields, summary
from model_compose.config.listeners import CallbackKeys, ListenerKeys, TriggerKeys
from model_compose.config.schema import (
    ActionKeys,
    Adapter,
    ComponentKeys,
    Controller,
    JobKeys,
    Settings,
    WorkflowKeys,
)
from model_compose.config.spec import (
    ActionSpec,
    Catalog,
    ComponentSpec,
    DriverSpec,
    TaskDriver,
    TaskSpec,
    fields_of,
)

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_OWN: Final[JsonSchema] = {"required": ["implementation"]}
_NOBODY: Final = TaskDriver("")


def document(catalog: Catalog) -> JsonSchema:
    """The JSON Schema (draft 2020-12) of a file that may name what the catalog lists."""
    builder = _Builder(catalog)
    return {
        "$schema": _DIALECT,
        "title": "model-compose.yml",
        **builder.file(),
        "$defs": dict(sorted(builder.definitions.items())),
    }


class _Builder:
    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.values = Values()
        self.definitions = self.values.definitions

    def file(self) -> JsonSchema:
        self.definitions["component"] = self.component()
        self.definitions["workflow"] = self.workflow()
        sections = {
            **self.values.properties(Settings),
            "controller": self.controller(),
            **_one_or_more("component", ref("component"), "components that workflows call, or the only one"),
            **_one_or_more("workflow", ref("workflow"), "what the service offers; default: each component"),
            **_one_or_more("listener", self.listener(), "what comes in beside calls of the API"),
        }
        kinds = ("component", "workflow", "listener")
        return closed(sections, exclusive=[(kind, f"{kind}s") for kind in kinds])

    def listener(self) -> JsonSchema:
        """A listener, with the keys of its only path among its own or below `callback` or `trigger`."""
        own = self.values.properties(ListenerKeys)
        kinds: dict[str, type[msgspec.Struct]] = {"callback": CallbackKeys, "trigger": TriggerKeys}
        for kind, struct in kinds.items():
            paths = _one_or_more(kind, self.values.struct(struct), summary(struct))
            keys = {**own, **paths, **self.values.properties(struct)}
            self.definitions[f"listener.http-{kind}"] = closed(keys, exclusive=[(kind, f"{kind}s")])
        self.definitions["listener"] = {
            "type": "object",
            "required": ["type"],
            "properties": {"type": own["type"]},
            "allOf": [_when("type", f"http-{kind}", ref(f"listener.http-{kind}")) for kind in kinds],
        }
        return ref("listener")

    def controller(self) -> JsonSchema:
        """The controller, with the keys of its adapter among its own or below `adapter`."""
        keys = {
            **self.values.properties(Controller),
            **_one_or_more("adapter", self.values.struct(Adapter), summary(Adapter)),
        }
        self.definitions["controller"] = closed(keys, exclusive=[("adapter", "adapters")])
        return {"description": summary(Controller), "anyOf": [ref("controller"), {"type": "null"}]}

    # Components

    def component(self) -> JsonSchema:
        specs = [spec for name in self.catalog.components() if (spec := self.catalog.component(name))]
        for spec in specs:
            self.definitions[f"component.{spec.name}"] = self.component_of(spec)
        choice = _choice((spec.name, spec.summary) for spec in specs)
        return {
            "type": "object",
            "required": ["type"],
            "properties": {"type": {"description": "what kind of component it is", **choice}},
            "allOf": [_when("type", spec.name, ref(f"component.{spec.name}")) for spec in specs],
        }

    def component_of(self, spec: ComponentSpec) -> JsonSchema:
        """A component of one type. If it names a task, that tells what its actions take."""
        fields = fields_of(spec.config)
        chooser = next((field.name for field in fields if field.refers_to == "task"), None)
        if {field.name for field in fields if field.required} - {chooser}:
            # Nobody can tell without those what the actions take.
            return {**self.keys(spec, None), "additionalProperties": True}
        if chooser is None:
            return self.keys(spec, spec.action(spec.config(), self.catalog, _Deaf()))
        tasks = [task for name in self.catalog.tasks() if (task := self.catalog.task(name))]
        for task in tasks:
            action = spec.action(spec.config(**{chooser: task.name}), self.catalog, _Deaf())
            keys = self.keys(spec, action, task)
            keys["properties"][chooser] = {}  # below, where tasks are told apart, more is said of it
            self.definitions[f"component.{spec.name}.{task.name}"] = keys
        about = self.values.properties(spec.config)[chooser]["description"]
        choice = _choice((task.name, task.summary) for task in tasks)
        return {
            "required": [chooser],
            "properties": {chooser: {"description": about, **choice}},
            "allOf": [_when(chooser, task.name, ref(f"component.{spec.name}.{task.name}")) for task in tasks],
        }

    def keys(
        self, spec: ComponentSpec, action: ActionSpec | None, task: TaskSpec | None = None
    ) -> JsonSchema:
        """All keys of a component, those of its action among them, for where it has only one."""
        name = f"action.{spec.name}.{task.name}" if task else f"action.{spec.name}"
        own = self.values.properties(spec.config)
        chosen, rules = self.engines(own, task) if task and "driver" in own else ({}, [])
        keys = {
            **self.shared(name, self.action_keys(name, action), "one callable of the component"),
            **self.shared(f"keys.{spec.name}", own, spec.summary),
            **self.shared("keys", self.values.properties(ComponentKeys), summary(ComponentKeys)),
            "action": {
                "description": "its only action, or the name of the one whose keys stand beside this",
                "anyOf": [ref(name), ref("text")],
            },
            "actions": {"description": "what it can be asked to do", "type": "array", "items": ref(name)},
            "type": {},  # where types are told apart, more is said of it
            **chosen,
        }
        if action and action.nested:
            rules = [*rules, _nested(name, action, keys)]
        return closed(keys, exclusive=[*same_fields(spec.config), ("action", "actions")], rules=rules)

    def engines(
        self, own: Mapping[str, JsonSchema], task: TaskSpec
    ) -> tuple[dict[str, JsonSchema], list[JsonSchema]]:
        """`driver` as one of those that do the task, and `options` as what that one has."""
        drivers = [driver for name in self.catalog.drivers() if (driver := self.catalog.driver(name))]
        able = [d for d in drivers if d.name in task.drivers or task.name in d.tasks or d.own]
        options = {driver.name: self.options(driver) for driver in able}
        free = [{"type": "object"}] if any(driver.own for driver in able) else []
        choice = any_of([_choice((driver.name, driver.summary) for driver in able), {"type": "null"}])
        chosen = {
            "driver": {"description": own["driver"]["description"], **choice},
            "options": {"description": own["options"]["description"], **any_of([*options.values(), *free])},
        }
        rules = [_when("driver", name, {"properties": {"options": each}}) for name, each in options.items()]
        about = {"description": own["options"]["description"]}
        wider = [driver.name for driver in able if driver.more_options]
        if wider:
            named = {"required": ["driver"], "properties": {"driver": {"enum": wider}}}
            others = any_of([each for name, each in options.items() if name not in wider])
            rules.append({"if": named, "else": {"properties": {"options": {**about, **others}}}})
        if not free:
            return chosen, rules
        rules.append({"properties": {"options": {**about, **any_of([*options.values()])}}})
        # A class of the user's own has options of its own, and so has a family of another package.
        does = (task.drivers.get(d.name) or d.tasks.get(task.name, _NOBODY) for d in able)
        known = {name for how in does for name in how.families}
        foreign = [_has_another(key, known) for key in ("architecture", "family")] if known else []
        return chosen, [{"if": {"anyOf": [_OWN, *foreign]}, "else": {"allOf": rules}}]

    def options(self, driver: DriverSpec) -> JsonSchema:
        """What may stand below `options`."""
        found = self.values.struct(driver.options)
        if driver.more_options:
            self.definitions[found["$ref"].rpartition("/")[2]]["additionalProperties"] = True
        return found

    def action_keys(self, name: str, action: ActionSpec | None) -> dict[str, JsonSchema]:
        """What an action takes: what all actions have, and the fields of its request, some of them nested."""
        common = self.values.properties(ActionKeys)
        if action is None:
            return common
        fields = self.request_keys(action)
        group = closed(_parts_of(name, fields), about="parameters; they may also stand beside it")
        # Of a class of the user's own they are what that takes.
        choice = any_of([ref(f"{name}.nested"), {"type": "object"}, ref("expression")])
        free = {"description": group["description"], **choice}
        if action.nested:
            self.definitions[f"{name}.nested"] = group
        return {**fields, **dict.fromkeys(action.nested, free), **common}

    def request_keys(self, action: ActionSpec) -> dict[str, JsonSchema]:
        """The fields of what an action takes; of one with variants, those of all of them."""
        found: dict[str, list[JsonSchema]] = {}
        for spec in (action, *action.variants.values()):
            for key, schema in self.values.properties(spec.request, template=True).items():
                if schema not in found.setdefault(key, []):
                    found[key].append(schema)
        # Where actions differ in a key, each says in its own words what it is there.
        fields = {
            key: {"description": several[0]["description"], **any_of(several)}
            for key, several in found.items()
        }
        if action.by is not None:
            choice = _choice((name, summary(spec.request)) for name, spec in action.variants.items())
            fields[action.by] = {"description": "which of the actions this is", **choice}
        return fields

    def shared(self, name: str, keys: Mapping[str, JsonSchema], about: str) -> dict[str, JsonSchema]:
        """Keys that stand in several places, as references to a definition that has them."""
        self.definitions[name] = closed(keys, about=about)
        return _parts_of(name, keys)

    # Workflows

    def workflow(self) -> JsonSchema:
        """A workflow: with jobs, or with the keys of its only job among its own."""
        lifted = self.job()
        own = self.values.properties(WorkflowKeys)
        jobs = _one_or_more("job", ref("job"), "calls; each begins when those it refers to are complete")
        return {
            "type": "object",
            "if": {"anyOf": [{"required": ["job"]}, {"required": ["jobs"]}]},
            "then": closed({**own, **jobs}, exclusive=[("job", "jobs")]),
            "else": closed({**own, **lifted}),
        }

    def job(self) -> dict[str, JsonSchema]:
        """A job of each type; -> the keys of any of them."""
        common = self.values.properties(JobKeys)
        self.definitions["job.common"] = closed(common, about=summary(JobKeys))
        found: dict[str, list[JsonSchema]] = {
            key: [each] for key, each in _parts_of("job.common", common).items()
        }
        for name, struct in KEYS_OF.items():
            keys = self.values.properties(struct)
            if "component" in keys:
                keys["component"] |= {"anyOf": [ref("text"), ref("component")]}
            required = [field.names for field in fields_of(struct) if field.required]
            self.definitions[f"job.{name}"] = closed(
                {**_parts_of("job.common", common), **keys},
                required=required,
                exclusive=same_fields(struct),
                about=summary(struct),
            )
            for key, part in _parts_of(f"job.{name}", keys).items():
                found.setdefault(key, []).append(part)
        plain = {"not": {"required": ["type"]}}
        self.definitions["job"] = {
            "type": "object",
            "allOf": [
                *(_when("type", name, ref(f"job.{name}")) for name in KEYS_OF),
                {"if": plain, "then": ref("job.component")},
                {"properties": {"type": ref("job.common/properties/type")}},
            ],
        }
        about = {"description": "of its only job; what it means depends on the `type`"}
        return {key: {**about, **any_of(parts)} for key, parts in found.items() if key != "id"}


class _Deaf:
    """A `Report` for the mistakes that a component has when nobody has written it yet."""

    def error(self, message: str, *path: str | int, hint: str | None = None) -> None: ...

    def warn(self, message: str, *path: str | int) -> None: ...

    def wrong(self, key: str) -> bool:
        return False

    def read(self, struct: type[msgspec.Struct], *path: str | int, more: bool = False) -> Any: ...

    def tree(self, *path: str | int) -> Any: ...


def _parts_of(name: str, keys: Iterable[str]) -> dict[str, JsonSchema]:
    return {key: ref(f"{name}/properties/{key}") for key in keys}


def _nested(name: str, action: ActionSpec, keys: Mapping[str, JsonSchema]) -> JsonSchema:
    """Maps of parameters have those of the task, but where a class of the user's own has others."""
    groups = dict.fromkeys(action.nested, ref(f"{name}.nested"))
    one = {"description": keys["action"]["description"], "properties": groups}
    several = {"description": keys["actions"]["description"], "items": {"properties": groups}}
    return {"if": _OWN, "else": {"properties": {**groups, "action": one, "actions": several}}}


def _has_another(key: str, known: Iterable[str]) -> JsonSchema:
    """Whether a key is there, with none of the values that we know."""
    return {"required": [key], "properties": {key: {"not": {"enum": sorted(known)}}}}


def _one_or_more(key: str, one: JsonSchema, about: str) -> dict[str, JsonSchema]:
    """`thing:` with one, and `things:` with a list of them."""
    return {
        key: {"description": about, **one},
        f"{key}s": {"description": about, "type": "array", "items": one},
    }


def _choice(names: Iterable[tuple[str, str]]) -> JsonSchema:
    """One of some names, each with what it stands for; or a variable that names it."""
    return any_of([*({"const": name, "description": about} for name, about in names), ref("env")])


def _when(key: str, value: str, schema: JsonSchema) -> JsonSchema:
    return {"if": {"required": [key], "properties": {key: {"const": value}}}, "then": schema}
