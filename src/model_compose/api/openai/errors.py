"""How does an error look to clients of OpenAI's API?

They know a request that cannot be served by its 400, whatever is wrong with it.
Source: https://platform.openai.com/docs/guides/error-codes
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from starlette.types import Scope, Send

from model_compose import errors
from model_compose.api.asgi import respond
from model_compose.api.asgi import respond_error as respond_native
from model_compose.api.status import headers_of, status_of

PREFIX: Final = "/v1"

#: Words for programs that OpenAI has, where they differ from ours.
_CODES: Final[dict[type[BaseException], str]] = {
    errors.RequestTooLong: "context_length_exceeded",
    errors.Overloaded: "rate_limit_exceeded",
}
_TYPES: Final = {
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
}
#: The clients try again by themselves, unless they are told that it would be in vain.
_FINAL: Final = (errors.Cancelled, errors.ModelUnavailable, errors.ModelLoadError, errors.DriverMissing)
_NOT_AGAIN: Final = (b"x-should-retry", b"false")


class ModelNotFound(errors.NotFound):
    """No model of that name. Its code is the one that clients of OpenAI's API look for."""

    code = "model_not_found"

    def data(self) -> dict[str, Any]:
        return {"field": "model"}


def status(error: BaseException) -> HTTPStatus:
    """The status that belongs to an error."""
    if isinstance(error, errors.InvalidInput | errors.Unsupported):
        return HTTPStatus.BAD_REQUEST
    return status_of(error)


def envelope(error: BaseException, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """An error as JSON values. What is not ours is not explained to a client.

    names  what the client calls our fields
    """
    if not isinstance(error, errors.ModelComposeError):
        return {"error": {"message": "internal error", "type": "server_error", "param": None, "code": None}}
    info, found = error.info(), status(error)
    message = info.message + (f" ({info.hint})" if info.hint else "")
    param = info.data.get("field")
    for ours, theirs in (names or {}).items():
        for end in ("`", ".", "["):  # also of what is inside of a field
            message = message.replace(f"`{ours}{end}", f"`{theirs}{end}")
        if param is not None and re.match(rf"{ours}\b", param):
            param = theirs + param.removeprefix(ours)
    server = found >= HTTPStatus.INTERNAL_SERVER_ERROR
    kind = _TYPES.get(found) or ("server_error" if server else "invalid_request_error")
    code = next((_CODES[cls] for cls in type(error).__mro__ if cls in _CODES), info.code)
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


async def respond_error(send: Send, error: BaseException, names: Mapping[str, str] | None = None) -> None:
    """Send an error with the status and the headers that belong to it."""
    headers = headers_of(error)
    if isinstance(error, _FINAL):
        headers.append(_NOT_AGAIN)
    await respond(send, status(error), msgspec.json.encode(envelope(error, names)), headers=headers)


async def refuse(scope: Scope, send: Send, error: BaseException) -> None:
    """Send an error in the form that the caller of a route expects."""
    ours = scope["path"].startswith(f"{PREFIX}/")
    await (respond_error if ours else respond_native)(send, error)
