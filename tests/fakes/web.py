"""How does a test get an HTTP server that misbehaves on demand and remembers what it was asked?"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]  # names in lower case

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")

    @property
    def range(self) -> str | None:
        return self.headers.get("range")


@dataclass(frozen=True)
class Answer:
    """`body_bytes_sent` is how much of the body leaves before the connection breaks; None: all of it."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    body_bytes_sent: int | None = None


class WebServer:
    """A server on a free port of 127.0.0.1, alive inside a `with` statement. Subclasses override `answer`."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._broken: dict[str, list[int]] = {}
        self._lock = threading.Lock()

    def answer(self, request: Request) -> Answer:
        raise NotImplementedError

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def break_after(self, name: str, *sizes: int) -> None:
        """Break the connection of the next downloads of `name` after so many bytes, one size per download."""
        self._broken.setdefault(name, []).extend(sizes)

    def file(self, request: Request, name: str, body: bytes, etag: str, headers: Mapping[str, str]) -> Answer:
        """Serve a file, with ranges and If-Range as RFC 9110 has them, or break on the way."""
        with self._lock:
            breaks = self._broken.get(name)
            sent = breaks.pop(0) if breaks and request.method == "GET" else None
        headers = {"ETag": etag, "Accept-Ranges": "bytes", **headers}
        span = request.range
        if span is None or request.headers.get("if-range", etag) != etag:
            return Answer(200, headers, body, sent)
        begin = int(span.removeprefix("bytes=").partition("-")[0])
        if begin >= len(body):
            return Answer(416, {"Content-Range": f"bytes */{len(body)}"})
        content_range = f"bytes {begin}-{len(body) - 1}/{len(body)}"
        return Answer(206, {**headers, "Content-Range": content_range}, body[begin:], sent)

    def __enter__(self) -> Self:
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                request = Request(
                    self.command,
                    unquote(parts.path),
                    parse_qs(parts.query),
                    {name.lower(): value for name, value in self.headers.items()},
                )
                web.requests.append(request)
                self._send(web.answer(request))

            do_HEAD = do_GET  # noqa: N815

            def _send(self, answer: Answer) -> None:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.send_header("Connection", "close")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body[: answer.body_bytes_sent])
                self.close_connection = True

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
