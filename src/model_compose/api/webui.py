"""How do people get pages on our port that another process makes?

Gradio takes seconds and much memory to import, so it runs in a process of its own, `model_compose.ui`,
which starts when somebody first asks for a page. What browsers send is passed on over a Unix socket as it
comes, and so is what goes back. The pages use the HTTP API as any client does, over a second socket, with
the key of whoever looks at them.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from http import HTTPStatus
from typing import Any, Final

import httpx2
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from model_compose.about import install_command
from model_compose.api.asgi import header, respond, respond_error, until_gone
from model_compose.api.server import Quiet, listen
from model_compose.api.webui_process import Pages, Settings
from model_compose.compose.app import App
from model_compose.config.schema import Controller
from model_compose.errors import (
    BodyTooLarge,
    DriverMissing,
    Interrupted,
    ModelComposeError,
    NotFound,
    ServiceError,
)

PATH: Final = "/ui"

#: How soon idle connections are told that the service stops.
_LOOK_S: Final = 0.25

#: That it died may be known so much later than its connections break.
_NEWS_S: Final = 1.0

_CREDENTIALS: Final = ("authorization", "x-api-key")

#: These are between two neighbours, and not for those behind them. RFC 9110, section 7.6.1
_HOP_BY_HOP: Final = frozenset(
    {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"proxy-connection"}
)

#: Pages get everything from us: a picture in a model's answer must not tell others what was asked.
_POLICY: Final = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        *("img-src 'self' data: blob:", "media-src 'self' data: blob:", "font-src 'self' data:"),
        *("worker-src 'self' blob:", "connect-src 'self' data: blob:"),
        *("frame-ancestors 'self'", "form-action 'self'", "base-uri 'self'"),
    )
)
_ABOUT_PAGES: Final = [
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
]

#: The names of these files change with what is in them.
_ASSETS: Final = f"{PATH}/assets/"
_KEPT: Final = [(b"cache-control", b"private, max-age=31536000, immutable")]

_STARTING: Final = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><meta http-equiv="refresh" content="1">
<title>Starting</title>
<p style="font: 16px system-ui, sans-serif; text-align: center; margin-top: 20vh">Starting the web UI ...</p>
</html>
"""

#: Browsers ask for it by themselves, whatever Gradio's pages say later.
_ICON: Final = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" '
    b'fill="#4f46e5"/><path d="M4 5h8M4 8h8M4 11h5" stroke="#fff" stroke-width="1.5"/></svg>'
)


def listen_apart(controller: Controller) -> contextlib.AbstractContextManager[socket.socket | None]:
    """The pages' own port, if they have one. Raises ServiceError when it is taken or not allowed."""
    ui = controller.ui
    if ui is None or ui.port is None:
        return contextlib.nullcontext()
    return listen(ui.host or controller.host, ui.port, "`controller.webui.port`")


def missing(controller: Controller) -> ModelComposeError | None:
    """Why there are no pages, if there are none."""
    if controller.ui is None:
        return NotFound("there is no web UI here", hint="the file says `webui: false`")
    if importlib.util.find_spec("gradio") is None:
        return DriverMissing("the web UI needs `gradio`, which is not installed", hint=install_command("ui"))
    return None


