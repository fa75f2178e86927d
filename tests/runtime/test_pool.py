"""Do models in worker processes answer, stream, load, unload and refuse as they should?"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.pools import echo, eventually, files, gone, running, settled

from model_compose.drivers.contract import Outcome
from model_compose.errors import (
    Cancelled,
    EngineError,
    Interrupted,
    InvalidInput,
    ModelUnavailable,
    Overloaded,
)
from model_compose.tasks.generation import TextDelta
from model_compose.types import Usage

pytestmark = pytest.mark.process


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


async def test_a_request_loads_the_model_and_is_answered() -> None:
    async with running(echo()) as models:
        outcome = await models.ask("hello world").outcome()
        assert outcome.result.text == "hello world"
        assert outcome.usage == Usage(2, 2)
        assert outcome.finish_reason == "stop"
        assert models.seen.states == [("echo", "loading"), ("echo", "ready")]
        status = models.status()
        assert status.state == "ready"
        assert status.memory["host"] > 1 << 20
        assert status.info is not None
        assert status.info.slots == 4


async def test_chunks_arrive_in_order_and_once() -> None:
    async with running(echo()) as models:
        call = models.ask("chunks:1000", streaming=True)
        pieces = [piece async for some in call.chunks() for piece in some]
        assert pieces == [TextDelta(f"{i} ") for i in range(1000)]
        assert (await call.outcome()).result.text == "".join(piece.text for piece in pieces)
        assert call.times.submitted <= call.times.served <= call.times.first_chunk <= call.times.ended


async def test_many_calls_run_at_once_up_to_the_slots(tmp_path: Path) -> None:
    go, *marks = files(tmp_path, "go", *(f"m{i}" for i in range(6)))
    async with running(echo(slots=4)) as models:
        calls = [models.ask(f"touch:{mark} wait:{go}") for mark in marks]
        await eventually(lambda: sum(mark.exists() for mark in marks) == 4, "four calls began")
        assert (models.status().active, models.status().waiting) == (4, 2)
        assert [mark.exists() for mark in marks] == [True] * 4 + [False] * 2
        go.touch()
        assert all(isinstance(end, Outcome) for end in await settled(calls))


async def test_an_error_of_the_engine_fails_one_call_alone() -> None:
    async with running(echo()) as models:
        bad, good = models.ask("fail"), models.ask("fine")
        with pytest.raises(EngineError, match="not in the mood"):
            await bad.outcome()
        assert (await good.outcome()).result.text == "fine"


async def test_cancelling_frees_the_slot(tmp_path: Path) -> None:
    begun, never = files(tmp_path, "begun", "never")
    async with running(echo(slots=1)) as models:
        stuck = models.ask(f"touch:{begun} wait:{never}")
        after = models.ask("after")
        await eventually(begun.exists, "the first call began")
        models.pool.cancel(stuck)
        assert (await after.outcome()).result.text == "after"
        with pytest.raises(Cancelled):
            await stuck.outcome()
        assert [call.number for call, _ in models.seen.calls] == [stuck.number, after.number]


async def test_a_waiting_call_that_is_cancelled_is_never_sent(tmp_path: Path) -> None:
    begun, go, mark = files(tmp_path, "begun", "go", "mark")
    async with running(echo(slots=1)) as models:
        first = models.ask(f"touch:{begun} wait:{go}")
        await eventually(begun.exists, "the first call began")
        waiting = models.ask(f"touch:{mark}")
        models.pool.cancel(waiting)
        go.touch()
        await first.outcome()
        await models.answer("another")
        assert not mark.exists()


async def test_loading_one_model_does_not_delay_another(tmp_path: Path) -> None:
    (go,) = files(tmp_path, "go")
    async with running(echo("a"), echo("slow", load_waits_for=str(go))) as models:
        await models.answer("warm", "a")
        slow = models.ask("late", "slow")
        for _ in range(20):
            assert await models.answer("quick", "a") == "quick"
        assert models.pool.state("slow") == "loading"
        assert not slow.done
        go.touch()
        assert (await slow.outcome()).result.text == "late"


async def test_keep_alive_really_ends_the_process() -> None:
    async with running(echo(keep_alive_s=0.05)) as models:
        call = models.ask("hello")
        await models.state("echo", "ready")
        worker = models.worker()
        await call.outcome()
        await models.state("echo", "unloaded")
        await eventually(lambda: models.status().pid is None, "the worker ended")
        assert gone(worker.pid)
        assert models.status().memory == {}
        assert await models.answer("again") == "again"


async def test_a_model_that_does_not_fit_takes_the_place_of_an_idle_one() -> None:
    limit = 1 << 30
    setups = [echo(name, size=limit) for name in "abc"]
    async with running(*setups, budget=limit) as models:
        workers: list[int] = []
        for name in "abc":
            assert await models.answer("hello", name) == "hello"
            assert {s.name for s in models.pool.status() if s.state == "ready"} == {name}
            assert all(gone(pid) for pid in workers)
            workers.append(models.worker(name).pid)


async def test_a_model_that_never_fits_says_so() -> None:
    async with running(echo(size=2 << 30), budget=1 << 30) as models:
        with pytest.raises(ModelUnavailable, match=r"2\.00 GiB.*1\.00 GiB"):
            await models.answer("hello")


async def test_a_thousand_calls_at_once_each_end_with_an_answer_or_overloaded() -> None:
    async with running(echo(max_queue=64)) as models:
        calls = [models.ask(f"call {i}", bounded=True) for i in range(1000)]
        ends = await settled(calls)
        refused = [end for end in ends if isinstance(end, Overloaded)]
        answers = [end.result.text for end in ends if isinstance(end, Outcome)]
        assert len(refused) == 1000 - 64  # it was not loaded: all had to queue
        assert answers == [f"call {i}" for i in range(64)]
        assert all(1 <= end.retry_after_s <= 60 for end in refused)
        assert await models.answer("later") == "later"


async def test_a_restart_gives_a_new_process_with_fresh_weights() -> None:
    prepared: list[bool] = []
    async with running(echo(prepare=lambda _: prepared.append(True))) as models:
        before = await models.load()
        models.pool.release("echo", stay=False)
        models.pool.want("echo")
        await models.state("echo", "loading")
        await models.state("echo", "ready")
        assert models.worker().pid != before.pid
        await eventually(lambda: gone(before.pid), "the old worker ended")
        assert len(prepared) == 2
        assert await models.answer("hello") == "hello"


async def test_a_restart_right_after_the_start_of_a_load_ends_with_one_worker() -> None:
    async with running(echo()) as models:
        models.pool.want("echo")
        await models.state("echo", "loading")
        for _ in range(3):
            models.pool.release("echo", stay=False)
            models.pool.want("echo")
            await asyncio.sleep(0)
        assert await models.answer("hello") == "hello"
        assert models.pool.state("echo") == "ready"


async def test_a_model_that_is_stopped_while_its_worker_starts_leaves_no_process() -> None:
    async with running(echo()) as models:
        models.pool.want("echo")
        await eventually(
            lambda: models.status().memory == {} and bool(models.pool._loaded), "a worker starts"
        )
        models.pool.release("echo", stay=True)
        await eventually(lambda: not models.pool._loaded, "it is gone")
        assert models.pool.state("echo") == "unloaded"
        with pytest.raises(ModelUnavailable, match="is stopped"):
            await models.answer("hello")


async def test_closing_ends_calls_and_processes(tmp_path: Path) -> None:
    begun, never = files(tmp_path, "begun", "never")
    async with running(echo(slots=1)) as models:
        calls = [models.ask(f"touch:{begun} wait:{never}"), models.ask("waiting")]
        await eventually(begun.exists, "the first call began")
        worker = models.worker()
        await models.pool.close()
        late = models.ask("late")
        for call in [*calls, late]:
            with pytest.raises(Interrupted):
                await call.outcome()
        assert gone(worker.pid)
    assert not models.scratch.exists()


async def test_closing_while_a_worker_starts_leaves_no_process() -> None:
    for turns in (0, 1, 3, 10, 100):
        async with running(echo()) as models:
            models.pool.want("echo")
            for _ in range(turns):
                await asyncio.sleep(0)
    # The check at the end of the session finds what is left.
    assert not models.scratch.exists()


async def test_the_lease_of_threads_reaches_the_forward_pass() -> None:
    async with running(echo(kind="embed", threads=4), cores=4) as models:
        outcome = await models.embed("hello").outcome()
        assert outcome.result.embedding == [5.0, 1.0, 4.0]


async def test_elastic_workers_share_the_threads(tmp_path: Path) -> None:
    (go,) = files(tmp_path, "go")
    async with running(echo("fixed", threads=1), echo("embed", "embed", threads=2), cores=2) as models:
        await models.load("fixed")
        await models.load("embed")
        busy = models.ask(f"wait:{go}", "fixed")
        assert (await models.embed("hello", "embed").outcome()).result.embedding[2] == 1.0
        go.touch()
        await busy.outcome()
        assert (await models.embed("hello", "embed").outcome()).result.embedding[2] == 2.0


async def test_what_queues_while_the_device_is_busy_is_computed_together() -> None:
    async with running(echo(kind="embed", forward_s=0.05, rows=8)) as models:
        await models.load()
        calls = [models.embed(f"text {i}") for i in range(17)]
        ends = await settled(calls)
        batches = [int(end.result.embedding[1]) for end in ends if isinstance(end, Outcome)]
        assert len(batches) == 17
        assert max(batches) == 8
        assert sum(1 / rows for rows in batches) <= 5  # forward passes


async def test_one_bad_row_fails_alone() -> None:
    async with running(echo(kind="embed", forward_s=0.02)) as models:
        await models.load()
        calls = [models.embed(text) for text in ("first", "good", "bad", "refuse", "fine")]
        ends = await settled(calls)
        assert isinstance(ends[2], EngineError)
        assert "a bad row" in str(ends[2])
        assert isinstance(ends[3], InvalidInput)
        assert ends[3].field == "text"
        assert all(isinstance(ends[i], Outcome) for i in (0, 1, 4))


async def test_a_model_says_what_it_takes_of_memory_that_its_process_does_not_show() -> None:
    setup = echo(implementation="tests.runtime.odd_models:Measurer", size=1 << 60)
    async with running(setup) as models:
        await models.load()
        memory = models.status().memory
        assert memory["cuda:0"] == 3 << 30
        assert 1 << 20 < memory["host"] < 1 << 40


async def test_what_an_embedded_model_takes_is_not_what_its_process_takes() -> None:
    measurer = echo("b", implementation="tests.runtime.odd_models:Measurer", size=5, embedded=True)
    async with running(echo("a", embedded=True), measurer) as models:
        for name in "ab":
            models.pool.want(name)
            await models.state(name, "ready")
        assert models.status("a").memory == {}
        assert models.status("b").memory == {"host": 5, "cuda:0": 3 << 30}


async def test_an_embedded_model_answers_streams_and_lets_go() -> None:
    async with running(echo(embedded=True, keep_alive_s=0.05)) as models:
        call = models.ask("chunks:500", streaming=True)
        pieces = [piece.text async for some in call.chunks() for piece in some]
        assert len(pieces) == 500
        assert models.status().pid is None
        await models.state("echo", "unloaded")
        assert await models.answer("again") == "again"


async def test_an_embedded_model_ends_its_calls_when_the_pool_closes(tmp_path: Path) -> None:
    begun, never = files(tmp_path, "begun", "never")
    async with running(echo(embedded=True)) as models:
        call = models.ask(f"touch:{begun} wait:{never}")
        await eventually(begun.exists, "the call began")
        await models.pool.close()
        with pytest.raises(Interrupted):
            await call.outcome()
