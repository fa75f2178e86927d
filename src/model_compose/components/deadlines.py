"""How long may a call take?"""

from __future__ import annotations

import asyncio
import types

from model_compose.errors import TimedOut


class Deadline:
    """The end of an action's `timeout`, as a context manager that may be entered again and again.

    Raises TimedOut in place of what is under way in it when the time is over.
    """

    def __init__(self, timeout_s: float | None) -> None:
        self._at = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
        self._entered: list[asyncio.Timeout] = []

    async def __aenter__(self) -> None:
        timeout = asyncio.timeout_at(self._at)
        await timeout.__aenter__()
        self._entered.append(timeout)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        try:
            await self._entered.pop().__aexit__(kind, error, traceback)
        except TimeoutError:
            raise TimedOut("the action's `timeout` ran out") from None
