"""How are the bytes of a response read, so that many small chunks cost little?

A task reads ahead of who wants them, but no further than `AHEAD` bytes, which come to a reader in one
piece: what follows then costs once for a burst, and not once for each chunk of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

#: About a hundred events of a chat completion, which take a millisecond to go through.
AHEAD: Final = 16 << 10


class Reading:
    """Bytes of a response. Nothing is read before somebody wants it."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source
        self._task: asyncio.Task[None] | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._some = asyncio.Event()
        self._room = asyncio.Event()

    async def next(self) -> bytes | None:
        """What is there, once something is; None at the end. Raises what reading raises."""
        if self._task is None:
            self._task = asyncio.create_task(self._read())
        while not self._chunks:
            if self._task.done():
                await self._task
                return None
            self._some.clear()
            await self._some.wait()
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks, self._size = [], 0
        self._room.set()
        return data

    async def close(self) -> None:
        """Read no more."""
        task = self._task
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])
        if task is not None and not task.cancelled():
            with contextlib.suppress(Exception):  # who wanted more has seen it
                task.result()

    async def _read(self) -> None:
        try:
            async for chunk in self._source:
                self._chunks.append(chunk)
                self._size += len(chunk)
                self._some.set()
                while self._size >= AHEAD:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._some.set()
