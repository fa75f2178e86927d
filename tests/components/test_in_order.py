"""Are items worked on side by side, a bounded number of them, with results in their order?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.workflows.place import until

from model_compose.components.streams import InOrder, Stream
from model_compose.errors import Cancelled, EngineError


class Source:
    """Numbers, and how many of them were taken."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.taken = 0

    async def items(self) -> AsyncIterator[int]:
        for i in range(self.count):
            self.taken += 1
            yield i


async def _settle() -> None:
    for _ in range(100):
        await asyncio.sleep(0)


async def test_results_come_in_the_order_of_their_items() -> None:
    gates = [asyncio.Event() for _ in range(3)]

    async def work(i: int) -> int:
        await gates[i].wait()
        return i * 10

    results = InOrder(Source(3).items(), work, 8)
    first = asyncio.ensure_future(anext(results))
    gates[2].set()
    gates[1].set()
    await _settle()
    assert not first.done()
    gates[0].set()
    found = await first
    async for some in results:
        found += some
    assert found == [0, 10, 20]


async def test_no_more_items_are_taken_than_the_window_has() -> None:
    source, gate = Source(100), asyncio.Event()

    async def work(i: int) -> int:
        if i == 0:
            await gate.wait()
        return i

    results = InOrder(source.items(), work, 4)
    first = asyncio.ensure_future(anext(results))
    await until(lambda: source.taken == 4)
    await _settle()
    assert source.taken == 4
    gate.set()
    assert await first == [0, 1, 2, 3]
    await results.aclose()


async def test_a_failure_ends_what_is_under_way() -> None:
    begun = asyncio.Event()
    ended: list[int] = []

    async def work(i: int) -> int:
        if i == 0:
            await begun.wait()
            raise EngineError("no")
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(i)
        return i

    results = InOrder(Source(3).items(), work, 3)
    with pytest.raises(EngineError, match="no"):
        await anext(results)
    assert ended


async def test_an_error_of_the_source_is_that_of_the_results() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise EngineError("broken")

    async def work(i: int) -> int:
        return i

    results = InOrder(broken(), work, 1)
    assert await anext(results) == [1]
    with pytest.raises(EngineError, match="broken"):
        await anext(results)


async def test_closing_ends_what_is_under_way_and_who_reads_hears_of_it() -> None:
    ended: list[int] = []

    async def work(i: int) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(i)

    results = InOrder(Source(9).items(), work, 3)
    stream = Stream(results, close=results.aclose, items=True)
    reading = asyncio.ensure_future(anext(stream.reader()))
    await _settle()
    await stream.aclose()
    with pytest.raises(Cancelled):
        await reading
    assert sorted(ended) == [0, 1, 2]
