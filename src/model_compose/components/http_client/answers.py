"""What is a response: a value, or a stream of pieces? Its `Content-Type` and the action tell."""

from __future__ import annotations

import asyncio
import codecs
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
from msgspec import UNSET

from model_compose.components.http_client.connection import Connection, Request, said_in, without_secrets
from model_compose.components.http_client.events import (
    Decoder,
    Event,
    JsonLines,
    ServerSentEvents,
    Text,
    TooLong,
)
from model_compose.components.http_client.outputs import with_deltas
from model_compose.components.http_client.reading import Reading
from model_compose.errors import ModelComposeError, TimedOut, UpstreamError
from model_compose.types import Blob, Usage

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger(__name__)

Format = Literal["json", "text"]

_EVENTS: Final = "text/event-stream"
_LINES: Final = frozenset(
    {
        *("application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"),
        *("application/json-lines", "application/jsonlines", "application/json-seq"),
    }
)
#: Bytes from which on JSON is read beside the event loop.
_MUCH: Final = 256 << 10
#: How long a server may take to hang up after it has said that it is done.
_LEAVE_S: Final = 0.1
#: Keys of an event that says nothing but that something went wrong.
_OF_ERRORS: Final = frozenset(
    {"error", "error_type", "message", "code", "type", "status", "status_code", "object", "detail", "param"}
)
_decode = msgspec.json.Decoder().decode


class Answer:
    """A successful response, its body still to be read.

    release   called once, when nothing is left to do
    deadline  of the loop's clock, None if there is none
    """

    def __init__(
        self,
        connection: Connection,
        request: Request,
        response: httpx2.Response,
        *,
        limit: int,
        deadline: float | None,
        release: Callable[[], None],
    ) -> None:
        self.name = connection.name
        self.request = request
        self.status = response.status_code
        self.limit = limit
        self.deadline = deadline
        self._connection = connection
        self._response = response
        self._release = release
        self._reading = Reading(response.aiter_bytes())
        kind, _, about = response.headers.get("content-type", "").partition(";")
        self.kind = kind.strip().lower()
        self._about = about

    async def next(self) -> bytes | None:
        """More of the body, None at its end."""
        try:
            async with asyncio.timeout_at(self.deadline) as limit:
                with self._connection.errors(self.request.url):
                    return await self._reading.next()
        except TimeoutError:
            if not limit.expired():
                raise
            raise out_of_time() from None

    async def close(self) -> None:
        """Nobody wants the rest; it may have been closed before."""
        release, self._release = self._release, _nothing
        try:
            await self._reading.close()
            await self._response.aclose()
        finally:
            release()

    def error(self, message: str, body: str | None = None, hint: str | None = None) -> UpstreamError:
        """What is wrong with it, without secrets of the request."""
        secrets = [*self.request.secrets()]
        return UpstreamError(
            f"`{self.name}`: {without_secrets(message, secrets)}",
            upstream_status=self.status,
            upstream_body=None if body is None else without_secrets(body, secrets)[:2048],
            hint=hint,
        )

    def too_long(self) -> UpstreamError:
        """It has more bytes than are taken."""
        return self.error(
            f"the server sends more than {self.limit} bytes",
            hint="`max_response` says how much is taken of a response, or of one event",
        )

    # As a whole

    async def whole(self) -> Any:
        """Its value: JSON, a text, or a file."""
        body = bytearray()
        try:
            while (data := await self.next()) is not None:
                body += data
                if len(body) > self.limit:
                    raise self.too_long()
        finally:
            await self.close()
        if len(body) > _MUCH:
            return await asyncio.to_thread(self._value, bytes(body))
        return self._value(bytes(body))

    def _value(self, body: bytes) -> Any:
        if not body:
            return None
        if self.is_json or self.kind in _LINES:
            return self._json(body)
        if self.kind.startswith("text/") or not self.kind:
            return body.decode(self.charset, "replace")
        return Blob(self.kind, body)

    def _json(self, body: bytes) -> Any:
        """A value, or those of several lines."""
        try:
            return _decode(body.removeprefix(codecs.BOM_UTF8))
        except msgspec.DecodeError as error:
            lines = JsonLines(self.limit)
            values = lines.feed(body)
            if not values:
                raise self._no_json(body) from error
            return values + lines.end()

    def _no_json(self, body: bytes) -> UpstreamError:
        text = body[:4096].decode("utf-8", "replace")
        return self.error(f"the server says `{self.kind}`, and sends what is no JSON", text)

    @property
    def is_json(self) -> bool:
        """Whether it says that it is a JSON text."""
        return self.kind == "application/json" or self.kind.endswith("+json")

    @property
    def charset(self) -> str:
        """How its text is encoded."""
        for part in self._about.split(";"):
            name, _, value = part.partition("=")
            if name.strip().lower() == "charset":
                try:
                    return codecs.lookup(value.strip().strip('"')).name
                except LookupError:
                    break
        return "utf-8"

    # Piece by piece

    def pieces(self, wanted: Format | None, *, piecewise: bool) -> Pieces | None:
        """It as a stream; None if it is one value.

        wanted     the action's `stream_format`
        piecewise  whether the action's output is made of pieces
        """
        if self.kind == _EVENTS:
            return Pieces(self, ServerSentEvents(self.limit), wanted)
        if self.kind in _LINES:
            # As text, what it says of itself is its lines as they are.
            text = wanted == "text"
            return Pieces(self, Text("utf-8") if text else JsonLines(self.limit), wanted or "json")
        if wanted == "json" or (wanted is None and piecewise and self.is_json):
            return Pieces(self, JsonLines(self.limit), "json")
        if wanted == "text" or (piecewise and self.kind.startswith("text/")):
            return Pieces(self, Text(self.charset), "text")
        return None


