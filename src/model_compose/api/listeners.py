"""How do answers and events from outside come in, on ports of their own?"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec
from msgspec import UNSET
from starlette.types import ASGIApp, Receive, Scope, Send

from model_compose.api.access import Access, caller_of
from model_compose.api.asgi import header, read_body, respond, respond_error, respond_json
from model_compose.api.bodies import refuse_deep, texts_of
from model_compose.api.guard import Guard
from model_compose.api.server import Quiet, listen, tls_options
from model_compose.api.status import error_body, headers_of, status_of
from model_compose.compose.app import App
from model_compose.config.expression import Scope as Names
from model_compose.config.expression import render
from model_compose.config.listeners import Callback, Listener, Route, Trigger
from model_compose.config.schema import Controller, Project, Tree
from model_compose.config.values import to_text
from model_compose.errors import (
    BadRequest,
    BodyTooLarge,
    InvalidInput,
    ModelComposeError,
    NotFound,
    UpstreamError,
)
from model_compose.types import for_json

log = logging.getLogger(__name__)

_EXCERPT: Final = 2000
_WORD: Final = 100
_LAST_WORDS_S: Final = 5
_ENCODED: Final = b"application/x-www-form-urlencoded"


class Ports:
    """The sockets of the listeners of a project, which listen from the beginning, so that they are ours."""

    def __init__(self, project: Project) -> None:
        self.listeners = project.listeners
        self._scheme = "http" if project.controller.tls is None else "https"
        self.sockets: list[socket.socket] = []

    def __enter__(self) -> Ports:
        with contextlib.ExitStack() as stack:
            for each in self.listeners:
                key = f"`port` of the {each.type} listener"
                self.sockets.append(stack.enter_context(listen(each.host, each.port, key)))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def urls(self) -> list[str]:
        """What is listened for, a line for each path."""
        return [
            f"{route.method} {_root(listener, sock, self._scheme)}{route.path} {told(route)}"
            for listener, sock in zip(self.listeners, self.sockets, strict=True)
            for route in listener.routes
        ]


def _root(listener: Listener, sock: socket.socket, scheme: str) -> str:
    host = f"[{listener.host}]" if ":" in listener.host else listener.host
    return f"{scheme}://{host}:{sock.getsockname()[1]}"


def told(route: Route) -> str:
    """What a path does, in words."""
    return f"starts `{route.workflow}`" if isinstance(route, Trigger) else "takes answers"


@contextlib.asynccontextmanager
async def listening(app: App, ports: Ports) -> AsyncIterator[None]:
    """Serve the listeners until the end of the block."""
    tls = tls_options(app.project.controller.tls, app.project.folder)
    servers = [Quiet(listener_app(app, each), _LAST_WORDS_S, **tls) for each in ports.listeners]
    tasks = [
        asyncio.create_task(server.serve(sockets=[sock]), name="listener")
        for server, sock in zip(servers, ports.sockets, strict=True)
    ]
    for line in ports.urls():
        log.info("listening: %s", line)
    try:
        yield
    finally:
        for server in servers:
            server.should_exit = True
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            task.result()


def listener_app(app: App, listener: Listener) -> ASGIApp:
    """A listener as an ASGI application."""
    access = Access(_Routes(app, listener), listener.api_keys, None)
    return Guard(
        access,
        Controller(host=listener.host, insecure=listener.insecure, api_keys=listener.api_keys),
    )


class _Routes:
    def __init__(self, app: App, listener: Listener) -> None:
        self._app = app
        self._most_bytes = listener.max_body
        self._routes = {(route.path, route.method): route for route in listener.routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            await self._answer(scope, receive, send)
        except ModelComposeError as error:
            await respond_error(send, error)
        except Exception as error:
            log.exception("a listener")
            await respond_error(send, error)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        route = self._routes.get((path, method))
        if route is None:
            allowed = sorted(m for p, m in self._routes if p == path)
            if not allowed:
                raise NotFound(f"nothing listens at `{path}`")
            body = {"detail": f"`{path}` takes {', '.join(allowed)}", "type": "http_error"}
            headers = [(b"allow", ", ".join(allowed).encode())]
            await respond_json(send, body, HTTPStatus.METHOD_NOT_ALLOWED, headers)
            return
        try:
            raw = await read_body(scope, receive, self._most_bytes)
        except BodyTooLarge as error:
            raise BodyTooLarge(error.message, hint="raise `max_body` of the listener") from None
        if raw is None:
            return  # who sent it has left
        values = {"body": _body(scope, raw), "query": _query(scope)}
        if isinstance(route, Callback):
            await respond_json(send, _answered(self._app, route, values))
        else:
            await _start(self._app, route, values, caller_of(scope).name, send)


def _answered(app: App, route: Callback, values: dict[str, Any]) -> dict[str, int]:
    """Pass answers on to the calls that wait for them; one that is wrong refuses all of its request."""
    outcomes = [_outcome(route, names) for names in _items(route, values)]
    done = [outcome for outcome in outcomes if outcome is not None]
    for name, outcome in done:
        app.callbacks.complete(name, outcome)
    return {"accepted": len(done), "ignored": len(outcomes) - len(done)}


def _outcome(route: Callback, names: Names) -> tuple[str, Any] | None:
    """Which call is answered, and with what; None for an answer that only says how far the work is."""
    wanted = render(route.identify_by, names)
    if wanted is None or wanted == "":
        raise InvalidInput("the answer does not say which call it is for", field="identify_by")
    name = to_text(wanted, "identify_by")
    result = names.values["item"] if route.result is UNSET else for_json(render(route.result, names))
    if route.status is UNSET:
        return name, result
    status = render(route.status, names)
    if _among(status, route.fail_when):
        said = msgspec.json.encode(result).decode()[:_EXCERPT]
        word = to_text(status, "status")[:_WORD]
        return name, UpstreamError(f"the callback says `{word}`", upstream_body=said)
    done = route.success_when is None or _among(status, route.success_when)
    return (name, result) if done else None


def _among(status: Any, values: Sequence[Any]) -> bool:
    """Whether a status is one of those in the file, where `200` and `"200"` are the same."""
    return any(to_text(status, "status") == to_text(value, "status") for value in values)


async def _start(app: App, route: Trigger, values: dict[str, Any], owner: str | None, send: Send) -> None:
    """Start runs, and answer with their ids; an input that is wrong refuses all of its request."""
    workflow = app.workflow(route.workflow)
    given = [_input(route, names) for names in _items(route, values)]
    for index, each in enumerate(given):
        try:
            app.takes(workflow).accept(each)
        except InvalidInput as error:
            if route.bulk:
                error.message = f"item {index}: {error.message}"
            raise
    ids: list[str] = []
    try:
        for each in given:
            run = await app.enqueue(workflow, each, owner=owner)
            ids.append(run.id)
    except ModelComposeError as error:
        if not ids:
            raise
        body = {**error_body(error), "task_ids": ids}  # those have been taken
        await respond(send, status_of(error), msgspec.json.encode(body), headers=headers_of(error))
        return
    alone = {} if route.bulk else {"task_id": ids[0]}
    await respond_json(send, {**alone, "task_ids": ids}, HTTPStatus.ACCEPTED)


def _input(route: Trigger, names: Names) -> Any:
    if route.input is not UNSET:
        return for_json(render(route.input, names))
    item = names.values["item"]
    return names.values["query"] if item is None else item


def _items(route: Route, values: dict[str, Any]) -> list[Names]:
    """What the expressions of a route see, for each item of a request."""
    names = Names(values)
    found: Tree = values["body"] if route.item is UNSET else render(route.item, names)
    if not route.bulk:
        return [names.child({"item": found})]
    if not isinstance(found, list):
        what = "the body" if route.item is UNSET else "`item`"
        raise InvalidInput(f"{what} is no list, and this path takes one", field="item")
    return [names.child({"item": item}) for item in found]


def _query(scope: Scope) -> dict[str, Any]:
    given = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return {name: values[0] if len(values) == 1 else values for name, values in given.items()}


def _body(scope: Scope, raw: bytes) -> Any:
    """The value in a body, null if there is none. Raises BadRequest."""
    if not raw:
        return None
    media_type = header(scope, b"content-type").partition(b";")[0].strip().lower()
    if media_type == _ENCODED:
        return dict(texts_of(raw))
    if media_type and media_type != b"application/json" and not media_type.endswith(b"+json"):
        shown_type = media_type.decode(errors="replace")
        hint = "send `Content-Type: application/json`, or an encoded form"
        raise BadRequest(f"the body has media type `{shown_type}`, which is not understood", hint=hint)
    try:
        refuse_deep(raw)
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    except RecursionError:
        raise BadRequest("the body is nested too deeply") from None
