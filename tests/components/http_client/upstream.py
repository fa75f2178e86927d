"""What do the calls under test talk to? A server that speaks HTTP/1.1 byte for byte, as each test says."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec


class Asked(msgspec.Struct):
    """A request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """What a server writes to one caller; `gone` is set when the caller has left."""

    def __init__(self, writer: asyncio.StreamWriter, gone: asyncio.Event) -> None:
        self._writer = writer
        self.gone = gone

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def head(
        self, kind: str | None, status: str = "200 OK", headers: Mapping[str, str] | None = None
    ) -> None:
        """The head of a response that comes in chunks."""
        lines = [f"HTTP/1.1 {status}", "Transfer-Encoding: chunked"]
        lines += [f"Content-Type: {kind}"] if kind else []
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        await self.send("\r\n".join([*lines, "", ""]).encode())

    async def chunk(self, data: bytes) -> None:
        await self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def end(self) -> None:
        await self.send(b"0\r\n\r\n")

    async def respond(
        self,
        body: Any,
        kind: str | None = "application/json",
        status: str = "200 OK",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """A whole response; what is no bytes as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(data)}"]
        lines += [f"Content-Type: {kind}"] if kind else []
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        await self.send("\r\n".join([*lines, "", ""]).encode() + data)

    async def stream(self, kind: str, *chunks: bytes) -> None:
        """A response in these chunks."""
        await self.head(kind)
        for each in chunks:
            await self.chunk(each)
        await self.end()

    def hang_up(self) -> None:
        self._writer.close()


Handler = Callable[[Asked, Connection], Awaitable[None]]


class Upstream:
    """A server under way. `asked` has every request, `connections` counts those that were opened."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.asked: list[Asked] = []
        self.connections = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        gone = asyncio.Event()
        connection = Connection(writer, gone)
        try:
            while (asked := await _read(reader)) is not None:
                self.asked.append(asked)
                watch = asyncio.create_task(_until_gone(reader, gone))
                try:
                    await self.handler(asked, connection)
                finally:
                    watch.cancel()
                    await asyncio.wait([watch])
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            gone.set()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def _until_gone(reader: asyncio.StreamReader, gone: asyncio.Event) -> None:
    while not reader.at_eof() and reader.exception() is None:
        # A look at what is buffered takes nothing from the next request.
        await asyncio.sleep(0.002)
    gone.set()


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    method, target, _ = first.split(" ")
    return Asked(method, target, headers, await reader.readexactly(int(headers.get("content-length", 0))))


@contextlib.asynccontextmanager
async def upstream(handler: Handler) -> AsyncIterator[Upstream]:
    """A server until the end of the block."""
    found = Upstream(handler)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(found.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()
        for task in [*tasks]:
            task.cancel()
        if tasks:
            await asyncio.wait([*tasks])


def answers(body: Any, kind: str = "application/json", **more: Any) -> Handler:
    """A handler that always gives the same."""

    async def handle(asked: Asked, connection: Connection) -> None:
        await connection.respond(body, kind, **more)

    return handle


def streams(kind: str, *chunks: bytes) -> Handler:
    """A handler that always streams the same."""

    async def handle(asked: Asked, connection: Connection) -> None:
        await connection.stream(kind, *chunks)

    return handle
