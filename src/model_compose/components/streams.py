"""What is a result that is still being made?

A `Stream` gives pieces, in lists of those that came together, so that nothing is spent on each piece
where many are there. Where a stream meets a slot that wants a value, it is collected.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from msgspec import UNSET

from model_compose.config.expression import Reference, Scope, references, render
from model_compose.config.schema import Tree
from model_compose.errors import Cancelled
from model_compose.types import Unfinished, plain

#: Pieces that a reader may be behind the fastest one.
MOST_BEHIND = 256

_RESULT_KEYS = ("result", "response", "output")
_PIECE_KEYS = tuple(f"{key}[]" for key in _RESULT_KEYS)


class Stream(Unfinished):
    """Pieces of a result, for one or several readers.

    There is one producer, which runs when a reader wants more. The slowest reader governs: nobody gets
    further ahead of it than `MOST_BEHIND` pieces. Whoever has a stream reads it to its end or closes
    it; closing ends the work behind it, even if no reader ever began. Who still reads then gets
    Cancelled, and never takes what came for all.

    items  the pieces are items of a list, and not parts of one value: each can be worked on by itself
    """

    def __init__(
        self,
        source: AsyncIterator[list[Any]],
        *,
        close: Callable[[], Awaitable[None]],
        whole: Callable[[list[Any]], Awaitable[Any]] | None = None,
        items: bool = False,
    ) -> None:
        self._source = source
        self._close = close
        self.items = items
        #: Makes the value of all pieces.
        self.whole = whole or (_listed if items else _joined)
        self._readers: set[_Reader] = set()
        self._pulling = asyncio.Lock()
        self._pull_for_all: asyncio.Future[list[Any] | None] | None = None
        self._room = asyncio.Event()
        self._over = False
        self._error: BaseException | None = None

    def reader(self) -> _Reader:
        """A reader of all pieces that come from now on."""
        reader = _Reader(self)
        self._readers.add(reader)
        return reader

    async def collect(self) -> Any:
        """The value that all pieces make. Raises what the producer raises."""
        pieces: list[Any] = []
        try:
            async for some in self.reader():
                pieces += some
            return await self.whole(pieces)
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Nobody wants the rest: end the work behind it."""
        if not self._over:
            self._end(Cancelled("the stream was closed"))
        if self._pull_for_all is not None:
            self._pull_for_all.cancel()
        await self._close()

    def _end(self, error: BaseException | None) -> None:
        self._over, self._error = True, error
        self._room.set()

    async def _pull(self, reader: _Reader) -> None:
        """Get the next pieces for everybody, unless somebody did while we waited."""
        async with self._pulling:
            while (
                not self._over and not reader.waiting and any(r.behind >= MOST_BEHIND for r in self._readers)
            ):
                self._room.clear()
                await self._room.wait()
            if self._over or reader.waiting:
                return
            pieces = await self._next()
            if pieces is None:
                self._end(None)
                return
            for each in self._readers:
                each.waiting.append(pieces)
                each.behind += len(pieces)

    async def _next(self) -> list[Any] | None:
        try:
            return await (anext(self._source, None) if len(self._readers) == 1 else self._next_for_all())
        except asyncio.CancelledError:
            if self._pull_for_all is None:
                self._end(Cancelled("the only reader went away"))
            raise
        except BaseException as error:
            self._end(error)
            raise

    async def _next_for_all(self) -> list[Any] | None:
        """In a task of its own: one reader that is cancelled shall not take the others with it."""
        pull = self._pull_for_all = self._pull_for_all or asyncio.ensure_future(anext(self._source, None))
        await asyncio.wait([pull])
        self._pull_for_all = None
        if pull.cancelled():
            raise Cancelled("the stream was closed")
        return pull.result()

    def leave(self, reader: _Reader) -> None:
        """A reader reads no further, and holds nobody back."""
        self._readers.discard(reader)
        self._room.set()


