"""Which requests are let in at all?

A service on loopback can still be reached by every web page that the user opens: by a form or a
script of that page, or by a name that its owner points at 127.0.0.1. So requests must be addressed
to a name that is ours, and those that a browser sends on behalf of a page must come from an origin
that the file allows.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from model_compose.api.asgi import header
from model_compose.api.openai.errors import refuse
from model_compose.config.network import is_loopback
from model_compose.config.schema import Controller
from model_compose.errors import Forbidden


def origins_of(controller: Controller) -> frozenset[str]:
    """The allowed origins of a controller, however they are written."""
    given = controller.origins
    listed = given.split(",") if isinstance(given, str) else given
    return frozenset(origin.strip().rstrip("/") for origin in listed if origin.strip())


class Guard:
    """Refuses requests to foreign names and from foreign web pages."""

    def __init__(self, app: ASGIApp, controller: Controller) -> None:
        self._app = app
        self._origins = origins_of(controller)
        self._hosts = set(controller.hosts)
        # A page that gets here by a name of its own has no key: then any name is as good as another.
        open_to_all = controller.insecure and not all(map(is_loopback, controller.hosts))
        self._any_host = bool(controller.keys) or open_to_all

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            refused = self._refused(scope)
            if refused is not None:
                await refuse(scope, send, refused)
                return
        await self._app(scope, receive, send)

    def _refused(self, scope: Scope) -> Forbidden | None:
        host = header(scope, b"host").decode("latin-1")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if not (self._any_host or name in self._hosts or is_loopback(name)):
            return Forbidden(f"`{host}` is not a name of this service", hint="call it by `127.0.0.1`")
        origin = header(scope, b"origin").decode("latin-1")
        if origin and not self._origins & {origin, "*"} and _netloc(origin) != host:
            hint = "add it to `controller.origins`"
            return Forbidden(f"web pages from `{origin}` may not call this service", hint=hint)
        return None


def _netloc(origin: str) -> str | None:
    """The host and port of an origin; None if it has none."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None
