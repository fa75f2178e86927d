"""Which HTTP status does an error have, and how does it look as JSON?"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any, Final

import msgspec

from model_compose import errors

#: The one table. Classes that are not named have the status of their nearest base.
_STATUS: Final[dict[type[errors.ModelComposeError], HTTPStatus]] = {
    errors.BadRequest: HTTPStatus.BAD_REQUEST,
    errors.BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.Unauthorized: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.RequestTooLong: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Overloaded: HTTPStatus.TOO_MANY_REQUESTS,
    errors.TimedOut: HTTPStatus.GATEWAY_TIMEOUT,
    errors.Cancelled: HTTPStatus.CONFLICT,
    errors.Unsupported: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.Interrupted: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.DriverMissing: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.InstallFailed: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.SourceError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ModelLoadError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.ModelUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.WorkerDied: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.UpstreamError: HTTPStatus.BAD_GATEWAY,
    errors.OutOfMemory: HTTPStatus.INSUFFICIENT_STORAGE,
    errors.ServiceError: HTTPStatus.SERVICE_UNAVAILABLE,
}


def status_of(error: BaseException) -> HTTPStatus:
    """The status that belongs to an error; 500 for everything that is nobody's but ours."""
    return _status(type(error))


def _status(cls: type[BaseException]) -> HTTPStatus:
    return next((_STATUS[c] for c in cls.__mro__ if c in _STATUS), HTTPStatus.INTERNAL_SERVER_ERROR)


_STATUS_BY_CODE: Final = {
    cls.code: _status(cls)
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, errors.ModelComposeError)
}


def status_of_code(code: str) -> HTTPStatus:
    """The status that belongs to an error of which only its word for programs is left."""
    return _STATUS_BY_CODE.get(code, HTTPStatus.INTERNAL_SERVER_ERROR)


def headers_of(error: BaseException) -> list[tuple[bytes, bytes]]:
    """Headers that belong to an error: `Retry-After`, in whole seconds; how to show a key."""
    if isinstance(error, errors.Unauthorized):
        # Browsers ask for a password, which is the key; programs send it as a bearer token.
        return [(b"www-authenticate", b"Bearer"), (b"www-authenticate", b'Basic realm="model-compose"')]
    if isinstance(error, errors.Overloaded):
        return [(b"retry-after", str(math.ceil(error.retry_after_s)).encode())]
    return []


def error_body(error: BaseException) -> dict[str, Any]:
    """An error as JSON values. What is not ours is not explained to a client."""
    if not isinstance(error, errors.ModelComposeError):
        return {"detail": "internal error", "type": "internal"}
    info = error.info()
    body: dict[str, Any] = {"detail": info.message, "type": info.code}
    if info.hint:
        body["hint"] = info.hint
    return body | {key: value for key, value in info.data.items() if value is not None}


def encoded(error: BaseException) -> bytes:
    """The JSON body of an error."""
    return msgspec.json.encode(error_body(error))
