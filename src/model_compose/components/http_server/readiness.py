"""Does a server answer?"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from model_compose.components.http_server.spec import Healthcheck

HOST: Final = "127.0.0.1"
#: What looking for a server on this machine may take.
CONNECT_S: Final = 2.0
_LOOK_S: Final = 0.1


class Probe:
    """Asks a server whether it is ready: whether it takes connections, or what its health check says."""

    def __init__(self, port: int, healthcheck: Healthcheck | None) -> None:
        self._port = port
        self._check = healthcheck
        self.said = "nothing listens"
        self.pause_s = _LOOK_S if healthcheck is None else healthcheck.interval

    async def listens(self) -> bool:
        """Whether anybody takes connections on the port."""
        async with self._connected(CONNECT_S) as streams:
            return streams is not None

    async def ready(self) -> bool:
        """Whether it would serve a request now; `said` is why not."""
        return await self.listens() and (self._check is None or await self._healthy(self._check))

    async def _healthy(self, check: Healthcheck) -> bool:
        try:
            async with asyncio.timeout(check.timeout):
                status = await self._status(check.path)
        except TimeoutError:
            self.said = f"`{check.path}` did not answer within {check.timeout:g} s"
            return False
        self.said = f"`{check.path}` answered {'nothing' if status is None else status}"
        if status is None or check.status is None:
            return status is not None and 200 <= status < 300
        return status == check.status

    async def _status(self, path: str) -> int | None:
        """The status of a GET; None if what comes is no HTTP. Source: RFC 9112, section 4."""
        async with self._connected(CONNECT_S) as streams:
            if streams is None:
                return None
            reader, writer = streams
            request = (
                f"GET /{path.lstrip('/')} HTTP/1.1\r\nHost: {HOST}:{self._port}\r\nConnection: close\r\n\r\n"
            )
            try:
                writer.write(request.encode())
                version, status, *_ = (await reader.readline()).split(maxsplit=2)
                return int(status) if version.startswith(b"HTTP/") else None
            except (OSError, ValueError):
                return None

    @contextlib.asynccontextmanager
    async def _connected(
        self, within_s: float
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter] | None]:
        try:
            async with asyncio.timeout(within_s):
                reader, writer = await asyncio.open_connection(HOST, self._port)
        except (OSError, TimeoutError):
            self.said = "nothing listens"
            yield None
            return
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
