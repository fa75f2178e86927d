"""How does an answer that comes later, by another way, reach the call that waits for it?

Whoever hears of an answer calls `complete` with the id that it carries; a call waits for that id. An
answer may be faster than the response that names the id: it is kept for a while.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from model_compose.errors import InvalidInput, ModelComposeError, Overloaded, TimedOut

#: Answers that nobody waits for yet, and how long they are kept.
MOST_EARLY: Final = 1000
EARLY_S: Final = 60.0
#: Calls that wait at once.
MOST_WAITING: Final = 10_000
_LONGEST_ID: Final = 512


class Callbacks:
    """The answers that are waited for, over all components of a project."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._early: OrderedDict[str, tuple[float, Any]] = OrderedDict()

    async def wait(self, name: str, timeout_s: float | None) -> Any:
        """The answer with that id. Raises the error that it is completed with, and TimedOut."""
        if not name or len(name) > _LONGEST_ID:
            raise InvalidInput(f"a callback's id has 1 to {_LONGEST_ID} characters")
        self._forget()
        if name in self._early:
            _, outcome = self._early.pop(name)
            if isinstance(outcome, ModelComposeError):
                raise outcome
            return outcome
        if name in self._waiting:
            raise InvalidInput(f"another call waits for the callback `{name}` already")
        if len(self._waiting) >= MOST_WAITING:
            raise Overloaded(f"{MOST_WAITING} calls wait for callbacks already")
        waiting = self._waiting[name] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                return await waiting
        except TimeoutError:
            raise TimedOut(f"no callback `{name}` came within {timeout_s:g} s") from None
        finally:
            del self._waiting[name]

    def complete(self, name: str, outcome: Any) -> bool:
        """The answer of that id is there, or a ModelComposeError instead of it; -> whether a call waits.

        Only the first one counts.
        """
        waiting = self._waiting.get(name)
        if waiting is None:
            self._keep(name, outcome)
            return False
        if waiting.done():
            return False
        if isinstance(outcome, ModelComposeError):
            waiting.set_exception(outcome)
        else:
            waiting.set_result(outcome)
        return True

    def _keep(self, name: str, outcome: Any) -> None:
        self._forget()
        if name in self._early or not name or len(name) > _LONGEST_ID:
            return
        self._early[name] = (self._clock() + EARLY_S, outcome)
        while len(self._early) > MOST_EARLY:
            self._early.popitem(last=False)

    def _forget(self) -> None:
        """Drop early answers that nobody has come for; they are in the order of their arrival."""
        now = self._clock()
        while self._early and next(iter(self._early.values()))[0] <= now:
            self._early.popitem(last=False)
