"""What does the service say of itself: workflows, health, metrics, components, documentation?"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from model_compose.api import openapi
from model_compose.api.access import require_admin
from model_compose.api.asgi import flag
from model_compose.api.metrics import Metrics
from model_compose.api.schemas import described_input, described_output
from model_compose.api.status import encoded, status_of
from model_compose.components.contract import Component
from model_compose.compose.app import App
from model_compose.config.schema import Workflow
from model_compose.errors import ModelComposeError, NotFound, did_you_mean

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<div id="ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "/openapi.json", dom_id: "#ui", tryItOutEnabled: true})</script>
</html>
"""


class ServiceRoutes:
    """Handlers of the routes without model traffic."""

    def __init__(self, app: App, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    # Workflows

    async def workflows(self, request: Request) -> Response:
        """`GET /workflows`"""
        try:
            full = flag(request.scope, "include_schema")
        except ModelComposeError as error:
            return _error(error)
        workflows = self._app.project.workflows.values()
        return _json([self._schema(w) if full else self._listed(w) for w in workflows])

    async def schema(self, request: Request) -> Response:
        """`GET /workflows/{workflow_id}/schema`"""
        name = request.path_params["workflow_id"]
        workflow = self._app.project.workflows.get(name)
        if workflow is None:
            body = {"detail": "Workflow not found.", "type": NotFound.code}
            hint = did_you_mean(name, self._app.project.workflows)
            return _json(body | ({"hint": hint} if hint else {}), HTTPStatus.NOT_FOUND)
        return _json(self._schema(workflow))

    def _listed(self, workflow: Workflow) -> dict[str, Any]:
        default = workflow is self._app.project.default_workflow()
        listed = {"workflow_id": workflow.id, "title": workflow.title, "default": default or None}
        return {key: value for key, value in listed.items() if value is not None}

    def _schema(self, workflow: Workflow) -> dict[str, Any]:
        described = {
            "description": workflow.description,
            "input": described_input(self._app.inputs[workflow.id]),
            "output": described_output(workflow, self._app.project),
        }
        return self._listed(workflow) | {key: value for key, value in described.items() if value is not None}

    # Health

    async def health(self, request: Request) -> Response:
        """`GET /health`"""
        if self._app.draining:
            return _json({"status": "draining"}, HTTPStatus.SERVICE_UNAVAILABLE)
        return _json({"status": "ok"})

    async def live(self, request: Request) -> Response:
        """`GET /livez`"""
        return PlainTextResponse("ok\n")

    async def ready(self, request: Request) -> Response:
        """`GET /readyz`: a line for each component."""
        ready = self._app.ready()
        lines = []
        for name, component in self._app.components.items():
            word = "ok" if component.ready() else "not ready"
            lines.append(f"{word} {name}: {component.status()}")
        lines.append("ready" if ready else "draining" if self._app.draining else "not ready")
        code = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        return PlainTextResponse("\n".join(lines) + "\n", code)

    async def metrics(self, request: Request) -> Response:
        """`GET /metrics`"""
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def openapi(self, request: Request) -> Response:
        """`GET /openapi.json`"""
        return _json(openapi.document(self._app))

    async def docs(self, request: Request) -> Response:
        """`GET /docs`: the API page, which needs nothing from anywhere else."""
        return HTMLResponse(_PAGE)

    # Components

    async def components(self, request: Request) -> Response:
        """`GET /components`"""
        return _json(self._app.status())

    async def restart(self, request: Request) -> Response:
        """`POST /components/{component}/restart`"""
        return self._admin(request, lambda component: component.restart())

    async def stop(self, request: Request) -> Response:
        """`POST /components/{component}/stop`"""
        return self._admin(request, lambda component: component.stop())

    def _admin(self, request: Request, act: Callable[[Component], None]) -> Response:
        name = request.path_params["component"]
        try:
            require_admin(request.scope)
            component = self._app.component(name)
            act(component)
        except ModelComposeError as error:
            return _error(error)
        return _json({"component": name, "state": component.status().state}, HTTPStatus.ACCEPTED)


def _json(value: Any, status: int = HTTPStatus.OK) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _error(error: ModelComposeError) -> Response:
    return Response(encoded(error), status_of(error), media_type="application/json")
