"""How do the inputs and outputs of workflows look as JSON Schema, and in our own schema route?"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET

from model_compose.config.scalars import resolve
from model_compose.config.schema import Call, Project, Tree, Workflow
from model_compose.config.template import Map
from model_compose.config.values import MEDIA_TYPES, Type
from model_compose.tasks.generation import Completion
from model_compose.types import Result
from model_compose.workflows.inputs import InputVariable, WorkflowInputs

#: A picture of 32 by 32 pixels, half dark and half light.
EXAMPLE_IMAGE: Final = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAACAAAAAgCAAAAABWESUoAAAAGElEQVR42mPQQAMn0ADDqIJRBaMKRqoCAD2M4BBjbW"
    "voAAAAAElFTkSuQmCC"
)

#: Of one event or of all of them: the standard leaves it to the reader of a document.
EVENTS: Final[dict[str, Any]] = {"description": "server-sent events, each with `data` and mostly an `event`"}

_BASIC: Final[dict[str, dict[str, Any]]] = {
    "string": {"type": "string"},
    "text": {"type": "string"},
    "markdown": {"type": "string"},
    "number": {"type": "number"},
    "integer": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "list": {"type": "array"},
    "object": {"type": "array", "items": {"type": "object"}},
    "base64": {"type": "string", "contentEncoding": "base64"},
}
_NAMES: Final[dict[Any, str]] = {str: "string", int: "integer", float: "number", bool: "boolean"}


def input_schema(inputs: WorkflowInputs) -> dict[str, Any]:
    """The input of a workflow as a JSON Schema; a text alone is taken where one field is the main one."""
    properties: dict[str, Any] = {}
    required: list[str] = []
    choices: list[tuple[str, ...]] = []
    for variable in inputs.variables:
        target, needs = properties, required
        *outer, name = variable.name.split(".")
        for part in outer:
            inner = target.setdefault(part, {"type": "object"})
            target, needs = inner.setdefault("properties", {}), inner.setdefault("required", [])
        target[name] = variable_schema(variable)
        if variable.instead_of:
            if variable.instead_of not in choices:
                choices.append(variable.instead_of)
        elif variable.required:
            needs.append(name)
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    if len(choices) == 1:
        schema["anyOf"] = [{"required": [name]} for name in choices[0]]
    if inputs.closed:
        schema["additionalProperties"] = False
    if inputs.main is not None:
        return {"anyOf": [schema, {"type": "string", "description": f"short for `{inputs.main}`"}]}
    return schema


def variable_schema(variable: InputVariable) -> dict[str, Any]:
    """One field of an input as a JSON Schema."""
    if variable.type is not None:
        schema = _of_type(variable.type)
    elif variable.accepts is not None:
        schema = schema_of(variable.accepts)
    else:
        schema = {}
    schema = {key: value for key, value in schema.items() if key not in ("title", "default")}
    if variable.description:
        schema["description"] = variable.description
    if variable.default is not UNSET and variable.default not in (None, ()):
        schema["default"] = msgspec.to_builtins(variable.default)
    return schema


def or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The same, which allows null too."""
    if isinstance(kind := schema.get("type"), str) and "enum" not in schema:
        return {**schema, "type": [kind, "null"]}
    told = {key: value for key, value in schema.items() if key in ("description", "default", "examples")}
    choice = {key: value for key, value in schema.items() if key not in told}
    return {"anyOf": [choice, {"type": "null"}], **told} if choice else schema


def input_example(inputs: WorkflowInputs) -> dict[str, Any]:
    """An input with what a workflow cannot do without; if that is nothing, with its first field."""
    needed = [v for v in inputs.variables if v.required and v.name == (v.instead_of or (v.name,))[0]]
    example: dict[str, Any] = {}
    for variable in needed or inputs.variables[:1]:
        target = example
        *outer, name = variable.name.split(".")
        for part in outer:
            target = target.setdefault(part, {})
        target[name] = _example(variable_schema(variable))
    return example


def _example(schema: Mapping[str, Any]) -> Any:
    """A value that a schema allows; a text where it allows one."""
    if "default" in schema:
        return schema["default"]
    if "examples" in schema:
        return schema["examples"][0]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return _example(min(schema["anyOf"], key=lambda each: each.get("type") != "string"))
    match schema.get("type"):
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "array":
            return [_example(schema.get("items", {}))]
        case "object":
            properties = schema.get("properties", {})
            return {name: _example(properties[name]) for name in schema.get("required", ())}
    return "What is photosynthesis?"


