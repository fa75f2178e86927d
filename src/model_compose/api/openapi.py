"""What does the OpenAPI page say? Its schemas come from the workflows of the project.

Source: https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

from typing import Any, Final

from model_compose.about import __version__
from model_compose.api.access import OPEN
from model_compose.api.bodies import RunRequest
from model_compose.api.openai import page
from model_compose.api.openai.errors import PREFIX
from model_compose.api.schemas import EVENTS, input_example, input_schema, schema_of
from model_compose.api.typed import page as typed_page
from model_compose.compose.app import App
from model_compose.compose.store import RunRecord
from model_compose.config.schema import Workflow
from model_compose.runtime.pool import ComponentStatus


def document(app: App) -> dict[str, Any]:
    """The OpenAPI document of a service."""
    controller = app.project.controller
    base = controller.base_path.rstrip("/")
    name = controller.name or app.project.settings.name or "model-compose"
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": name, "version": __version__, "description": _about(app)},
        "paths": {
            f"{base}/workflows/runs": {"post": _run(app)},
            f"{base}/workflows": {"get": _list()},
            f"{base}/workflows/{{workflow_id}}/schema": {"get": _schema(app)},
            f"{base}/tasks/{{task_id}}": {"get": _task()},
            f"{base}/tasks/{{task_id}}/events": {"get": _events()},
            f"{base}/tasks/{{task_id}}/cancel": {"post": _cancel()},
            f"{base}/components": {"get": _components()},
            f"{base}/health": {"get": _get("The service answers.", {"type": "object"}, "503")},
            **_typed(app, base),
            **page.paths(app),
            "/livez": {"get": {"summary": "The process lives.", "responses": {"200": _text("ok")}}},
            "/readyz": {"get": _ready()},
            "/metrics": {"get": {"summary": "Prometheus metrics.", "responses": {"200": _text("metrics")}}},
        },
        "components": {
            "schemas": {
                "Task": schema_of(RunRecord),
                "Component": schema_of(ComponentStatus),
                "Error": _ERROR,
                "OpenAIError": page.ERROR,
                **{_input_name(each): input_schema(inputs) for each, inputs in app.inputs.items()},
            }
        },
    }
    _add_refusals(document, keys=bool(controller.keys))
    return document


def _typed(app: App, base: str) -> dict[str, Any]:
    """The endpoints of tasks."""
    found = typed_page.paths(app, base)
    for operations in found.values():
        operations["post"]["responses"] |= _errors(*_OF_CALLS)
    return found


def _add_refusals(document: dict[str, Any], *, keys: bool) -> None:
    """What any route may answer, whatever it is for, and how a key is shown."""
    if keys:
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            "password": {"type": "http", "scheme": "basic"},
        }
        document["security"] = [{name: []} for name in document["components"]["securitySchemes"]]
    for path, operations in document["paths"].items():
        error = "OpenAIError" if path.startswith(f"{PREFIX}/") else "Error"
        for operation in operations.values():
            if keys and path == OPEN:
                operation["security"] = []
            statuses = ("401", "403") if keys and path != OPEN else ("403",)
            operation["responses"] |= _errors(*statuses, schema=error)


#: What a call of a model may end with.
_OF_CALLS: Final = (*("400", "404", "409", "413", "422", "429", "500", "502", "503", "504", "507"),)
_ERROR = {
    "type": "object",
    "required": ["detail", "type"],
    "properties": {
        "detail": {"type": "string", "description": "what happened"},
        "type": {"type": "string", "description": "a word for programs, such as `overloaded`"},
        "hint": {"type": "string", "description": "what to do"},
        "field": {"type": "string", "description": "which field of the request is wrong"},
    },
}


def _about(app: App) -> str:
    lines = [f"- `{w.id}`: {w.description or w.title or ''}" for w in app.project.workflows.values()]
    return "Workflows of this service:\n\n" + "\n".join(lines)


def _input_name(workflow: str) -> str:
    return f"Input-{workflow}"


def _run(app: App) -> dict[str, Any]:
    default = app.project.default_workflow()
    bodies = []
    for workflow in app.project.workflows.values():
        schema = schema_of(RunRequest)
        properties = {**schema["properties"], "input": _ref(_input_name(workflow.id))}
        properties["workflow_id"] = {"const": workflow.id}
        required = [] if workflow is default else ["workflow_id"]
        bodies.append(
            {**schema, "title": workflow.title or workflow.id, "properties": properties, "required": required}
        )
    body = bodies[0] if len(bodies) == 1 else {"oneOf": bodies}
    examples = {workflow.id: _example(app, workflow) for workflow in app.project.workflows.values()}
    return {
        "summary": "Run a workflow.",
        "description": "With `Accept: text/event-stream` or `stream: true` the output comes as events: "
        "unnamed ones with its pieces, then `end` (with the usage) or `error`.",
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": body, "examples": examples}},
        },
        "responses": {
            "200": {
                "description": "The task, or only its output, or its output as events.",
                "content": {
                    "application/json": {"schema": {"anyOf": [_ref("Task"), {}]}},
                    "text/event-stream": {"schema": EVENTS},
                },
            },
            **_errors(*_OF_CALLS),
        },
    }


def _example(app: App, workflow: Workflow) -> dict[str, Any]:
    body: dict[str, Any] = {"input": input_example(app.inputs[workflow.id])}
    if len(app.project.workflows) > 1:
        body["workflow_id"] = workflow.id
    return {"summary": workflow.title or workflow.id, "value": body}


def _list() -> dict[str, Any]:
    parameter = {"name": "include_schema", "in": "query", "schema": {"type": "boolean"}}
    return {
        **_get("All workflows.", {"type": "array", "items": {"type": "object"}}, "422"),
        "parameters": [parameter],
    }


def _schema(app: App) -> dict[str, Any]:
    parameter = _path("workflow_id") | {"schema": {"enum": list(app.project.workflows)}}
    return {**_get("What a workflow takes and gives.", {"type": "object"}, "404"), "parameters": [parameter]}


def _task() -> dict[str, Any]:
    only = {"name": "output_only", "in": "query", "schema": {"type": "boolean"}}
    operation = _get("A task.", _ref("Task"), "404", *_OF_CALLS)
    operation["responses"]["202"] = {"description": "Not finished yet (with `output_only`)."}
    return {**operation, "parameters": [_path("task_id"), only]}


def _events() -> dict[str, Any]:
    answer = {
        "description": "Events `job`, `progress`, `chunk` and `end`.",
        "content": {"text/event-stream": {"schema": EVENTS}},
    }
    return {
        "summary": "Watch a task.",
        "parameters": [_path("task_id")],
        "responses": {"200": answer, **_errors("404")},
    }


def _cancel() -> dict[str, Any]:
    return {**_get("Cancel a task.", _ref("Task"), "404"), "parameters": [_path("task_id")]}


def _components() -> dict[str, Any]:
    return _get("Models and their states.", {"type": "array", "items": _ref("Component")})


def _ready() -> dict[str, Any]:
    return {
        "summary": "Whether requests are served, with a line for each component.",
        "responses": {"200": _text("ready"), "503": _text("not ready")},
    }


def _get(summary: str, schema: dict[str, Any], *errors: str) -> dict[str, Any]:
    answer = {"description": summary, "content": {"application/json": {"schema": schema}}}
    return {"summary": summary, "responses": {"200": answer, **_errors(*errors)}}


def _errors(*statuses: str, schema: str = "Error") -> dict[str, Any]:
    content = {"application/json": {"schema": _ref(schema)}}
    return {status: {"description": "An error.", "content": content} for status in statuses}


def _text(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"text/plain": {"schema": {"type": "string"}}}}


def _path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}
