"""Do several readers of one stream get every piece, and does closing end the work behind it?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from tests.config.expressions import parsed

from model_compose.components.streams import MOST_BEHIND, Stream, rendered
from model_compose.config.expression import Scope
from model_compose.config.template import compile_tree
from model_compose.errors import Cancelled, EngineError
from model_compose.tasks.generation import TextDelta


class Source:
    """A producer that says how far it is and whether it was closed."""

    def __init__(
        self, pieces: list[list[Any]], *, fails: bool = False, gate: asyncio.Event | None = None
    ) -> None:
        self._pieces = pieces
        self._fails = fails
        self._gate = gate
        self.produced = 0
        self.closed = 0
        self.waits = asyncio.Event()

    async def _produce(self) -> AsyncIterator[list[Any]]:
        for some in self._pieces:
            if self._gate is not None:
                self.waits.set()
                await self._gate.wait()
            self.produced += len(some)
            yield some
            await asyncio.sleep(0)
        if self._fails:
            raise EngineError("the engine stopped")

    async def _close(self) -> None:
        self.closed += 1

    def stream(self) -> Stream:
        return Stream(self._produce(), close=self._close)


def numbers(count: int) -> list[list[int]]:
    return [[i] for i in range(count)]


def read(stream: Stream) -> asyncio.Future[list[Any]]:
    """All that comes from now on, also while nobody awaits it."""
    reader = stream.reader()

    async def pieces() -> list[Any]:
        return [piece async for some in reader for piece in some]

    return asyncio.ensure_future(pieces())


async def test_a_reader_gets_every_piece_in_order() -> None:
    assert await read(Source(numbers(1000)).stream()) == list(range(1000))


@pytest.mark.parametrize("readers", [2, 5])
async def test_every_reader_gets_every_piece(readers: int) -> None:
    stream = Source(numbers(1000)).stream()
    each = [read(stream) for _ in range(readers)]
    assert await asyncio.gather(*each) == [list(range(1000))] * readers


async def test_nothing_is_produced_before_somebody_reads() -> None:
    source = Source(numbers(10))
    source.stream().reader()
    await asyncio.sleep(0)
    assert source.produced == 0


async def test_the_slowest_reader_governs() -> None:
    source = Source(numbers(10_000))
    stream = source.stream()
    slow, fast = stream.reader(), read(stream)
    got = await anext(slow)
    for _ in range(3000):
        await asyncio.sleep(0)
    assert source.produced <= MOST_BEHIND + 2
    assert not fast.done()
    got += [piece async for some in slow for piece in some]
    assert got == await fast == list(range(10_000))


async def test_a_reader_that_leaves_holds_nobody_back() -> None:
    stream = Source(numbers(1000)).stream()
    slow = stream.reader()
    fast = read(stream)
    await anext(slow)
    stream.leave(slow)
    assert await fast == list(range(1000))


async def test_an_error_reaches_every_reader_behind_the_pieces_before_it() -> None:
    stream = Source(numbers(3), fails=True).stream()
    for reader in [stream.reader(), stream.reader()]:
        assert [await anext(reader) for _ in range(3)] == numbers(3)
        with pytest.raises(EngineError, match="the engine stopped"):
            await anext(reader)


async def test_a_reader_that_is_cancelled_takes_no_other_with_it() -> None:
    gate = asyncio.Event()
    source = Source(numbers(5), gate=gate)
    stream = source.stream()
    first, second = (read(stream) for _ in range(2))
    await source.waits.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.set()
    assert await second == list(range(5))


async def test_closing_ends_the_work_even_if_nobody_ever_read() -> None:
    source = Source(numbers(10))
    await source.stream().aclose()
    assert source.closed == 1
    assert source.produced == 0


async def test_a_reader_of_a_closed_stream_does_not_take_it_for_complete() -> None:
    stream = Source(numbers(10)).stream()
    reader = stream.reader()
    await anext(reader)
    await stream.aclose()
    with pytest.raises(Cancelled, match="closed"):
        await anext(reader)


async def test_closing_wakes_a_reader_that_waits_for_room() -> None:
    source = Source(numbers(10_000))
    stream = source.stream()
    stream.reader()  # never reads
    fast = read(stream)
    while source.produced < MOST_BEHIND:
        await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)
    assert source.produced == MOST_BEHIND
    assert not fast.done()
    await stream.aclose()
    with pytest.raises(Cancelled, match="closed"):
        await fast


async def test_closing_ends_readers_that_wait_for_the_producer_and_cancels_none_of_them() -> None:
    source = Source(numbers(3), gate=asyncio.Event())
    stream = source.stream()
    readers = [read(stream) for _ in range(3)]
    await source.waits.wait()
    await stream.aclose()
    for reader in readers:
        with pytest.raises(Cancelled, match="closed"):
            await reader


async def test_closing_after_the_end_is_no_error() -> None:
    source = Source(numbers(3))
    stream = source.stream()
    reader = stream.reader()
    for _ in range(3):
        await anext(reader)
    with pytest.raises(StopAsyncIteration):
        await anext(reader)
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(reader)


# Values


@given(st.lists(st.lists(st.text(max_size=3), min_size=1, max_size=4), min_size=1, max_size=5))
def test_texts_are_collected_into_one_text(pieces: list[list[str]]) -> None:
    whole = asyncio.run(_collect(pieces))
    assert whole == "".join(text for some in pieces for text in some)


async def _collect(pieces: list[list[Any]]) -> Any:
    source = Source(pieces)
    whole = await source.stream().collect()
    assert source.closed == 1
    return whole


async def test_anything_else_is_collected_into_a_list() -> None:
    assert await _collect([[1, 2], ["three"]]) == [1, 2, "three"]
    assert await _collect([]) == []
    assert await _collect([[TextDelta("a"), TextDelta("b")], [TextDelta("c")]]) == "abc"


async def test_collecting_what_fails_closes_it_and_raises() -> None:
    source = Source(numbers(3), fails=True)
    with pytest.raises(EngineError):
        await source.stream().collect()
    assert source.closed == 1


# Outputs


def scope(**values: Any) -> Scope:
    return Scope({"input": values})


async def out(tree: Any, result: Any, **values: Any) -> Any:
    return await rendered(compile_tree(parsed(tree)), result, scope(**values))


@pytest.mark.parametrize("tree", ["${result}", "${response}", "${output}"])
async def test_an_output_that_is_the_result_passes_a_stream_on(tree: str) -> None:
    stream = Source(numbers(3)).stream()
    assert await out(tree, stream) is stream
    assert await rendered(UNSET, stream, scope()) is stream


async def test_an_output_that_wants_a_value_collects_the_stream() -> None:
    source = Source([["a", "b"], ["c"]])
    assert await out({"said": "${result}!", "to": "${input.who}"}, source.stream(), who="me") == {
        "said": "abc!",
        "to": "me",
    }
    assert source.closed == 1


@pytest.mark.parametrize("key", ["result[]", "response[]", "output[]"])
async def test_an_output_over_pieces_is_rendered_for_each_piece(key: str) -> None:
    source = Source([["a", "b"], ["c"]])
    stream = await out(f"<${{{key}}}${{input.x}}>", source.stream(), x="!")
    assert isinstance(stream, Stream)
    assert await read(stream) == ["<a!>", "<b!>", "<c!>"]
    await stream.aclose()
    assert source.closed == 1


async def test_pieces_that_render_to_null_are_dropped() -> None:
    pieces = [[TextDelta("a"), TextDelta("")], [TextDelta("", reasoning="hm")], [TextDelta("b")]]
    stream = await out("${result[].reasoning}", Source(pieces).stream())
    assert await read(stream) == ["", "", "hm", ""]
    stream = await out("${result[].nothing}", Source(pieces).stream())
    assert await read(stream) == []


async def test_an_output_over_items_of_a_list_is_a_list() -> None:
    assert await out({"n": "${result[]}"}, [1, 2]) == [{"n": 1}, {"n": 2}]
    assert await out("${result[].text}", [TextDelta("a"), TextDelta("b")]) == ["a", "b"]


async def test_an_output_over_pieces_of_one_value_is_that_of_the_value() -> None:
    assert await out("${result[].text}", TextDelta("a")) == "a"


async def test_an_output_that_fails_at_one_piece_fails_there() -> None:
    stream = await out("${result[] as integer}", Source([["1"], ["two"], ["3"]]).stream())
    reader = stream.reader()
    assert await anext(reader) == [1]
    with pytest.raises(Exception, match="two"):
        await anext(reader)
    await stream.aclose()
