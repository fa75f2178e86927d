"""A fake of Qdrant's server: the REST calls that we make of it, on a free port.

Paths, methods and bodies are those of https://api.qdrant.tech; what is behind them is the client's own
local mode, which filters and ranks like the server, without an index.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from qdrant_client import QdrantClient
from qdrant_client.http import models

_PATH = re.compile(r"/collections/([^/?]+)(/[^?]*)?(?:\?.*)?")


class FakeQdrant:
    """The server's state, and what it was asked."""

    def __init__(self, key: str | None) -> None:
        self.key = key
        self.port = 0
        self.calls: list[str] = []
        self.fail: tuple[int, str] | None = None
        self._store = QdrantClient(":memory:", force_disable_check_same_thread=True)
        self._lock = threading.Lock()

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Status and result of a request."""
        matched = _PATH.fullmatch(path)
        assert matched is not None, f"{method} {path} is not faked"
        name, rest = matched[1], matched[2] or ""
        self.calls.append(f"{method} {rest}")
        with self._lock:
            if (method, rest) == ("GET", "/exists"):
                return 200, {"exists": self._store.collection_exists(name)}
            if (method, rest) != ("PUT", "") and not self._store.collection_exists(name):
                return 404, f"Not found: Collection `{name}` doesn't exist!"
            return 200, self._done(name, method, rest, body)

    def _done(self, name: str, method: str, rest: str, body: Any) -> Any:
        store = self._store
        match method, rest:
            case "PUT", "":
                size = models.VectorParams.model_validate(body["vectors"])
                return store.create_collection(name, vectors_config=size)
            case "GET", "":
                return store.get_collection(name)
            case "PUT", "/points":
                listed = models.PointsList.model_validate(body)
                return store.upsert(name, points=listed.points)
            case "POST", "/points":
                asked = models.PointRequest.model_validate(body)
                return store.retrieve(
                    name, ids=asked.ids, with_payload=asked.with_payload or False, with_vectors=False
                )
            case "POST", "/points/count":
                counted = models.CountRequest.model_validate(body)
                return store.count(name, count_filter=counted.filter, exact=True)
            case "POST", "/points/delete":
                chosen = models.FilterSelector.model_validate(body)
                return store.delete(name, points_selector=chosen)
            case "PUT", "/points/vectors":
                vectors = models.UpdateVectors.model_validate(body)
                return store.update_vectors(name, points=vectors.points)
            case "POST", "/points/payload":
                payload = models.SetPayload.model_validate(body)
                return store.set_payload(name, payload=payload.payload, points=payload.points or [])
            case "POST", "/points/query/batch":
                batch = models.QueryRequestBatch.model_validate(body)
                for search in batch.searches:
                    search.params = None  # how an index is used
                return store.query_batch_points(name, requests=batch.searches)
        raise AssertionError(f"{method} {rest} is not faked")


class _Handler(BaseHTTPRequestHandler):
    fake: ClassVar[FakeQdrant]
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        if self.fake.key is not None and self.headers.get("api-key") != self.fake.key:
            status, result = 401, "Must provide an API key or an Authorization bearer token"
        elif self.fake.fail is not None:
            status, result = self.fake.fail
        else:
            status, result = self.fake.answer(self.command, self.path, body)
        good = status == 200
        answer = {
            "result": _plain(result) if good else None,
            "status": "ok" if good else {"error": result},
            "time": 0.001,
        }
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST = _serve  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


@contextlib.contextmanager
def qdrant(key: str | None = None) -> Iterator[FakeQdrant]:
    """A server until the end of the block; with a `key`, it answers only those who send it."""
    fake = FakeQdrant(key)
    handler = type("Handler", (_Handler,), {"fake": fake})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        fake.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
