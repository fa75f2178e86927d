"""Does a batch model serve calls that come, go and go wrong beside each other? Inside this process."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.pools import Models, echo, eventually, files, running, settled

from model_compose.drivers.contract import Outcome
from model_compose.errors import Cancelled, EngineError, InvalidInput, ModelComposeError, OutOfMemory
from model_compose.runtime.call import HIGH_WATER, Call
from model_compose.tasks.text_embedding.spec import TextEmbedding

STEPS = "tests.runtime.odd_models:Steps"


def steps(**options: Any) -> Any:
    return echo(kind="embed", implementation=STEPS, embedded=True, **options)


def rows(end: Outcome | ModelComposeError) -> list[float]:
    """For each row of a call, how many rows its forward pass had."""
    assert isinstance(end, Outcome), end
    return list(end.result.embedding)


async def blocked(models: Models, folder: Path) -> tuple[Call, Path]:
    """A call that keeps the device busy until a file exists."""
    (go,) = files(folder, "go")
    call = models.embed(f"wait:{go}")
    reported: list[tuple[int, int]] = []
    call.on_progress = lambda done, total: reported.append((done, total))
    await eventually(lambda: bool(reported), "the device is busy")
    return call, go


async def prepared(models: Models) -> None:
    """Wait until the calls so far are prepared: the one behind them is, and that ends it."""
    with pytest.raises(InvalidInput):
        await models.embed("refused").outcome()


async def test_rows_of_several_calls_are_computed_together(tmp_path: Path) -> None:
    async with running(steps()) as models:
        first, go = await blocked(models, tmp_path)
        calls = [models.embed(word) for word in ("one", "two", "three")]
        await prepared(models)
        go.touch()
        ends = await settled([first, *calls])
        assert rows(ends[0]) == [1.0]
        assert [rows(end) for end in ends[1:]] == [[3.0]] * 3


async def test_a_call_of_many_rows_is_cut_to_the_budget_and_put_together_again() -> None:
    async with running(steps()) as models:
        outcome = await models.embed(" ".join(["word"] * 10)).outcome()
        assert rows(outcome) == [4.0] * 8 + [2.0] * 2


def several(models: Models, *texts: str) -> Call:
    requests = [TextEmbedding(text=text) for text in texts]
    return models.pool.submit("echo", requests, streaming=False, bounded=False, several=True)


async def test_several_requests_in_one_call_have_a_result_each_in_order() -> None:
    async with running(steps()) as models:
        models.pool.want("echo")
        await models.state("echo", "ready")
        assert models.pool.takes_lists("echo")
        outcome = await several(models, "a b", " ", "c", "d e f").outcome()
        assert [each.embedding for each in outcome.result] == [[4.0, 4.0], [], [4.0], [4.0, 2.0, 2.0]]


@pytest.mark.parametrize(
    ("bad", "error"), [("refused", InvalidInput), ("bad", EngineError), ("unfinished", EngineError)]
)
async def test_one_of_several_that_fails_fails_all(bad: str, error: type[ModelComposeError]) -> None:
    async with running(steps()) as models:
        call, other = several(models, "a", bad, "c"), models.embed("fine")
        with pytest.raises(error):
            await call.outcome()
        assert len(rows(await other.outcome())) == 1


async def test_several_that_nobody_waits_for_leave_together(tmp_path: Path) -> None:
    async with running(steps()) as models:
        first, go = await blocked(models, tmp_path)
        call = several(models, "a", "b c")
        await prepared(models)
        models.pool.cancel(call)
        last = models.embed("last")
        go.touch()
        assert rows((await settled([first, last]))[1]) == [1.0]


async def test_an_engine_takes_no_lists() -> None:
    async with running(echo(embedded=True)) as models:
        models.pool.want("echo")
        await models.state("echo", "ready")
        assert not models.pool.takes_lists("echo")


@pytest.mark.parametrize("streaming", [True, False])
async def test_nobody_waits_for_a_reader_that_is_slow(streaming: bool) -> None:
    async with running(steps()) as models:
        pieces = 3 * HIGH_WATER
        request = TextEmbedding(text=" ".join(["word"] * pieces))
        unread = models.pool.submit("echo", request, streaming=streaming, bounded=False)
        assert len(rows(await models.embed("other").outcome())) == 1
        assert len(rows(await unread.outcome())) == pieces
        chunks = [chunk async for some in unread.chunks() for chunk in some] if streaming else []
        assert len(chunks) == streaming * pieces


async def test_a_call_without_rows_is_answered() -> None:
    async with running(steps()) as models:
        assert rows(await models.embed(" ").outcome()) == []


async def test_one_bad_row_fails_its_call_and_no_other(tmp_path: Path) -> None:
    async with running(steps()) as models:
        first, go = await blocked(models, tmp_path)
        calls = [models.embed("good bad"), models.embed("fine")]
        go.touch()
        _, bad, fine = await settled([first, *calls])
        assert isinstance(bad, EngineError)
        assert "a bad row" in str(bad)
        assert len(rows(fine)) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise", "the device is on fire"),
        ("short", "gave 0 rows for 1"),
        ("unfinished", "cannot finish"),
    ],
)
async def test_a_forward_pass_that_goes_wrong_fails_its_rows_and_the_next_one_works(
    text: str, reason: str
) -> None:
    async with running(steps()) as models:
        with pytest.raises(EngineError, match=reason):
            await models.embed(text).outcome()
        assert rows(await models.embed("fine").outcome()) == [1.0]


# Out of memory


def hungry(**options: Any) -> Any:
    return echo(kind="embed", implementation="tests.runtime.odd_models:Hungry", embedded=True, **options)


@pytest.mark.parametrize("error", ["ours", "python"])
async def test_a_batch_that_memory_does_not_suffice_for_is_computed_in_halves(error: str) -> None:
    async with running(hungry(most=4, error=error)) as models:
        assert rows(await models.embed("a b c d e f g").outcome()) == [4.0] * 4 + [3.0] * 3


async def test_a_half_that_is_still_too_much_ends_its_rows_and_is_not_cut_again() -> None:
    async with running(hungry(most=1)) as models:
        with pytest.raises(OutOfMemory, match="2 rows") as caught:
            await models.embed("a b c d").outcome()
        assert caught.value.needed_bytes == 2
        assert rows(await models.embed("a").outcome()) == [1.0]
        assert models.status().state == "ready"


async def test_only_the_half_with_the_row_that_is_too_large_fails(tmp_path: Path) -> None:
    async with running(hungry(most=8)) as models:
        first, go = await blocked(models, tmp_path)
        calls = [models.embed(word) for word in ("huge", "a", "b", "c")]
        await prepared(models)
        go.touch()
        _, *ends = await settled([first, *calls])
        assert [type(end) for end in ends] == [OutOfMemory, OutOfMemory, Outcome, Outcome]
        assert [rows(end) for end in ends[2:]] == [[2.0], [2.0]]


async def test_a_row_of_which_something_was_seen_is_not_computed_again(tmp_path: Path) -> None:
    async with running(hungry(most=3)) as models:
        first, go = await blocked(models, tmp_path)
        calls = [models.embed(word, streaming=word == "streams") for word in ("a", "streams", "b", "c")]
        await prepared(models)
        go.touch()
        _, *ends = await settled([first, *calls])
        assert isinstance(ends.pop(1), OutOfMemory)
        assert [rows(end) for end in ends] == [[2.0], [2.0], [1.0]]


async def test_a_row_alone_that_is_too_large_is_told_so() -> None:
    async with running(hungry(most=8)) as models:
        with pytest.raises(OutOfMemory, match="1 rows"):
            await models.embed("huge").outcome()


async def test_a_running_row_hears_that_its_caller_left(tmp_path: Path) -> None:
    async with running(steps()) as models:
        call, go = await blocked(models, tmp_path)
        models.pool.cancel(call)
        assert rows(await models.embed("next").outcome()) == [1.0]
        assert not go.exists()
        assert [type(error) for _, error in models.seen.calls] == [Cancelled, type(None)]


async def test_a_waiting_row_whose_caller_left_is_not_computed(tmp_path: Path) -> None:
    async with running(steps()) as models:
        first, go = await blocked(models, tmp_path)
        left, stays = models.embed("raise"), models.embed("fine")
        await eventually(lambda: left.times.served > 0 and stays.times.served > 0, "both are sent")
        models.pool.cancel(left)
        go.touch()
        assert isinstance((await settled([first]))[0], Outcome)
        assert rows(await stays.outcome()) == [1.0]
        await eventually(lambda: models.status().active == 0, "every slot is free")


async def test_progress_of_a_row_reaches_its_call() -> None:
    async with running(steps()) as models:
        call = models.embed("word")
        reported: list[tuple[int, int]] = []
        call.on_progress = lambda done, total: reported.append((done, total))
        await call.outcome()
        assert reported == [(1, 2)]


async def test_many_calls_with_cancels_in_between_all_end_once() -> None:
    async with running(steps()) as models:
        calls = [models.embed(f"text {i} word") for i in range(200)]
        for i, call in enumerate(calls):
            if i % 3 == 0:
                models.pool.cancel(call)
            if i % 20 == 0:
                await asyncio.sleep(0)
        ends = await settled(calls)
        assert all(isinstance(end, Cancelled) == (i % 3 == 0) for i, end in enumerate(ends))
        await eventually(lambda: len(models.seen.calls) == 200, "each ended")
        assert len({call.number for call, _ in models.seen.calls}) == 200
        assert models.status().active == models.status().waiting == 0


async def test_a_model_with_calls_in_every_stage_closes(tmp_path: Path) -> None:
    async with running(steps()) as models:
        await blocked(models, tmp_path)
        for i in range(20):
            models.embed(f"text {i}")
        began = time.monotonic()
        await models.pool.close()
        assert time.monotonic() - began < 4


async def test_closed_loop_callers_share_batches() -> None:
    """That they stay in one batch is a matter of milliseconds: `test_batch.py` has its own clock for it."""
    sizes: list[float] = []

    async def caller(models: Models) -> None:
        for _ in range(15):
            sizes.extend(rows(await models.embed("x", "slow").outcome()))

    slow = echo("slow", "embed", implementation="tests.runtime.odd_models:Slow", embedded=True)
    async with running(slow) as models:
        await models.embed("warm", "slow").outcome()
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(caller(models))

    assert len(sizes) == 60
    assert sum(size > 1 for size in sizes) > 30


async def test_a_call_that_is_cancelled_while_it_is_prepared_is_not_computed(tmp_path: Path) -> None:
    (go,) = files(tmp_path, "go")
    setup = echo(kind="embed", implementation="tests.runtime.odd_models:Patient", embedded=True)
    async with running(setup) as models:
        call = models.embed(f"prepare:{go}")
        await eventually(Path(f"{go}.preparing").exists, "it is being prepared")
        models.pool.cancel(call)
        await asyncio.sleep(0)  # the host hears of it in this turn
        go.touch()
        await eventually(lambda: models.status().active == 0, "its slot is free")
    assert isinstance(call.error(), Cancelled)
    assert not Path(f"{go}.computed").exists()
