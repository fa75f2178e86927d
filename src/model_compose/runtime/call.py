"""What does the gateway hold of a request while a model works on it?"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from model_compose.drivers.contract import Outcome
from model_compose.errors import EngineError, ModelComposeError
from model_compose.runtime.messages import Done

#: Chunks that may wait for a slow reader before the worker is told to hold.
HIGH_WATER = 256


class CallTimes(msgspec.Struct):
    """When things happened to a call, in seconds of `time.monotonic`; 0.0 is not yet.

    The event loop's own clock would do, but uvloop's only counts milliseconds.
    """

    submitted: float
    served: float = 0.0
    first_chunk: float = 0.0
    ended: float = 0.0


class Decoders(msgspec.Struct, frozen=True):
    """How to read what a worker sends for a task: a result, those of several requests, a chunk."""

    result: msgspec.msgpack.Decoder[Any]
    results: msgspec.msgpack.Decoder[Any]
    chunk: msgspec.msgpack.Decoder[Any]

    @classmethod
    def of(cls, result: Any, chunk: Any = None) -> Decoders:
        """Decoders of these types; a chunk may be anything where there are none."""
        make = msgspec.msgpack.Decoder
        return cls(make(result), make(list[result]), make(object if chunk is None else chunk))


class Call:
    """One request to one model. It ends exactly once, with an outcome or an error.

    A streamed call is iterated (once, by one reader) and then awaited; others are awaited.
    """

    def __init__(
        self,
        number: int,
        model: str,
        request: msgspec.Raw,
        decoders: Decoders,
        *,
        streaming: bool,
        several: bool = False,
        hold: Callable[[bool], None],
    ) -> None:
        self.number = number
        self.model = model
        self.request = request
        self.streaming = streaming
        self.several = several
        self.times = CallTimes(time.monotonic())
        self.on_progress: Callable[[int, int], None] | None = None
        self.on_served: Callable[[], None] | None = None
        self._decoders = decoders
        self._hold = hold
        self._held = False
        self._chunks: deque[msgspec.Raw] = deque()
        self._arrived: asyncio.Future[None] | None = None
        self._end: Outcome | ModelComposeError | None = None

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._end is not None

    def result(self) -> Outcome:
        """How it ended, once it has. Raises the error that it ended with."""
        assert self._end is not None
        if isinstance(self._end, ModelComposeError):
            raise self._end
        return self._end

    def error(self) -> ModelComposeError | None:
        """What it failed with, if it has ended and not well."""
        return self._end if isinstance(self._end, ModelComposeError) else None

    async def outcome(self) -> Outcome:
        """How it ended. Raises the error that it ended with.

        A caller that is cancelled while it waits leaves the call as it is.
        """
        while self._end is None:
            await self._news()
        return self.result()

    async def chunks(self) -> AsyncIterator[list[Any]]:
        """Chunks as they come, in lists of those that came together. Raises the error of the call."""
        while True:
            if self._chunks:
                decode = self._decoders.chunk.decode
                try:
                    pieces = [decode(raw) for raw in self._chunks]
                except msgspec.DecodeError as error:
                    raise EngineError(f"the engine gave what is no chunk of this task: {error}") from error
                self._chunks.clear()
                if self._held:
                    self._held = False
                    self._hold(False)
                yield pieces
            elif self._end is not None:
                self.result()
                return
            else:
                await self._news()

    async def _news(self) -> None:
        """Wait until a chunk or the end comes."""
        assert self._arrived is None, "a call has one reader"
        self._arrived = asyncio.get_running_loop().create_future()
        try:
            await self._arrived
        finally:
            self._arrived = None

    # For the pool

    def push(self, data: msgspec.Raw) -> None:
        """A chunk came."""
        self._chunks.append(data)
        if len(self._chunks) >= HIGH_WATER and not self._held:
            self._held = True
            self._hold(True)
        self._wake()

    def finish(self, done: Done) -> None:
        """The call ended well, unless what came is no result of its task."""
        if self._end is not None:
            return
        try:
            decoder = self._decoders.results if self.several else self._decoders.result
            result = decoder.decode(done.result)
        except msgspec.DecodeError as error:
            self.fail(EngineError(f"the engine gave what is no result of this task: {error}"))
            return
        self._end = Outcome(result, done.usage, done.finish_reason)
        self._wake()

    def fail(self, error: ModelComposeError) -> None:
        """The call ended with an error."""
        if self._end is None:
            self._end = error
            self._wake()

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)