def schema_of(annotation: Any, **instead: dict[str, Any]) -> dict[str, Any]:
    """A Python type as a JSON Schema without references: OpenAPI looks for those elsewhere.

    instead  schemas of structs that are written otherwise, by the name of the class
    """
    # `list[X] | list[list[X]]` is one type too many for msgspec, so unions are taken apart.
    bare = typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation
    if typing.get_origin(bare) in (typing.Union, types.UnionType):
        return {"anyOf": [schema_of(member, **instead) for member in typing.get_args(bare)]}
    if typing.get_origin(bare) in (list, tuple):
        return {"type": "array", "items": schema_of(typing.get_args(bare)[0], **instead)}
    (schema,), definitions = msgspec.json.schema_components([annotation])
    inlined: dict[str, Any] = _inlined(schema, {**definitions, **instead})
    return inlined


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in schema.items()}


def _of_type(kind: Type) -> dict[str, Any]:
    if kind.many:
        return {"type": "array", "items": _of_type(msgspec.structs.replace(kind, many=False))}
    if kind.name == "select":
        return {"enum": list(kind.options)}
    if kind.name == "slider":
        low, high, *step = (resolve(option) for option in kind.options)
        return {"type": "number", "minimum": low, "maximum": high} | ({"multipleOf": step[0]} if step else {})
    if kind.name in MEDIA_TYPES:
        what = f"{kind.name}: a data URI, base64 or a URL; in a form, an upload"
        example = {"examples": [EXAMPLE_IMAGE]} if kind.name == "image" else {}
        return {"type": "string", "description": what, **example}
    return {**_BASIC.get(kind.name, {})}


def described_input(inputs: WorkflowInputs) -> list[dict[str, Any]]:
    """The fields of an input, as the schema route lists them; what is null is left out."""
    return [_described(variable) for variable in inputs.variables]


def _described(variable: InputVariable) -> dict[str, Any]:
    kind = variable.type
    described = {
        "name": variable.name,
        "type": kind.name if kind else variable.media or _name_of(variable.accepts),
        "subtype": kind.subtype if kind else None,
        "format": kind.format if kind else None,
        "options": list(kind.options) if kind and kind.options else None,
        "required": variable.required or None,
        "default": None if variable.default in (UNSET, ()) else msgspec.to_builtins(variable.default),
        "description": variable.description or None,
        "annotations": dict(variable.annotations) or None,
        "alias_of": variable.alias_of,
        "schema": variable_schema(variable),
    }
    return {key: value for key, value in described.items() if value is not None}


def _name_of(accepts: Any) -> str:
    """The nearest of the file format's own type names; `string` where nothing is known."""
    members = _members(accepts)
    names = [_NAMES[m] for m in members if m in _NAMES]
    if names:
        return names[0]
    return "string" if accepts is None else "json"


def _members(annotation: Any) -> Iterable[Any]:
    bare = typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation
    if typing.get_origin(bare) in (typing.Union, types.UnionType):
        return [m for member in typing.get_args(bare) for m in _members(member)]
    return [bare]


def described_output(workflow: Workflow, project: Project) -> list[dict[str, Any]]:
    """The fields of a workflow's output, as far as the file tells."""
    if workflow.output is not UNSET:
        return _outputs(workflow.output, None)
    needed = {name for job in workflow.jobs for name in job.needs}
    last = [job for job in workflow.jobs if job.id not in needed]
    found = []
    for job in [job for job in last if job.gives] or last:
        if not isinstance(job.work, Call):
            found += _outputs(job.output, Any)
            continue
        action = project.components[job.work.component].action(job.work.action)
        tree = job.output if job.output is not UNSET else action.output
        found += _outputs(tree, action.spec.result)
    return list({each.get("name"): each for each in found}.values())


def _outputs(tree: Tree, result: Any) -> list[dict[str, Any]]:
    if isinstance(tree, Map):
        return [{"name": key, "type": "string"} for key in tree.constants]
    members = list(_members(result))
    if any(member is Completion for member in members):
        return [{"type": "string"}]
    if any(isinstance(member, type) and issubclass(member, Result) for member in members):
        return [{"type": "json"}]
    return [{"type": "string"}]
