"""How much may a request say before its body begins, and how long may that take? HTTP itself has no limits.

uvicorn keeps whatever comes, its parser collects a header that does not end, and a connection that says
nothing stays for ever.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

#: Of the first line and all headers together; also of what may stand between the parts of a body.
MOST_HEAD_BYTES: Final = 64 << 10
#: From the connection, or the first byte of a later request, to the end of the head.
HEAD_WITHIN_S: Final = 60.0

_STATUS: Final = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
_BODY: Final = b'{"detail":"the headers are larger than %d bytes","type":"bad_request"}' % MOST_HEAD_BYTES


class HeadTooLargeError(Exception):
    """The parser shall go no further."""


class LimitedHttp(HttpToolsProtocol):
    """uvicorn's protocol, which answers 431 to a head without end, and hangs up on one that does not come."""

    _head_bytes = 0
    _unread_bytes = 0
    _got_on = False
    _refused = False
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Somebody is there, and is expected to speak."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        self._expect_nothing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes have come; those that neither end a head nor bring a part of a body are counted."""
        self._got_on = False
        super().data_received(data)
        self._unread_bytes = 0 if self._got_on else self._unread_bytes + len(data)
        if self._unread_bytes > MOST_HEAD_BYTES and not self._refused:
            self._refused = True
            self.send_400_response("")
        if self.cycle is not None and self.cycle.response_complete and self._waiting is None:
            # Bytes that begin no request, behind an answer: uvicorn waits for the next one no longer.
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        self._expect_nothing()
        self._expect_head()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(name + value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._got_on = True
        self._expect_nothing()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._got_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._got_on = True
        super().on_message_complete()

    def _expect_head(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(HEAD_WITHIN_S, self._give_up)

    def _give_up(self) -> None:
        self._waiting = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()
        else:  # the request before this one is still being answered
            self._expect_head()

    def _expect_nothing(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _count(self, part: bytes) -> None:
        self._head_bytes += len(part)
        if self._head_bytes > MOST_HEAD_BYTES:
            self._refused = True
            raise HeadTooLargeError

    def send_400_response(self, msg: str) -> None:
        """The parser has given up, or we have."""
        answered = self.cycle is not None and not self.cycle.response_complete
        if not self._refused:
            super().send_400_response(msg)
            return
        if not answered:  # else these are trailers, and what answers has begun
            head = b"content-type: application/json\r\ncontent-length: %d\r\n" % len(_BODY)
            self.transport.write(STATUS_LINE[_STATUS] + head + b"connection: close\r\n\r\n" + _BODY)
        self.transport.close()
