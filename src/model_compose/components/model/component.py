"""How does a call to a model component become requests, and their outcomes its output?"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any, Final

from msgspec import UNSET

from model_compose.components.contract import CallContext
from model_compose.components.media import Media
from model_compose.components.requests import request_of
from model_compose.components.streams import InOrder, Stream, rendered
from model_compose.config.annotations import bare, is_list, members
from model_compose.config.expression import Reference, Renderable, Scope
from model_compose.config.schema import Action
from model_compose.config.spec import TaskSpec, fields_of
from model_compose.drivers.contract import Outcome
from model_compose.errors import InvalidInput, ModelComposeError, TimedOut
from model_compose.runtime.call import Call
from model_compose.runtime.pool import ComponentStatus, ModelPool
from model_compose.types import plain

#: Requests of one list that wait or run at once, unless the model takes more: enough to fill its batches, and
#: no more, so that others get their turn.
WINDOW: Final = 64
#: The same for a model that takes lists, and how many calls that is: each comes back as a whole, so more of
#: them must be on their way for the next batch to be complete.
LISTED: Final = 128
_CALLS: Final = 8


class ModelComponent:
    """Calls one model of the pool, which starts and ends it.

    preload  it is loaded when the service starts
    """

    def __init__(self, name: str, task: TaskSpec, pool: ModelPool, media: Media, *, preload: bool) -> None:
        self._name = name
        self._preload = preload
        self._task = task
        self._pool = pool
        self._media = media
        self._files = {f.name: f.media for f in fields_of(task.request) if f.media is not None}
        self._main = next(f for f in fields_of(task.request) if f.name == task.main)
        self._plans: dict[str, _Plan] = {}

    async def start(self) -> None:
        """Begin to load, if that is not for the first request to do."""
        if self._preload:
            self._pool.want(self._name)

    async def close(self) -> None:
        """The pool ends its worker."""

    def status(self) -> ComponentStatus:
        return self._pool.component(self._name)

    def ready(self) -> bool:
        state = self._pool.state(self._name)
        return state == "ready" or (state == "unloaded" and self.settled())

    def settled(self) -> bool:
        return not self._pool.wanted(self._name)

    def error(self) -> ModelComposeError | None:
        return self._pool.error(self._name) if self._pool.state(self._name) == "failed" else None

    def restart(self) -> None:
        self._pool.release(self._name, stay=False)
        self._pool.want(self._name)

    def stop(self) -> None:
        self._pool.release(self._name, stay=True)

    async def call(self, action: Action, scope: Scope, context: CallContext, *, streaming: bool) -> Any:
        """One request, or one for each item of a list or stream; -> the action's output."""
        values = await self._values(action, scope)
        deadline = None if action.timeout is None else asyncio.get_running_loop().time() + action.timeout
        result: Any
        items = values.get(self._main.name)
        if isinstance(items, Stream) and items.items and self._main.many:
            return await rendered(action.output, self._each(items, values, action, context, deadline), scope)
        if isinstance(items, Stream):
            async with _until(deadline):
                values[self._main.name] = plain(await items.collect())
        requests, many = self._requests(values, action)
        if (streaming or action.streaming) and not many and self._streams(requests[0]):
            result = await self._stream(requests[0], context, deadline)
        elif many:
            async with _until(deadline):
                result = await self._all(requests, context)
        elif deadline is None:
            result = (await self._one(requests[0], context)).result
        else:
            async with _until(deadline):
                result = (await self._one(requests[0], context)).result
        return await rendered(action.output, result, scope)

    def _streams(self, request: Any) -> bool:
        return self._task.chunk is not None and self._task.streams(request)

    # Requests

    async def _values(self, action: Action, scope: Scope) -> dict[str, Any]:
        """The values of an action, files fetched."""
        plan = self._plans.get(action.id)
        if plan is None:
            plan = self._plans[action.id] = _Plan(action)
        values = plan.values(scope)
        for name, kind in self._files.items():
            if name in values:
                # What a client names by URL is fetched here, where nothing else waits for it.
                values[name] = await self._media.files(values[name], kind, name)
        return values

    def _requests(self, values: dict[str, Any], action: Action) -> tuple[list[Any], bool]:
        """The requests that values make, and whether the answer is a list."""
        items = values.get(self._main.name)
        if self._main.many and isinstance(items, list) and self._is_many(items):
            return [self._request({**values, self._main.name: item}, action) for item in items], True
        return [self._request(values, action)], False

    def _is_many(self, items: list[Any]) -> bool:
        """Whether a list is a list of values: a conversation is itself a list, of messages, as tokens are."""
        if not items:
            raise InvalidInput(f"`{self._main.name}` is an empty list", field=self._main.name)
        kinds = members(self._main.type)
        if not any(is_list(kind) for kind in kinds) or isinstance(items[0], list):
            return True
        return isinstance(items[0], str) and any(bare(kind) is str for kind in kinds)

    def _request(self, values: dict[str, Any], action: Action) -> Any:
        if self._task.normalise is not None:
            values = self._task.normalise(values)
        return request_of(values, action.spec.request)

    # Calls

    def _submit(
        self, request: Any, context: CallContext, *, streaming: bool = False, several: bool = False
    ) -> Call:
        try:
            call = self._pool.submit(
                self._name, request, streaming=streaming, bounded=not context.admitted, several=several
            )
        except OverflowError as error:
            raise InvalidInput("an integer of the request has more than 64 bits") from error
        call.on_progress = context.progress
        call.on_served = context.served
        if call.times.served:
            context.served()
        if not call.done:  # else the queue was full, or the model has failed
            context.admitted = True
        return call

    async def _one(self, request: Any, context: CallContext, *, several: bool = False) -> Outcome:
        call = self._submit(request, context, several=several)
        try:
            outcome = await call.outcome()
        finally:
            self._pool.cancel(call)
        context.spent(outcome)
        return outcome

    async def _all(self, requests: list[Any], context: CallContext) -> list[Any]:
        """Results in the order of the requests, of which only a window is under way at any time.

        The longest go first: neighbours are alike then, so batches have little padding, and what is too much
        for the memory fails at once. A model that takes lists gets parts of the window in one call each,
        which costs the service next to nothing beside one call for each request.
        """
        results: list[Any] = [None] * len(requests)
        order = iter(sorted(range(len(requests)), key=lambda i: -self._length(requests[i])))
        slots = self._pool.slots(self._name)

        async def some() -> None:
            while part := list(itertools.islice(order, self._per_call(slots))):
                if len(part) == 1:
                    results[part[0]] = (await self._one(requests[part[0]], context)).result
                    continue
                outcome = await self._one([requests[i] for i in part], context, several=True)
                for i, result in zip(part, outcome.result, strict=True):
                    results[i] = result

        calls = _CALLS if self._pool.takes_lists(self._name) else min(len(requests), max(WINDOW, slots))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(calls):
                    group.create_task(some())
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return results

    def _each(
        self,
        items: Stream,
        values: dict[str, Any],
        action: Action,
        context: CallContext,
        deadline: float | None,
    ) -> Stream:
        """Results for the items of a stream, in their order and while they come."""

        async def one(item: Any) -> Any:
            async with _until(deadline):
                request = self._request({**values, self._main.name: plain(item)}, action)
                return (await self._one(request, context)).result

        results = InOrder(_flat(items), one, max(WINDOW, self._pool.slots(self._name)))

        async def close() -> None:
            await results.aclose()
            await items.aclose()

        return Stream(results, close=close, items=True)

    def _per_call(self, slots: int) -> int:
        """How many requests of a list go together: so many that the next ones are on their way."""
        return max(LISTED, slots) // _CALLS if self._pool.takes_lists(self._name) else 1

    def _length(self, request: Any) -> int:
        main = getattr(request, self._main.name, None)
        return len(main) if isinstance(main, str) else 0

    async def _stream(self, request: Any, context: CallContext, deadline: float | None) -> Stream:
        call = self._submit(request, context, streaming=True)
        if call.done:
            await call.outcome()

        async def pieces() -> AsyncIterator[list[Any]]:
            chunks = call.chunks()
            while True:
                async with _until(deadline):
                    some = await anext(chunks, None)
                if some is None:
                    break
                yield some
            context.spent(await call.outcome())

        async def whole(_: list[Any]) -> Any:
            return (await call.outcome()).result

        async def close() -> None:
            self._pool.cancel(call)

        return Stream(pieces(), close=close, whole=whole)


