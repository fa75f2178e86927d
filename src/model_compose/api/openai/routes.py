"""Which routes does OpenAI's API have here?"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from model_compose.api.openai.calls import Endpoint, Taker
from model_compose.api.openai.chat import take_chat
from model_compose.api.openai.completions import take_completion
from model_compose.api.openai.embeddings import take_embeddings
from model_compose.api.openai.errors import PREFIX, envelope, status
from model_compose.api.openai.images import take_images
from model_compose.api.openai.models import Models
from model_compose.api.openai.rerank import take_rerank
from model_compose.api.openai.responses import take_response
from model_compose.compose.app import App
from model_compose.errors import ModelComposeError, NotFound, did_you_mean

_TAKERS: Final[Mapping[str, Taker]] = {
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
        self._endpoints = {path: Endpoint(app, self._models, take) for path, take in _TAKERS.items()}

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
