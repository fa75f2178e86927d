"""Is a slow reader waited for, without loss and without piling up?"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.runtime.pools import echo, eventually, files, running, settled

from model_compose.drivers.contract import Outcome
from model_compose.errors import Cancelled, Overloaded
from model_compose.runtime import pool
from model_compose.runtime.call import HIGH_WATER, Call, Decoders
from model_compose.runtime.host import CallSink
from model_compose.runtime.messages import Call as CallMessage
from model_compose.runtime.messages import Chunk, ToGateway, encoder
from model_compose.tasks.generation import Completions, TextDelta

DECODERS = Decoders.of(Completions, TextDelta)


def call_of(held: list[bool]) -> Call:
    return Call(1, "echo", msgspec.Raw(b""), DECODERS, streaming=True, hold=held.append)


def push(call: Call, count: int) -> None:
    for i in range(count):
        call.push(msgspec.Raw(encoder.encode(TextDelta(f"{i} "))))


async def test_a_reader_that_is_behind_has_the_worker_hold_and_lets_it_go_when_it_catches_up() -> None:
    held: list[bool] = []
    call = call_of(held)
    push(call, HIGH_WATER - 1)
    assert held == []
    push(call, 5)
    assert held == [True]
    pieces = await anext(call.chunks())
    assert len(pieces) == HIGH_WATER + 4
    assert held == [True, False]


async def test_what_came_before_an_error_is_read_before_it_is_raised() -> None:
    call = call_of([])
    push(call, 3)
    call.fail(Cancelled("gone"))
    chunks = call.chunks()
    assert len(await anext(chunks)) == 3
    with pytest.raises(Cancelled):
        await anext(chunks)


@pytest.mark.process
@pytest.mark.parametrize("embedded", [False, True], ids=["process", "embedded"])
async def test_ten_thousand_chunks_reach_a_slow_reader_once_and_in_order(embedded: bool) -> None:
    async with running(echo(embedded=embedded)) as models:
        call = models.ask("chunks:10000", streaming=True)
        most, got = 0, list[str]()
        async for pieces in call.chunks():
            most = max(most, len(pieces))
            got += [piece.text for piece in pieces]
            for _ in range(50):  # it reads slowly
                await asyncio.sleep(0)
        assert got == [f"{i} " for i in range(10_000)]
        assert most < 10_000, "it was held back"


@pytest.mark.process
async def test_chunks_that_nobody_reads_do_not_pile_up_in_the_gateway() -> None:
    async with running(echo()) as models:
        await models.load()
        call = models.ask("chunks:200000", streaming=True)
        await anext(call.chunks())
        await eventually(lambda: call._held, "the worker is told to hold")
        piled = -1
        while piled != (piled := len(call._chunks)):
            await asyncio.sleep(0.3)
        assert piled < 50_000, "what a socket and its buffers hold, and no more"
        assert await models.answer("meanwhile") == "meanwhile"
        models.pool.cancel(call)
        await eventually(lambda: models.status().active == 0, "a held call is let go when it is cancelled")


def sink(sent: list[Any]) -> CallSink:
    def send(message: ToGateway) -> None:
        sent.append(message)

    return CallSink(CallMessage(1, msgspec.Raw(b""), streaming=True), send)


def test_a_sink_waits_while_its_reader_is_behind() -> None:
    sent: list[Any] = []
    held = sink(sent)
    held.hold(True)
    emitting = threading.Thread(target=lambda: sent.append(held.emit(TextDelta("x"))))
    emitting.start()
    emitting.join(0.05)
    assert emitting.is_alive()
    assert sent == []
    held.hold(False)
    emitting.join(5)
    assert [type(each) for each in sent] == [Chunk, bool]


def test_a_cancelled_sink_neither_waits_nor_sends() -> None:
    sent: list[Any] = []
    left = sink(sent)
    left.hold(True)
    left.token.cancel()
    assert left.emit(TextDelta("x")) is False
    left.hold(True)
    assert left.emit(TextDelta("x")) is False
    assert sent == []


def test_who_asks_to_hear_of_a_cancellation_hears_once_even_if_late() -> None:
    heard: list[str] = []
    token = sink([]).token
    token.on_cancel(lambda: heard.append("before"))
    assert not token.cancelled
    token.cancel()
    token.cancel()
    token.on_cancel(lambda: heard.append("after"))
    assert heard == ["before", "after"]


async def test_requests_that_hold_much_are_bounded_by_their_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MOST_HELD_BYTES", 3_500_000)
    (go,) = files(tmp_path, "go")
    async with running(echo(slots=1)) as models:
        large = "x" * 1_000_000
        calls = [models.ask(f"wait:{go} {large}", bounded=True) for _ in range(4)]
        assert isinstance(calls[3].error(), Overloaded)
        later = models.ask(f"wait:{go} {large}")  # of a run that was admitted before
        go.touch()
        assert [type(end) for end in await settled([*calls[:3], later])] == [Outcome] * 4
        assert isinstance(await models.ask(large, bounded=True).outcome(), Outcome)
