"""What does the API page show of the endpoints of tasks?

Their schemas come from what the components of the file take, so that a default which the file sets is the
one that is shown.
"""

from __future__ import annotations

from typing import Any, Final

from model_compose.api.names import Model
from model_compose.api.schemas import (
    EVENTS,
    EXAMPLE_IMAGE,
    input_example,
    or_null,
    schema_of,
    variable_schema,
)
from model_compose.api.typed.endpoints import TypedTask, Wanted, typed_tasks
from model_compose.api.typed.results import is_file
from model_compose.compose.app import App
from model_compose.config.annotations import is_list, is_map, is_struct, members
from model_compose.config.spec import Field, fields_of

_FILE: Final = {"type": "string", "description": "a data URI"}


def paths(app: App, base: str) -> dict[str, Any]:
    """The paths of an OpenAPI document, without their errors."""
    return {f"{base}/{typed.word}": {"post": _post(typed)} for typed in typed_tasks(app)}


def _post(typed: TypedTask) -> dict[str, Any]:
    task = typed.task
    content: dict[str, Any] = {"application/json": {"schema": _result_schema(typed)}}
    if is_file(task.result):
        content["image/*"] = {"schema": {"type": "string", "format": "binary"}}
    content["text/event-stream"] = {"schema": EVENTS}
    return {
        "summary": task.summary,
        "description": _about(typed),
        "requestBody": {"required": True, "content": _bodies(typed)},
        "responses": {
            "200": {"description": "The result; a list where a list was sent.", "content": content}
        },
    }


def _about(typed: TypedTask) -> str:
    """Whose defaults the file sets."""
    lines = ["A field that is null is as good as left out."]
    if is_file(typed.task.result):
        lines.append("With `Accept: image/*` the answer is the image itself, if it is one.")
    for root in typed.roots:
        if said := sorted(typed.models[root].said):
            fields = ", ".join(f"`{name}`" for name in said)
            lines.append(f"The file says {fields} for `{root}`, where a request does not.")
    return " ".join(lines)


def _bodies(typed: TypedTask) -> dict[str, Any]:
    choices = [_request_schema(typed, root) for root in typed.roots]
    examples = {root: {"value": _example(typed, root)} for root in typed.roots}
    found = {"application/json": {"schema": _one_of(choices), "examples": examples}}
    if any(field.media for field in fields_of(typed.task.request)):
        forms = [_request_schema(typed, root, form=True) for root in typed.roots]
        found["multipart/form-data"] = {"schema": _one_of(forms)}
    return found


def _one_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    return schemas[0] if len(schemas) == 1 else {"oneOf": schemas}


def _request_schema(typed: TypedTask, root: str, *, form: bool = False) -> dict[str, Any]:
    """What a component takes, and `model` with its names; in a form files, and nothing that has parts."""
    model = typed.models[root]
    fields = {field.name: field for field in fields_of(typed.task.request)}
    properties: dict[str, Any] = {**schema_of(Wanted)["properties"]}
    names = [name for name, each in typed.models.items() if each.root == root]
    properties["model"] = {"enum": names, "description": properties["model"]["description"]}
    required = ["model"] if len(typed.roots) > 1 else []
    for variable in model.inputs.variables:
        field = fields.get(variable.name)
        if form and field is not None and not (field.media or _is_flat(field)):
            continue
        media = field is not None and field.media is not None
        properties[variable.name] = _media(field, form) if field and media else variable_schema(variable)
        if variable.required:
            required.append(variable.name)
    if not form:
        for name in properties.keys() - set(required):
            properties[name] = or_null(properties[name])
    schema = {"type": "object", "properties": properties, "additionalProperties": not model.inputs.closed}
    return {**schema, "title": root} | ({"required": required} if required else {})


def _media(field: Field, form: bool) -> dict[str, Any]:
    """A file, or several if the field takes them."""
    if form:
        one: dict[str, Any] = {"type": "string", "format": "binary"}
        return {**one, "description": field.description}
    about = f"{field.description}; as a data URI, base64 or a URL"
    one = {"type": "string", "examples": [EXAMPLE_IMAGE]}
    if not field.many:
        return {**one, "description": about}
    return {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}], "description": about}


def _is_flat(field: Field) -> bool:
    """Whether a text can say it."""
    return not any(is_list(each) or is_map(each) or is_struct(each) for each in members(field.type))


def _example(typed: TypedTask, root: str) -> dict[str, Any]:
    model: Model = typed.models[root]
    values = {name: each for name, each in typed.task.example.items() if name in model.inputs.keys}
    named = {"model": root} if len(typed.roots) > 1 else {}
    return {**named, **input_example(model.inputs), **values}


def _result_schema(typed: TypedTask) -> dict[str, Any]:
    one = schema_of(typed.task.result, Blob=_FILE)
    main = next(field for field in fields_of(typed.task.request) if field.name == typed.task.main)
    return {"anyOf": [one, {"type": "array", "items": one}]} if main.many else one