class Pieces:
    """The pieces of a streamed response: nothing is read before somebody wants it.

    over      whether the server has said everything
    usage     what the server said that it cost, so far
    ordinary  the value, if it turned out to be one JSON text where a stream was hoped for
    on_end    called when it has sent everything
    """

    def __init__(self, answer: Answer, decoder: Decoder, wanted: Format | None) -> None:
        self.answer = answer
        self.usage: Usage | None = None
        self.ordinary: Any = UNSET
        self.on_end: Callable[[], None] = _nothing
        #: Most bytes of all pieces together, where they are collected.
        self.most: int | None = None
        self._decoder = decoder
        self._wanted = wanted
        self.over = False
        self._skipped = 0
        self._size = 0

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> list[Any]:
        try:
            while not self.over:
                if pieces := await self._some():
                    return pieces
        except TooLong:
            await self.answer.close()
            raise self.answer.too_long() from None
        except BaseException:
            await asyncio.shield(self.answer.close())
            raise
        raise StopAsyncIteration

    async def _some(self) -> list[Any]:
        """What the next bytes come to, which may be nothing."""
        pieces = self._read(await self.answer.next())
        if self.over:
            await self._finish()
        return pieces

    def _read(self, data: bytes | None) -> list[Any]:
        if data is None:
            self.over = True
            try:
                found = self._decoder.end()
            except msgspec.DecodeError:
                raise self.answer.error("the server sends what is no JSON") from None
        else:
            self._size += len(data)
            if self.most is not None and self._size > self.most:
                raise TooLong
            found = self._decoder.feed(data)
        if isinstance(self._decoder, Text):
            return found
        if isinstance(self._decoder, ServerSentEvents):
            found = self._of_events(found)
        if self._wanted == "json":
            for value in found:
                if isinstance(value, dict):
                    self._look_at(value)
        if isinstance(self._decoder, JsonLines) and self.answer.is_json:
            return self._of_json(found, self._decoder.count)
        return found

    def _of_json(self, found: list[Any], count: int) -> list[Any]:
        """Values of what says that it is one JSON text; a list at its end is a list of pieces."""
        found = [with_deltas(value) for value in found]
        if count > 1:
            self.ordinary = UNSET
        elif found:
            self.ordinary = found[0]
            if self.over and isinstance(self.ordinary, list):
                return self.ordinary
        return found

    def _of_events(self, events: list[Event]) -> list[Any]:
        values: list[Any] = []
        for event in events:
            if event.data == b"[DONE]":
                self.over = True
                break
            if event.name == b"error":
                raise self._failed(event.data)
            if self._wanted is None:  # the first event tells
                self._wanted = "json" if event.data[:1] == b"{" and _is_json(event.data) else "text"
            if self._wanted == "text":
                values.append(event.data.decode("utf-8", "replace"))
                continue
            try:
                values.append(_decode(event.data))
            except msgspec.DecodeError:
                self._skipped += 1
        return values

    def _look_at(self, value: dict[str, Any]) -> None:
        """Note what a piece says of the call as a whole. Raises UpstreamError if it says that it failed."""
        if (value.get("error") or value.get("object") == "error") and value.keys() <= _OF_ERRORS:
            raise self._failed(msgspec.json.encode(value))
        if isinstance(value.get("usage"), dict):
            self.usage = usage_in(value) or self.usage

    def _failed(self, data: bytes) -> UpstreamError:
        text = data.decode("utf-8", "replace")
        said = said_in(_decode(data)) if _is_json(data) else text
        return self.answer.error(f"the server failed while it answered: {(said or text)[:200]}", text)

    async def _finish(self) -> None:
        """Leave the connection in a state in which it can be used again, if that takes no time."""
        try:
            async with asyncio.timeout(_LEAVE_S):
                while await self.answer.next() is not None:
                    pass
        except (TimeoutError, ModelComposeError):
            pass  # everything is there
        await self.answer.close()
        skipped = self._skipped
        if isinstance(self._decoder, JsonLines):
            skipped += self._decoder.skipped
        if skipped:
            log.warning("%s: %d events that are no JSON were skipped", self.answer.name, skipped)
        self.on_end()


def usage_in(value: Any) -> Usage | None:
    """What a response in the manner of OpenAI says that it cost."""
    usage = value.get("usage") if isinstance(value, dict) else None
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    found = (
        usage.get("prompt_tokens"),
        usage.get("completion_tokens", 0),
        details.get("cached_tokens") if isinstance(details, dict) else 0,
    )
    counts = [0 if count is None else count for count in found]
    if found[0] is None or not all(isinstance(count, int) and count >= 0 for count in counts):
        return None
    return Usage(*counts)


def out_of_time() -> TimedOut:
    """The action's own limit, or the component's."""
    return TimedOut("the `timeout` of the action or `timeouts.total` of its component ran out")


def _is_json(data: bytes) -> bool:
    try:
        _decode(data)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _nothing() -> None:
    pass