async def _flat(stream: Stream) -> AsyncIterator[Any]:
    async for pieces in stream.reader():
        for piece in pieces:
            yield piece


class _Plan:
    """The values of an action, those that never change worked out once."""

    def __init__(self, action: Action) -> None:
        self._constant = {n: plain(v) for n, v in action.values.items() if not isinstance(v, Renderable)}
        self._varying = [
            (n, v, _input_keys(v)) for n, v in action.values.items() if isinstance(v, Renderable)
        ]

    def values(self, scope: Scope) -> dict[str, Any]:
        """What the request gets; null is as good as not given."""
        values = {name: value for name, value in self._constant.items() if value is not None}
        given = scope.values["input"]
        for name, tree, keys in self._varying:
            # A default action refers to every field of its task, and a request gives two of them.
            if keys is not None and isinstance(given, dict) and keys.isdisjoint(given):
                continue
            value = plain(tree.render(scope))
            if value is not None:
                values[name] = value
        return values


def _input_keys(tree: Renderable) -> frozenset[str] | None:
    """The keys of the input without which a tree is null; None if that depends on more than them."""
    keys = set()
    while isinstance(tree, Reference) and tree.key == "input" and tree.path and isinstance(tree.path[0], str):
        keys.add(tree.path[0])
        if tree.default is UNSET:
            return frozenset(keys)
        tree = tree.default
    return None


@contextlib.asynccontextmanager
async def _until(deadline: float | None) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError:
        raise TimedOut("the action's `timeout` ran out") from None
