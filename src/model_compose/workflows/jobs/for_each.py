"""`type: for-each`: how is an action called for every item, a few at a time?

The results of a list are a list in the same order. Of a stream no more items are taken than are under way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from msgspec import UNSET

from model_compose.components.streams import InOrder, Stream, rendered
from model_compose.config.expression import Scope, render
from model_compose.config.schema import ForEachJob
from model_compose.config.values import LISTS
from model_compose.types import plain
from model_compose.workflows.jobs.call import first
from model_compose.workflows.jobs.contract import Done, Setting
from model_compose.workflows.jobs.items import items_of


async def run(work: ForEachJob, setting: Setting) -> Done:
    """Call the action for every item, or for every so many of them."""
    found = render(work.input, setting.scope)
    if isinstance(found, Stream) and not found.items:
        found = await found.collect()
    if isinstance(found, Stream):
        return Done(_stream(work, setting, _of_stream(found, work.batch_size), found))
    items = items_of(found, setting.id)
    size = work.batch_size or 1
    if work.streaming and setting.streaming:
        return Done(_stream(work, setting, _of_list(items, work.batch_size), None))
    results: list[Any] = [None] * -(-len(items) // size)
    starts = iter(range(0, len(items), size))

    async def some() -> None:
        for start in starts:
            item = items[start] if work.batch_size is None else items[start : start + size]
            results[start // size] = await _one(work, setting, start, item)
            setting.progress(min(start + size, len(items)), len(items))

    await _at_most(work.max_concurrent_count, len(results), some)
    return Done(results if work.batch_size is None else _joined(results))


async def _at_most(count: int, needed: int, some: Any) -> None:
    if min(count, needed) <= 1:
        await some()
        return
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(count, needed)):
                group.create_task(some())
    except BaseExceptionGroup as failed:
        raise first(failed) from None


async def _one(work: ForEachJob, setting: Setting, index: int, item: Any) -> Any:
    scope = setting.scope.child({"item": item, "index": index})
    output = await setting.call(work.call, _input(work, setting, scope, item), alone=False)
    if work.output is not UNSET:
        output = await rendered(work.output, output, scope)
    return await output.collect() if isinstance(output, Stream) else output


def _input(work: ForEachJob, setting: Setting, scope: Scope, item: Any) -> Any:
    """What the action gets: what the job says, else the item, as what the action is about if it is no map."""
    if work.call.input is not UNSET:
        return render(work.call.input, scope)
    item = plain(item)
    main = setting.action(work.call).spec.main
    return item if isinstance(item, dict) or main is None else {main: item}


def _joined(results: list[Any]) -> list[Any]:
    """Lists that came back for several items each as one; what is no list as it is."""
    if not all(isinstance(result, LISTS) for result in results):
        return results
    return [item for result in results for item in result]


# Streams


def _stream(
    work: ForEachJob, setting: Setting, items: AsyncIterator[tuple[int, Any]], source: Stream | None
) -> Stream:
    async def one(each: tuple[int, Any]) -> Any:
        return await _one(work, setting, *each)

    results = InOrder(items, one, work.max_concurrent_count)

    async def close() -> None:
        await results.aclose()
        if source is not None:
            await source.aclose()

    pieces = results if work.batch_size is None else _spread(results)
    return Stream(pieces, close=close, items=True)


async def _spread(results: InOrder) -> AsyncIterator[list[Any]]:
    async for some in results:
        yield _joined(some)


async def _of_stream(stream: Stream, size: int | None) -> AsyncIterator[tuple[int, Any]]:
    batch: list[Any] = []
    index = 0
    async for pieces in stream.reader():
        for piece in pieces:
            if size is None:
                yield index, piece
                index += 1
                continue
            batch.append(piece)
            if len(batch) == size:
                yield index, batch
                index += size
                batch = []
    if batch:
        yield index, batch


async def _of_list(items: list[Any], size: int | None) -> AsyncIterator[tuple[int, Any]]:
    for start in range(0, len(items), size or 1):
        yield start, items[start] if size is None else items[start : start + size]
