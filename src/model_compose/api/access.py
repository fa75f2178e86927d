"""Who calls, and may they?

Where the file has `api_keys`, every request must bring one of them, except for `/livez`: as
`Authorization: Bearer KEY`, as `X-API-Key: KEY`, or as the password of HTTP's basic authentication, which is
what browsers ask for. The token in the state folder is a key of role `admin` too: whoever may read that
folder owns the service.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from model_compose.api.asgi import header
from model_compose.api.openai.errors import refuse
from model_compose.config.schema import ApiKey
from model_compose.errors import Forbidden, NotFound, Unauthorized

#: The path that nobody needs a key for.
OPEN = "/livez"


class Caller(msgspec.Struct, frozen=True):
    """Who sent a request. `name` is None where nobody is asked for a key."""

    name: str | None
    admin: bool

    def may_see(self, owner: str | None) -> bool:
        """Whether a run of this owner is any of their business."""
        return self.admin or self.name is None or owner == self.name


class Access:
    """Lets in who has a key, and notes who that is in the scope."""

    def __init__(self, app: ASGIApp, keys: Sequence[ApiKey], token: str | None) -> None:
        self._app = app
        self._open = not keys
        self._known = [(_digest(key.key), Caller(key.name, key.role == "admin")) for key in keys]
        if token is not None:
            self._known.append((_digest(token), Caller(None, admin=True)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            caller = self._caller(scope)
            if caller is None:
                await refuse(scope, send, _refusal(scope))
                return
            scope["caller"] = caller
        await self._app(scope, receive, send)

    def _caller(self, scope: Scope) -> Caller | None:
        given = _digest(_key(scope))
        # All of them are compared, so that the time says nothing.
        found = [caller for known, caller in self._known if hmac.compare_digest(given, known)]
        if found:
            return found[0]
        return Caller(None, admin=False) if self._open or scope["path"] == OPEN else None


def caller_of(scope: Scope) -> Caller:
    """Who sent a request."""
    caller: Caller = scope["caller"]
    return caller


def require_admin(scope: Scope) -> None:
    """Raise Forbidden for everybody else."""
    if not caller_of(scope).admin:
        raise Forbidden(
            "this is for whoever runs the service",
            hint="use the `model-compose` command, or a key of role `admin`",
        )


def require_owner(scope: Scope, task_id: str, owner: str | None) -> None:
    """Raise NotFound for a run of somebody else's: whether there is one is told to nobody."""
    if not caller_of(scope).may_see(owner):
        raise NotFound(f"there is no task `{task_id}`", hint="finished ones are forgotten after a while")


def _refusal(scope: Scope) -> Unauthorized:
    if _key(scope):
        return Unauthorized("this key is not known", hint="`controller.api_keys` lists those that are")
    return Unauthorized("a key is needed", hint="send `Authorization: Bearer KEY`")


def _key(scope: Scope) -> str:
    """The key that a request brings, empty if none."""
    scheme, _, credentials = header(scope, b"authorization").decode("latin-1").partition(" ")
    match scheme.lower():
        case "bearer":
            return credentials.strip()
        case "basic":
            try:
                return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return ""
    return header(scope, b"x-api-key").decode("latin-1").strip()


def _digest(key: str) -> bytes:
    """Of one length for all keys, which is what a comparison in constant time needs."""
    return hashlib.sha256(key.encode()).digest()
