"""Which routes does OpenAI's API have here?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from model_compose.api.calls import Endpoint, Errors, Order, Taker
from model_compose.api.openai.chat import take_chat
from model_compose.api.openai.completions import take_completion
from model_compose.api.openai.embeddings import take_embeddings
from model_compose.api.openai.errors import PREFIX, envelope, respond_error, status
from model_compose.api.openai.images import take_images
from model_compose.api.openai.models import Models
from model_compose.api.openai.rerank import take_rerank
from model_compose.api.openai.responses import take_response
from model_compose.compose.app import App
from model_compose.errors import ModelComposeError, NotFound, did_you_mean

_ERRORS: Final = Errors(envelope, respond_error)
_TAKERS: Final[Mapping[str, Callable[[Scope, bytes, Models], Order]]] = {
    f"{PREFIX}/chat/completions": take_chat,
    f"{PREFIX}/completions": take_completion,
    f"{PREFIX}/embeddings": take_embeddings,
    f"{PREFIX}/images/generations": take_images,
    f"{PREFIX}/responses": take_response,
    f"{PREFIX}/rerank": take_rerank,
}
#: So busy that a router's work would count.
_BUSY: Final = (f"{PREFIX}/chat/completions", f"{PREFIX}/embeddings")


class OpenAI:
    """OpenAI's API of a service."""

    def __init__(self, app: App) -> None:
        self._models = Models(app)
        self._endpoints = {path: Endpoint(app, self._taker(take), _ERRORS) for path, take in _TAKERS.items()}

    def _taker(self, take: Callable[[Scope, bytes, Models], Order]) -> Taker:
        async def taken(scope: Scope, body: bytes) -> Order:
            return take(scope, body, self._models)

        return taken

    def lanes(self) -> dict[tuple[str, str], ASGIApp]:
        """The busiest routes, by method and path."""
        return {("POST", path): self._endpoints[path] for path in _BUSY}

    def routes(self) -> list[BaseRoute]:
        """All of them, and an answer for whatever else is asked under their prefix."""
        return [
            *(Route(path, endpoint, methods=["POST"]) for path, endpoint in self._endpoints.items()),
            Route(f"{PREFIX}/models", self._list, methods=["GET"]),
            Route(f"{PREFIX}/models/{{model:path}}", self._one, methods=["GET"]),
            Route(f"{PREFIX}/{{path:path}}", _Elsewhere([*_TAKERS, f"{PREFIX}/models"])),
        ]

    async def _list(self, request: Request) -> Response:
        """`GET /v1/models`"""
        return _json({"object": "list", "data": self._models.listed()})

    async def _one(self, request: Request) -> Response:
        """`GET /v1/models/{model}`"""
        try:
            return _json(self._models.one(request.path_params["model"]))
        except ModelComposeError as error:
            return _json(envelope(error), status(error))


class _Elsewhere:
    """There is nothing of that name, or not by that method."""

    def __init__(self, paths: list[str]) -> None:
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if path in self._paths:
            right = "POST" if path in _TAKERS else "GET"
            error = NotFound(f"{method} {path} is not there", hint=f"use {right}")
            body = envelope(error)
            body["error"]["code"] = "method_not_allowed"
            response = _json(body, HTTPStatus.METHOD_NOT_ALLOWED)
            response.headers["allow"] = right
        else:
            error = NotFound(f"there is no {path}", hint=did_you_mean(path, self._paths))
            response = _json(envelope(error), HTTPStatus.NOT_FOUND)
        await response(scope, receive, send)


def _json(value: object, code: int = HTTPStatus.OK) -> Response:
    return Response(msgspec.json.encode(value), code, media_type="application/json")