class WebUi:
    """`/ui/`: the pages."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._api: ASGIApp | None = None
        self._starting: asyncio.Task[Pages] | None = None
        self._server: Beside | None = None
        self._leaving = asyncio.Event()

    def serve(self, api: ASGIApp) -> None:
        """Say what the pages shall call: the service as clients see it."""
        self._api = api

    async def root(self, request: Request) -> Response:
        """`GET /`: the pages, or else what the API's page says."""
        return RedirectResponse(f"{PATH}/" if missing(self._app.project.controller) is None else "/docs")

    async def icon(self, request: Request) -> Response:
        """`GET /favicon.ico`"""
        return Response(
            _ICON, media_type="image/svg+xml", headers={"cache-control": "private, max-age=86400"}
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            why_not = missing(self._app.project.controller)
            if why_not is not None:
                raise why_not
            if self._app.draining:
                raise Interrupted("the service is stopping")
            starting = self._begin(scope)
            if not starting.done() and _wants_page(scope):
                await respond(send, HTTPStatus.OK, _STARTING, b"text/html; charset=utf-8", _NOT_KEPT)
                return
            pages = await asyncio.shield(starting)
        except ModelComposeError as error:
            await respond_error(send, error)
            return
        await self._exchange(pages, scope, receive, send)

    async def _exchange(self, pages: Pages, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(scope, receive, send, self._app.project.controller.max_body, self._leaving)
        try:
            await until_gone(exchange.gone, exchange.pass_on(pages.client))
        except httpx2.TransportError as error:
            if await pages.ended(_NEWS_S) and exchange.can_be_repeated:
                await self(scope, receive, send)
                return
            told = ServiceError(f"the web UI does not answer: {type(error).__name__}", hint="try once more")
            await respond_error(send, told)

    def _begin(self, scope: Scope) -> asyncio.Task[Pages]:
        """The process that makes the pages, which is started if it does not run."""
        before = self._starting
        if before is not None and (not before.done() or _alive(before)):
            return before
        if before is not None and before.exception() is not None:
            self._starting = None  # who waits for the page hears why; whoever comes next tries again
            return before
        caller = {name: header(scope, name.encode()).decode("latin-1") for name in _CREDENTIALS}
        gone = before.result() if before is not None else None
        start = self._start({name: value for name, value in caller.items() if value}, gone)
        self._starting = asyncio.create_task(start, name="web UI")
        return self._starting

    async def _start(self, caller: dict[str, str], gone: Pages | None) -> Pages:
        """Start the process, in place of one that has ended perhaps."""
        assert self._api is not None
        if gone is not None:
            await gone.stop()
        reaper, controller = self._app.reaper, self._app.project.controller
        folder = reaper.scratch / "ui"
        folder.mkdir(exist_ok=True)
        if self._server is None:
            self._server = Beside(self._api, str(folder / "api.sock"))
            await self._server.begin()
            self._app.on_close(self._end)
            self._watching = asyncio.create_task(self._watch(), name="web UI: end")
        settings = Settings(
            folder=str(folder),
            gateway=str(folder / "api.sock"),
            base=controller.base_path.rstrip("/"),
            path=PATH,
            name=controller.name or self._app.project.settings.name or "model-compose",
            max_file=controller.max_body,
            caller=caller,
        )
        return await Pages.start(settings, reaper)

    async def _watch(self) -> None:
        """Open pages hold connections that never end: end them when the service stops."""
        while not self._app.draining:  # noqa: ASYNC110  nobody is told of it
            await asyncio.sleep(_LOOK_S)
        self._leaving.set()

    async def _end(self) -> None:
        self._watching.cancel()
        self._leaving.set()
        if self._starting is not None:
            if not self._starting.done():
                self._starting.cancel()
            await asyncio.wait([self._starting])
            if not self._starting.cancelled() and self._starting.exception() is None:
                await self._starting.result().stop()
        if self._server is not None:
            await self._server.end()


def _alive(starting: asyncio.Task[Pages]) -> bool:
    return not starting.cancelled() and starting.exception() is None and starting.result().running


_NOT_KEPT: Final = [(b"cache-control", b"no-store")]


def _wants_page(scope: Scope) -> bool:
    return scope["method"] == "GET" and b"text/html" in header(scope, b"accept")


class _Exchange:
    """One request that is passed on, and its response."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, limit: int, leaving: asyncio.Event
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._limit = limit
        self._leaving = leaving
        self._sent = asyncio.Event()
        self._answered = False
        self.can_be_repeated = not (header(scope, b"content-length") or header(scope, b"transfer-encoding"))
        if self.can_be_repeated:
            self._sent.set()

    async def gone(self) -> Any:
        """What comes after the body: the end of the connection."""
        await self._sent.wait()
        return await self._receive()

    async def pass_on(self, client: httpx2.AsyncClient) -> None:
        """Send the request on, and its response back."""
        try:
            response = await client.send(self._request(client), stream=True)
            async with contextlib.aclosing(response):
                await self._pass_back(response)
        except ModelComposeError as error:
            if self._answered:
                raise
            await respond_error(self._send, error)
        except httpx2.TransportError as error:
            if self._answered:
                raise ServiceError(f"the web UI broke off: {type(error).__name__}") from error
            raise
        finally:
            self._sent.set()

    def _request(self, client: httpx2.AsyncClient) -> httpx2.Request:
        scope = self._scope
        headers = [
            (key, value)
            for key, value in scope["headers"]
            if key not in _HOP_BY_HOP and not key.startswith(b"x-forwarded-")
        ]
        headers.append((b"x-forwarded-proto", scope["scheme"].encode()))
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        url = client.base_url.copy_with(raw_path=target)
        body = None if self._sent.is_set() else self._body()
        return client.build_request(scope["method"], url, headers=headers, content=body)

    async def _body(self) -> AsyncIterator[bytes]:
        size_bytes, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ServiceError("the browser left")
            piece = message.get("body", b"")
            size_bytes += len(piece)
            if size_bytes > self._limit:
                hint = "raise `controller.max_body`"
                raise BodyTooLarge(f"the body is larger than {self._limit} bytes", hint=hint)
            more = message.get("more_body", False)
            yield piece
        self._sent.set()

    async def _pass_back(self, response: httpx2.Response) -> None:
        headers = [(key.lower(), value) for key, value in response.headers.raw]
        headers = [(key, value) for key, value in headers if key not in _HOP_BY_HOP | {b"server", b"date"}]
        if response.headers.get("content-type", "").startswith("text/html"):
            headers += _ABOUT_PAGES
        elif response.is_success and self._scope["path"].startswith(_ASSETS):
            headers += _KEPT
        self._answered = True
        start = {"type": "http.response.start", "status": response.status_code, "headers": headers}
        await self._send(start)
        # Open pages say with these that they are open, for as long as they are.
        idle = "/heartbeat/" in self._scope["path"]
        over = self._leaving if idle else asyncio.Event()
        async with contextlib.aclosing(_until(over, response.aiter_raw())) as pieces:
            async for piece in pieces:
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})


async def _until(over: asyncio.Event, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """The pieces that come before something is over."""
    waiting = asyncio.create_task(over.wait())
    try:
        while True:
            coming = asyncio.ensure_future(anext(pieces, None))
            try:
                await asyncio.wait([coming, waiting], return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not coming.done():
                    coming.cancel()
                    await asyncio.wait([coming])
            if coming.cancelled() or (piece := coming.result()) is None:
                return
            yield piece
    finally:
        waiting.cancel()


class Beside(Quiet):
    """The service once more, on a Unix socket in a folder that is ours."""

    def __init__(self, asgi: ASGIApp, path: str) -> None:
        super().__init__(asgi, 1, uds=path)
        self._path = path

    async def begin(self) -> None:
        """Listen."""
        self._serving = asyncio.create_task(self.serve(), name="web UI: API")
        while not self.started:
            if self._serving.done():
                raise ServiceError(f"cannot listen on `{self._path}`")
            await asyncio.sleep(0.001)

    async def end(self) -> None:
        """Stop, and take the socket away."""
        self.should_exit = True
        await asyncio.wait([self._serving])
        with contextlib.suppress(OSError):
            os.unlink(self._path)  # noqa: PTH108  uvicorn did so, mostly
