"""Which routes are there, and in front of what?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from model_compose.api.access import Access
from model_compose.api.guard import Guard, origins_of
from model_compose.api.mcp import McpRoute
from model_compose.api.metrics import Metrics
from model_compose.api.openai.errors import PREFIX, envelope
from model_compose.api.openai.routes import OpenAI
from model_compose.api.runs import CancelTask, ShowTask, StartRun, WatchTask
from model_compose.api.service import ServiceRoutes
from model_compose.api.status import error_body, status_of
from model_compose.api.typed.endpoints import Typed
from model_compose.api.webui import PATH, WebUi
from model_compose.compose.app import App


class FastLane:
    """Takes the busiest routes past the router, whose work for a request costs as much as ours.

    lanes  endpoints by method and path
    """

    def __init__(self, lanes: Mapping[tuple[str, str], ASGIApp], others: ASGIApp) -> None:
        self._lanes = lanes
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ours = self._lanes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        await (ours or self._others)(scope, receive, send)


def http_app(app: App, metrics: Metrics, admin_token: str | None) -> ASGIApp:
    """The service as an ASGI application."""
    controller = app.project.controller
    base = controller.base_path.rstrip("/")
    service = ServiceRoutes(app, metrics)
    start_run = StartRun(app)
    open_ai = OpenAI(app)
    web_ui = WebUi(app)
    runs = Route("/workflows/runs", start_run, methods=["POST"])
    api: list[BaseRoute] = [
        runs,
        Route("/workflows", service.workflows),
        Route("/workflows/{workflow_id}/schema", service.schema),
        Route("/tasks/{task_id}", ShowTask(app), methods=["GET"]),
        Route("/tasks/{task_id}/events", WatchTask(app), methods=["GET"]),
        Route("/tasks/{task_id}/cancel", CancelTask(app), methods=["POST"]),
        Route("/components", service.components),
        Route("/components/{component}/restart", service.restart, methods=["POST"]),
        Route("/components/{component}/stop", service.stop, methods=["POST"]),
        Route("/health", service.health),
    ]
    typed = Typed(app)
    api += [Route(f"/{word}", each, methods=["POST"]) for word, each in typed.endpoints.items()]
    root: list[BaseRoute] = [
        Route("/", web_ui.root),
        Route("/favicon.ico", web_ui.icon),
        Mount(PATH, web_ui),
        Route("/livez", service.live),
        Route("/readyz", service.ready),
        Route("/metrics", service.metrics),
        Route("/openapi.json", service.openapi),
        Route("/docs", service.docs),
        Route("/mcp", McpRoute(app)),
        Mount("/docs", StaticFiles(directory=Path(__file__).parent / "swagger_ui")),
    ]
    routed = Starlette(
        routes=[*(_under(base, route) for route in api), *open_ai.routes(), *root],
        exception_handlers={HTTPException: _http_error, Exception: _crash},
    )
    of_tasks = {("POST", f"{base}/{word}"): each for word, each in typed.endpoints.items()}
    lanes = FastLane({("POST", base + runs.path): start_run, **of_tasks, **open_ai.lanes()}, routed)
    asgi: ASGIApp = Access(ServerErrorMiddleware(lanes, handler=_crash), controller.keys, admin_token)
    origins = origins_of(controller)
    if origins:
        asgi = CORSMiddleware(asgi, allow_origins=sorted(origins), allow_methods=["*"], allow_headers=["*"])
    guarded = Guard(asgi, controller)
    web_ui.serve(guarded)
    return guarded


def _under(base: str, route: BaseRoute) -> BaseRoute:
    assert isinstance(route, Route)
    return Route(f"{base}{route.path}", route.endpoint, methods=list(route.methods or ()) or None)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    body = {"detail": error.detail, "type": "not_found" if error.status_code == 404 else "http_error"}
    return Response(msgspec.json.encode(body), error.status_code, error.headers, "application/json")


async def _crash(request: Request, error: Exception) -> Response:
    ours = request.url.path.startswith(f"{PREFIX}/")
    body = envelope(error) if ours else error_body(error)
    return Response(msgspec.json.encode(body), status_of(error), media_type="application/json")
