"""Does an answer find the call that waits for it, whichever comes first?"""

from __future__ import annotations

import asyncio

import pytest

from model_compose.components.callbacks import EARLY_S, MOST_EARLY, Callbacks
from model_compose.errors import InvalidInput, TimedOut, UpstreamError


async def test_a_call_gets_what_comes_for_it() -> None:
    callbacks = Callbacks()
    waits = asyncio.create_task(callbacks.wait("a", 20))
    await asyncio.sleep(0)
    assert not callbacks.complete("b", 1)
    assert callbacks.complete("a", {"done": True})
    assert not callbacks.complete("a", "again")
    assert await waits == {"done": True}


async def test_an_answer_may_be_early_but_counts_once() -> None:
    callbacks = Callbacks()
    callbacks.complete("a", 1)
    callbacks.complete("a", 2)
    assert await callbacks.wait("a", 20) == 1
    with pytest.raises(TimedOut, match="no callback `a` came"):
        await callbacks.wait("a", 0.001)


async def test_an_early_answer_is_kept_for_a_while_only() -> None:
    now = [0.0]
    callbacks = Callbacks(lambda: now[0])
    callbacks.complete("a", 1)
    now[0] = EARLY_S
    with pytest.raises(TimedOut):
        await callbacks.wait("a", 0.001)


async def test_early_answers_are_bounded_and_the_oldest_goes() -> None:
    callbacks = Callbacks()
    for i in range(MOST_EARLY + 1):
        callbacks.complete(str(i), i)
    assert await callbacks.wait("1", 20) == 1
    with pytest.raises(TimedOut):
        await callbacks.wait("0", 0.001)


@pytest.mark.parametrize("early", [True, False])
async def test_an_error_is_raised_where_somebody_waits(early: bool) -> None:
    callbacks = Callbacks()
    if early:
        callbacks.complete("a", UpstreamError("it failed"))
    waits = asyncio.create_task(callbacks.wait("a", 20))
    await asyncio.sleep(0)
    if not early:
        callbacks.complete("a", UpstreamError("it failed"))
    with pytest.raises(UpstreamError, match="it failed"):
        await waits


async def test_who_is_cancelled_waits_no_more() -> None:
    callbacks = Callbacks()
    waits = asyncio.create_task(callbacks.wait("a", None))
    await asyncio.sleep(0)
    waits.cancel()
    await asyncio.wait([waits])
    assert not callbacks.complete("a", 1)
    assert await callbacks.wait("a", 20) == 1


async def test_two_calls_do_not_wait_for_one_answer() -> None:
    callbacks = Callbacks()
    waits = asyncio.create_task(callbacks.wait("a", None))
    await asyncio.sleep(0)
    with pytest.raises(InvalidInput, match="another call"):
        await callbacks.wait("a", None)
    waits.cancel()
    await asyncio.wait([waits])


@pytest.mark.parametrize("name", ["", "x" * 513])
async def test_an_id_has_a_length(name: str) -> None:
    callbacks = Callbacks()
    assert not callbacks.complete(name, 1)
    with pytest.raises(InvalidInput, match="characters"):
        await callbacks.wait(name, None)
