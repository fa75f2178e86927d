"""How do requests come in and responses go out, without a framework in between?

Routes with model traffic take the raw ASGI messages: on these the service spends less than half of
what a framework's request and response objects cost.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

import msgspec
from starlette.types import Receive, Scope, Send

from model_compose.api.status import encoded, headers_of, status_of
from model_compose.errors import BodyTooLarge, InvalidInput

Headers = Sequence[tuple[bytes, bytes]]

_YES = ("1", "true")
_NO = ("0", "false")
_EVENT_STREAM = b"text/event-stream"


def header(scope: Scope, name: bytes) -> bytes:
    """A request header, empty if it is not there; `name` in lower case."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return b""


def wants_events(scope: Scope) -> bool:
    """Whether the client asks for a stream of events by its `Accept`."""
    return _EVENT_STREAM in header(scope, b"accept")


def flag(scope: Scope, name: str) -> bool:
    """Whether a parameter of the query is `true` or `1`. Raises InvalidInput for another word."""
    values = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True).get(name, ["false"])
    said = values[-1].lower()
    if said not in _YES and said not in _NO:
        raise InvalidInput(f"`{name}` is neither `true` nor `false`", field=name)
    return said in _YES


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes | None:
    """The body of a request; None when the client left before its end.

    Raises BodyTooLarge as soon as more than `limit` bytes are announced, or have come.
    """
    length = header(scope, b"content-length")
    if length.isdigit() and int(length) > limit:
        raise _too_large(limit)
    pieces: list[bytes] = []
    size_bytes = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        pieces.append(message.get("body", b""))
        size_bytes += len(pieces[-1])
        if size_bytes > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {limit} bytes", hint="raise `controller.max_body`")


async def respond(
    send: Send,
    status: int,
    body: bytes,
    content_type: bytes = b"application/json",
    headers: Headers = (),
) -> None:
    """Send a whole response."""
    head = [(b"content-type", content_type), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": int(status), "headers": head})
    await send({"type": "http.response.body", "body": body})


async def respond_json(send: Send, value: Any, status: int = HTTPStatus.OK, headers: Headers = ()) -> None:
    """Send a value as JSON."""
    await respond(send, status, msgspec.json.encode(value), headers=headers)


async def respond_error(send: Send, error: BaseException) -> None:
    """Send an error with the status and the headers that belong to it."""
    await respond(send, status_of(error), encoded(error), headers=headers_of(error))


async def respond_events(send: Send, frames: AsyncGenerator[bytes], headers: Headers = ()) -> None:
    """Send a stream of events; each piece of `frames` holds one or more whole events.

    `frames` is closed at the end, however that comes.
    """
    head = [
        (b"content-type", _EVENT_STREAM + b"; charset=utf-8"),
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),  # proxies shall not collect them
        *headers,
    ]
    await send({"type": "http.response.start", "status": int(HTTPStatus.OK), "headers": head})
    async with contextlib.aclosing(frames):
        async for frame in frames:
            await send({"type": "http.response.body", "body": frame, "more_body": True})
    await end_events(send)


async def end_events(send: Send, last: bytes = b"") -> None:
    """End a stream of events, with a last one."""
    if last:
        await send({"type": "http.response.body", "body": last, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def until_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do the work of a request, which sends its response; cancel it when the client goes away.

    `receive` gives a disconnect both when the client left and when the response is complete. Work that
    ends without a complete response ends the request too: raises what it raised.
    """
    request = asyncio.current_task()
    assert request is not None
    task = asyncio.ensure_future(work)
    unanswered = False

    def ended(_: object) -> None:
        nonlocal unanswered
        if task.cancelled() or task.exception() is not None:
            unanswered = True  # and so `receive` would wait for as long as the client does
            request.cancel()

    task.add_done_callback(ended)
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    except asyncio.CancelledError:
        if not unanswered or request.uncancel() > 0:
            raise
    finally:
        task.remove_done_callback(ended)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
    if not task.cancelled():
        task.result()
