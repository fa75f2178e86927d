"""How does a request to models become a run, and the run an answer, where the route knows what it gives?

As long as nothing was sent, the status tells what went wrong; after that an event of the stream does. A
client that leaves cancels the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Protocol

import msgspec
from starlette.types import Receive, Scope, Send

from model_compose.api.access import caller_of
from model_compose.api.answers import collected, only, respond_file, task_headers
from model_compose.api.asgi import Headers, end_events, read_body, respond, respond_events, until_gone
from model_compose.components.streams import Stream
from model_compose.compose.app import App
from model_compose.compose.run import Run
from model_compose.config.schema import Workflow
from model_compose.errors import Cancelled, ModelComposeError
from model_compose.types import Blob


class Events(Protocol):
    """Writes an answer as server-sent events; each piece of bytes holds whole ones, or nothing."""

    def begin(self) -> bytes:
        """What comes first."""

    def pieces(self, pieces: list[Any]) -> bytes:
        """Pieces of an output that is still being made."""

    def whole(self, output: Any) -> bytes:
        """An output that came in one piece."""

    def end(self, run: Run) -> bytes:
        """What comes last, when the run has ended well."""

    def error(self, error: dict[str, Any]) -> bytes:
        """What comes last otherwise; `error` is what went wrong, as this API says it."""


class Answer(Protocol):
    """What the output of a run becomes."""

    async def body(self, run: Run, output: Any) -> bytes | Blob:
        """All of it as JSON, or as a file."""

    def events(self, run: Run) -> Events:
        """It as events."""


class Order(msgspec.Struct, frozen=True):
    """What a request wants.

    given      the input of the workflow
    names      what the client calls the fields that we call otherwise
    streaming  it wants events
    """

    workflow: Workflow
    given: dict[str, Any]
    names: Mapping[str, str]
    answer: Answer
    streaming: bool = False


class Taker(Protocol):
    """Reads what a request wants."""

    async def __call__(self, scope: Scope, body: bytes) -> Order:
        """Raises ModelComposeError."""


class Errors(msgspec.Struct, frozen=True):
    """How an API says what went wrong.

    body     as JSON values, by the names that the client has for fields
    respond  sends it, with its status and headers
    """

    body: Callable[[BaseException, Mapping[str, str]], dict[str, Any]]
    respond: Callable[[Send, BaseException, Mapping[str, str]], Awaitable[None]]


class Endpoint:
    """A route on which models work."""

    def __init__(self, app: App, take: Taker, errors: Errors) -> None:
        self._app = app
        self._take = take
        self._errors = errors
        self._limit = app.project.controller.max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        names: Mapping[str, str] = {}
        try:
            body = await read_body(scope, receive, self._limit)
            if body is None:
                return  # the client left: there is nobody to tell
            order = await self._take(scope, body)
            names = order.names
            run, value = self._app.begin(order.workflow, order.given, owner=caller_of(scope).name)
        except ModelComposeError as error:
            await self._errors.respond(send, error, names)
            return
        try:
            await until_gone(receive, self._serve(run, order, value, send))
        finally:
            run.fail(Cancelled("the caller went away"))  # unless it has ended, as it mostly has

    async def _serve(self, run: Run, order: Order, value: dict[str, Any], send: Send) -> None:
        output: Any = None
        try:
            output = await self._app.execute(run, order.workflow, value, streaming=order.streaming)
            if order.streaming:
                frames = await self._frames(run, order, output)
            else:
                if isinstance(output, Stream):  # the file says so
                    output = await collected(run, output)
                body = await order.answer.body(run, output)
        except asyncio.CancelledError:
            if run.reason is None:
                raise  # the client left: there is nobody to tell
            await self._errors.respond(send, run.reason, order.names)
        except Exception as error:  # noqa: BLE001  the run has noted it; the client hears of it
            await self._errors.respond(send, error, order.names)
        else:
            if order.streaming:
                await self._send(run, order, frames, send)
            elif isinstance(body, Blob):
                await respond_file(send, body, _headers(run))
            else:
                await respond(send, HTTPStatus.OK, body, headers=_headers(run))
        finally:
            if isinstance(output, Stream) and not run.ended:  # the client left before the first event
                await output.aclose()

    async def _frames(self, run: Run, order: Order, output: Any) -> AsyncGenerator[bytes]:
        """The events of an output, whose first pieces are there. Raises what it fails with before them."""
        events = order.answer.events(run)
        if not isinstance(output, Stream):
            # A picture as a text is megabytes.
            whole = await asyncio.to_thread(events.whole, output)
            return only(events.begin() + whole + events.end(run))
        pieces = run.follow(output)
        try:
            first = await anext(pieces, None)
        except BaseException:
            await pieces.aclose()
            raise
        return self._following(run, order, events, first, pieces)

    async def _following(
        self,
        run: Run,
        order: Order,
        events: Events,
        first: list[Any] | None,
        pieces: AsyncGenerator[list[Any]],
    ) -> AsyncGenerator[bytes]:
        try:
            yield events.begin() + (b"" if first is None else events.pieces(first))
            async for some in pieces:
                frame = events.pieces(some)
                if frame:
                    yield frame
        except asyncio.CancelledError:
            if run.reason is None:
                raise
            yield events.error(self._errors.body(run.reason, order.names))
        except Exception as error:  # noqa: BLE001  it is the last thing that the client hears
            yield events.error(self._errors.body(error, order.names))
        else:
            yield events.end(run)
        finally:
            await pieces.aclose()

    async def _send(self, run: Run, order: Order, frames: AsyncGenerator[bytes], send: Send) -> None:
        try:
            await respond_events(send, frames, _headers(run))
        except asyncio.CancelledError:
            if run.reason is None:
                raise
            # The run was cancelled while the client was slow to read.
            await end_events(send, order.answer.events(run).error(self._errors.body(run.reason, order.names)))


def _headers(run: Run) -> Headers:
    return [(b"x-request-id", run.id.encode()), *task_headers(run)]
