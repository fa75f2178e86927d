"""How many calls of a component are under way at once, and how many wait?"""

from __future__ import annotations

import asyncio
from typing import Final

from model_compose.components.contract import CallContext
from model_compose.errors import Overloaded

#: First calls of a run that may wait; those of a run that has begun always may.
MOST_WAITING: Final = 256


class Place:
    """A place that a call has until it gives it back, which it may do twice."""

    def __init__(self, free: asyncio.Semaphore | None) -> None:
        self._free = free

    def leave(self) -> None:
        """Give it back."""
        free, self._free = self._free, None
        if free is not None:
            free.release()


class Places:
    """The places of a component with `max_concurrent_count`, where 0 is no limit."""

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._free = asyncio.Semaphore(limit) if limit else None
        self._waiting = 0

    async def take(self, context: CallContext) -> Place:
        """Wait for a place. Raises Overloaded when too many wait already."""
        free = self._free
        if free is not None and free.locked() and not context.admitted and self._waiting >= MOST_WAITING:
            raise Overloaded(f"the queue of `{self._name}` is full")
        context.admitted = True
        if free is not None:
            self._waiting += 1
            try:
                await free.acquire()
            finally:
                self._waiting -= 1
        context.served()
        return Place(free)
