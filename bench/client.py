"""An HTTP client that costs little, so that what is measured is the server.

One TCP connection for each caller, kept alive; responses are split, not parsed. Both sides of every
comparison are measured with this same client.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any


class Connection:
    """One caller."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 20)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _send(self, path: str, body: bytes, accept: str) -> None:
        assert self._writer is not None
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nContent-Type: application/json\r\n"
            f"Accept: {accept}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)

    async def post(self, path: str, body: bytes) -> bytes:
        """Send a request and return the body of its response."""
        assert self._reader is not None
        self._send(path, body, "application/json")
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return await self._reader.readexactly(length)

    async def events(self, path: str, body: bytes) -> tuple[list[bytes], list[float]]:
        """Send a request for events; -> the events, and when the bytes of each arrived."""
        assert self._reader is not None
        self._send(path, body, "text/event-stream")
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        found: list[bytes] = []
        times: list[float] = []
        rest = b""
        while True:
            size = int((await self._reader.readuntil(b"\r\n")).strip(), 16)
            piece = await self._reader.readexactly(size + 2)
            if size == 0:
                return found, times
            *whole, rest = (rest + piece[:-2]).split(b"\n\n")
            found += whole
            times += [time.perf_counter()] * len(whole)


async def hammer(port: int, path: str, body: dict[str, Any], callers: int, seconds: float) -> list[float]:
    """Closed-loop callers for so long; -> the latency of each request, in seconds."""
    encoded = json.dumps(body).encode()
    connections = [Connection(port) for _ in range(callers)]
    for connection in connections:
        await connection.open()
    latencies: list[float] = []
    ends = time.perf_counter() + seconds

    async def call(connection: Connection) -> None:
        while (began := time.perf_counter()) < ends:
            await connection.post(path, encoded)
            latencies.append(time.perf_counter() - began)

    await asyncio.gather(*map(call, connections))
    for connection in connections:
        connection.close()
    return latencies