class _Reader:
    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.waiting: deque[list[Any]] = deque()
        self.behind = 0

    def __aiter__(self) -> _Reader:
        return self

    async def __anext__(self) -> list[Any]:
        stream = self._stream
        while not self.waiting:
            if stream._over:
                if stream._error is not None:
                    raise stream._error
                raise StopAsyncIteration
            await stream._pull(self)
        pieces = self.waiting.popleft()
        self.behind -= len(pieces)
        stream._room.set()
        return pieces


async def _joined(pieces: list[Any]) -> Any:
    """Texts one behind the other; anything else as a list."""
    values = [plain(piece) for piece in pieces]
    return "".join(values) if values and all(isinstance(value, str) for value in values) else values


async def _listed(pieces: list[Any]) -> Any:
    return pieces


_END: Final = object()


class InOrder:
    """Results of `work`, in the order of the items, those together that are there.

    No more than `window` items are under way, or done and not yet taken. The first failure, in that order,
    ends what is under way; so does closing.
    """

    def __init__(self, items: AsyncIterator[Any], work: Callable[[Any], Awaitable[Any]], window: int) -> None:
        self._items = items
        self._work = work
        self._window = window
        self._under_way: deque[asyncio.Future[Any]] = deque()
        self._pull: asyncio.Future[Any] | None = None
        self._over = False
        self._closed = False

    def __aiter__(self) -> InOrder:
        return self

    async def __anext__(self) -> list[Any]:
        try:
            while not self._closed:
                if ready := self._ready():
                    return ready
                if self._pull is None and not self._over and len(self._under_way) < self._window:
                    self._pull = asyncio.ensure_future(anext(self._items, _END))
                waiting = [*([self._pull] if self._pull else []), *list(self._under_way)[:1]]
                if not waiting:
                    raise StopAsyncIteration
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                self._take()
        except asyncio.CancelledError:
            if not self._closed:
                raise
        except Exception:
            await self.aclose()
            raise
        raise Cancelled("the stream was closed")

    def _ready(self) -> list[Any]:
        ready = []
        while self._under_way and self._under_way[0].done():
            ready.append(self._under_way.popleft().result())
        return ready

    def _take(self) -> None:
        """Begin with the item that came, if one did."""
        if self._pull is not None and self._pull.done():
            item, self._pull = self._pull.result(), None
            self._over = item is _END
            if not self._over:
                self._under_way.append(asyncio.ensure_future(self._work(item)))

    async def aclose(self) -> None:
        """End what is under way."""
        self._closed = True
        left = [*self._under_way, *([self._pull] if self._pull else [])]
        for each in left:
            each.cancel()
        await asyncio.gather(*left, return_exceptions=True)


async def rendered(tree: Tree, result: Any, scope: Scope) -> Any:
    """The output that `tree` makes of a result, which may be a stream and then may stay one.

    A tree that names `result[]` is rendered for each piece of a stream, or each item of a list.
    """
    if tree is UNSET or passes_on(tree):
        return result
    piecewise = any(reference.per_chunk for reference in references(tree))
    if isinstance(result, Stream):
        if piecewise:
            return Stream(_each(tree, result, scope), close=result.aclose, items=result.items)
        result = await result.collect()
    if piecewise:
        if isinstance(result, list):
            return [render(tree, _bound(scope, item, _PIECE_KEYS)) for item in result]
        scope = _bound(scope, result, _PIECE_KEYS)
    return render(tree, _bound(scope, result, _RESULT_KEYS))


def passes_on(tree: Tree) -> bool:
    """Whether a tree is the result itself: `${result}`, with nothing done to it."""
    return isinstance(tree, Reference) and tree.key in _RESULT_KEYS and not tree.path and tree.type is None


def _bound(scope: Scope, value: Any, keys: tuple[str, ...]) -> Scope:
    return scope.child(dict.fromkeys(keys, value))


async def _each(tree: Tree, stream: Stream, scope: Scope) -> AsyncIterator[list[Any]]:
    async for pieces in stream.reader():
        values = [render(tree, _bound(scope, piece, _PIECE_KEYS)) for piece in pieces]
        kept = [value for value in values if value is not None]
        if kept:
            yield kept
