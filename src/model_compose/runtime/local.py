"""How does a model run inside the calling process?"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from model_compose.runtime.executor import Listener
from model_compose.runtime.host import ModelHost
from model_compose.runtime.messages import Load, ToGateway, ToWorker


class LocalExecutor:
    """Hosts the model here (`runtime: embedded`): no second process, and no protection from it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._host = ModelHost(self._say, shares_process=True)
        self._listener: Listener | None = None

    @property
    def pid(self) -> int | None:
        """None: it is this process."""
        return None

    @property
    def interpreter(self) -> None:
        """None: it is that of this process."""

    async def start(self, load: Load, environment: Mapping[str, str], listener: Listener) -> None:
        """Begin to load. `environment` comes too late for a process that runs, so it is not set."""
        self._listener = listener
        self._host.take(load)

    def _say(self, message: ToGateway) -> None:
        assert self._listener is not None
        self._loop.call_soon_threadsafe(self._listener.message, message)

    def send(self, message: ToWorker) -> None:
        """Pass a message on."""
        self._host.take(message)

    def pause(self) -> None:
        """Not possible: the caller would stop with it."""

    def resume(self) -> None:
        """Nothing was paused."""

    async def stop(self, grace_s: float) -> None:
        """End the calls and let go of the model; an engine call that never returns is left behind."""
        if self._listener is None:
            return  # ended before it was started
        closing = asyncio.ensure_future(self._host.close())
        await asyncio.wait([closing], timeout=grace_s)
        # After the ends of those calls, which are on their way already.
        self._loop.call_soon(self._listener.exited, None)

    def last_lines(self) -> Sequence[str]:
        """Nothing: it prints where the caller prints."""
        return ()
