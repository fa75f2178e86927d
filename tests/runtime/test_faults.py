"""What happens when workers die, do not load, or say what no worker should say?"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.runtime.pools import Models, alive, echo, eventually, files, gone, running, settled

from model_compose.drivers.contract import LoadProgress, Outcome
from model_compose.errors import (
    Cancelled,
    EngineError,
    ModelUnavailable,
    OutOfMemory,
    SourceNotFound,
    SourceOffline,
    WorkerDied,
)
from model_compose.runtime.call import Call

pytestmark = pytest.mark.process

ODD = "tests.runtime.odd_models"


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


async def begin_streams(models: Models, folder: Path, count: int) -> list[Call]:
    """Streams that have given something and wait for more."""
    (never,) = files(folder, "never")
    calls = [models.ask(f"chunks:3 wait:{never}", streaming=True) for _ in range(count)]
    for call in calls:
        async with asyncio.timeout(30):
            await anext(call.chunks())
    return calls


# A worker that dies


async def test_kill_9_while_streams_run_fails_those_that_had_begun_and_serves_the_rest(
    tmp_path: Path,
) -> None:
    (go,) = files(tmp_path, "go")
    marks = files(tmp_path, *(f"m{i}" for i in range(4)))
    async with running(echo(slots=8)) as models:
        begun = await begin_streams(models, tmp_path, 4)
        silent = [models.ask(f"touch:{mark} wait:{go}", streaming=True) for mark in marks]
        queued = [models.ask(f"queued {i}", streaming=True) for i in range(4)]
        await eventually(lambda: all(mark.exists() for mark in marks), "all streams run")
        killed = models.worker()
        killed.kill()
        go.touch()
        for call in begun:
            with pytest.raises(WorkerDied, match="SIGKILL"):
                async for _ in call.chunks():
                    pass
        texts = [end.result.text for end in await settled(silent + queued) if isinstance(end, Outcome)]
        assert texts == [f"touch:{mark} wait:{go}" for mark in marks] + [f"queued {i}" for i in range(4)]
        assert models.worker().pid != killed.pid
        ends = sorted((call for call, error in models.seen.calls if not error), key=lambda c: c.times.ended)
        assert [call.number for call in ends[:4]] == [call.number for call in silent]
        assert all(a.times.ended <= b.times.served for a, b in itertools.pairwise(ends[:5])), "alone"


async def test_a_poisonous_request_fails_alone_and_the_model_stays(tmp_path: Path) -> None:
    (go,) = files(tmp_path, "go")
    async with running(echo(slots=8)) as models:
        poison = models.ask("crash")
        waiting = [models.ask(f"wait:{go}") for _ in range(3)]
        with pytest.raises(WorkerDied, match="exit code 9"):
            await poison.outcome()
        go.touch()
        assert all(isinstance(end, Outcome) for end in await settled(waiting))
        assert models.pool.state("echo") == "ready"
        assert len({call.number for call, _ in models.seen.calls}) == len(models.seen.calls) == 4


async def test_a_request_whose_worker_died_once_is_answered_by_the_next(tmp_path: Path) -> None:
    (once,) = files(tmp_path, "once")
    async with running(echo()) as models:
        call = models.ask(f"die:{once}", streaming=True)
        assert (await call.outcome()).result.text == f"die:{once}"
        assert models.seen.states.count(("echo", "ready")) == 2


async def test_the_death_of_one_worker_is_no_matter_to_another(tmp_path: Path) -> None:
    (go,) = files(tmp_path, "go")
    async with running(echo("a"), echo("b")) as models:
        await models.load("a")
        call = models.ask(f"wait:{go}", "b")
        await models.state("b", "ready")
        models.worker("a").kill()
        await eventually(lambda: models.pool.error("a") is not None, "the death of a is noticed")
        go.touch()
        assert isinstance((await settled([call]))[0], Outcome)


async def test_a_caller_who_left_before_the_crash_is_counted_as_one_who_left(tmp_path: Path) -> None:
    begun, never = files(tmp_path, "begun", "never")
    async with running(echo(embedded=False)) as models:
        call = models.ask(f"touch:{begun} wait:{never}")
        await eventually(begun.exists, "the call began")
        worker = models.worker()
        worker.suspend()  # it shall not hear of the cancellation
        models.pool.cancel(call)
        worker.kill()
        await eventually(lambda: models.status().pid is None, "the death is noticed")
        assert [type(error) for _, error in models.seen.calls] == [Cancelled]
        assert models.status().active == 0


async def test_a_grandchild_that_holds_the_output_open_does_not_hide_a_death() -> None:
    async with running(echo(implementation=f"{ODD}:Parent")) as models:
        worker = await models.load()
        info = models.status().info
        assert info is not None
        child = int(info.details["child"])
        assert alive(worker.pid) == sorted([worker.pid, child])
        os.kill(worker.pid, signal.SIGKILL)
        await eventually(lambda: models.pool.error("echo") is not None, "the death is noticed", 5)
        await eventually(lambda: gone(child), "the grandchild is killed")


async def test_an_unload_ends_grandchildren_too() -> None:
    async with running(echo(implementation=f"{ODD}:Parent", keep_alive_s=0.0)) as models:
        models.pool.want("echo")
        await eventually(lambda: models.status().info is not None, "it is loaded")
        info = models.status().info
        assert info is not None
        await eventually(lambda: gone(int(info.details["child"])), "the grandchild is killed", 5)


# A model that does not load


async def test_a_worker_that_dies_while_it_loads_is_tried_again_and_then_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("model_compose.runtime.scheduler.FIRST_BACKOFF_S", 0.01)
    async with running(echo(load_crashes=True)) as models:
        with pytest.raises(ModelUnavailable, match="exit code 7"):
            await models.answer("hello")
        assert models.pool.state("echo") == "failed"
        assert models.seen.states.count(("echo", "loading")) >= 2


async def test_a_load_failure_keeps_its_reason_and_its_hint() -> None:
    async with running(echo(implementation=f"{ODD}:TooLarge")) as models:
        with pytest.raises(ModelUnavailable, match="4 GiB do not fit") as raised:
            await models.answer("hello")
        assert raised.value.hint == "take a smaller one"
        with pytest.raises(ModelUnavailable, match="4 GiB do not fit"):
            await models.answer("again")
        assert models.status().error == "4 GiB do not fit"
        await eventually(lambda: models.status().pid is None, "its worker ended")


@pytest.mark.parametrize(
    ("implementation", "reason"),
    [
        (f"{ODD}:Raiser", "ZeroDivisionError: in the middle of it"),
        (f"{ODD}:NoSuchClass", "NoSuchClass"),
        ("no_such_module:Model", "no_such_module"),
    ],
)
async def test_whatever_an_engine_raises_while_it_loads_is_told(implementation: str, reason: str) -> None:
    async with running(echo(implementation=implementation)) as models:
        with pytest.raises(ModelUnavailable, match=reason):
            await models.answer("hello")


async def test_a_worker_that_ends_while_it_loads_leaves_its_last_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("model_compose.runtime.scheduler.FIRST_BACKOFF_S", 0.01)
    async with running(echo(implementation=f"{ODD}:Talkative")) as models:
        with pytest.raises(ModelUnavailable, match="the very last words") as raised:
            await models.answer("hello")
        assert "line 99" in str(raised.value)
        assert "line 1\n" not in str(raised.value)


async def test_a_load_that_takes_too_long_has_failed(tmp_path: Path) -> None:
    (never,) = files(tmp_path, "never")
    async with running(echo(load_waits_for=str(never), load_timeout_s=0.3)) as models:
        call = models.ask("hello")
        await eventually(lambda: models.status().pid is not None, "a worker started")
        worker = models.worker()
        with pytest.raises(ModelUnavailable, match=r"within 0\.3 seconds"):
            await call.outcome()
        never.touch()  # it loads after all: too late
        await eventually(lambda: gone(worker.pid), "its worker ended")
        assert models.pool.state("echo") == "failed"


async def test_weights_that_cannot_be_had_fail_the_model() -> None:
    def prepare(_: LoadProgress) -> None:
        raise SourceNotFound("there is no such file")

    async with running(echo(prepare=prepare)) as models:
        with pytest.raises(ModelUnavailable, match="there is no such file"):
            await models.answer("hello")


async def test_a_bug_while_preparing_fails_the_model_and_says_what_it_was() -> None:
    def prepare(_: LoadProgress) -> None:
        raise ZeroDivisionError("oops")

    async with running(echo(prepare=prepare)) as models:
        with pytest.raises(ModelUnavailable, match="ZeroDivisionError: oops"):
            await models.answer("hello")


async def test_a_network_that_comes_back_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_compose.runtime.scheduler.FIRST_BACKOFF_S", 0.01)
    tries = []

    def prepare(_: LoadProgress) -> None:
        tries.append(True)
        if len(tries) < 3:
            raise SourceOffline("no network")

    async with running(echo(prepare=prepare)) as models:
        assert await models.answer("hello") == "hello"
        assert len(tries) == 3


async def test_a_worker_that_cannot_be_started_fails_the_model() -> None:
    too_long = {"VARIABLE": "x" * (1 << 18)}  # E2BIG
    async with running(echo("a"), echo("b", environment=too_long)) as models:
        await models.load("a")
        with pytest.raises(ModelUnavailable, match="cannot start a worker for `b`"):
            await models.answer("hello", "b")
        assert models.status("b").pid is None
        assert await models.answer("hello", "a") == "hello"


# An engine that says nonsense


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("what no message can hold", "cannot be sent"),
        ("what no completion is", "no result of this task"),
        ("a cancellation of its own", "CancelledError"),
        ("more memory than there is", "out of memory"),
    ],
)
async def test_nonsense_from_an_engine_fails_that_call_alone(prompt: str, reason: str) -> None:
    async with running(echo(implementation=f"{ODD}:Garbler")) as models:
        worker = await models.load()
        with pytest.raises(EngineError, match=reason):
            await models.answer(prompt)
        assert await models.answer("fine") == "fine"
        assert models.worker().pid == worker.pid


async def test_a_worker_that_runs_out_of_memory_goes_on() -> None:
    async with running(echo(kind="embed", implementation=f"{ODD}:Hungry", most=2)) as models:
        worker = await models.load()
        with pytest.raises(OutOfMemory, match="4 rows") as caught:
            await models.embed("a b c d e f g h").outcome()
        assert (caught.value.needed_bytes, caught.value.free_bytes, caught.value.hint) == (4, 1, "fewer")
        assert (await models.embed("a b c").outcome()).result.embedding == [2.0, 2.0, 1.0]
        assert models.status().state == "ready"
        assert models.worker().pid == worker.pid


async def test_a_load_that_finds_no_memory_says_so() -> None:
    async with running(echo(implementation=f"{ODD}:Gorged")) as models:
        with pytest.raises(ModelUnavailable, match="out of memory: 20 GiB were asked for"):
            await models.answer("anything")


async def test_a_worker_that_has_lost_its_gpu_makes_room_for_one_that_has_not() -> None:
    async with running(echo(implementation=f"{ODD}:Garbler")) as models:
        first = await models.load()
        with pytest.raises(EngineError, match="out of memory"):
            await models.answer("what CUDA says of memory")
        assert models.worker().pid == first.pid
        with pytest.raises(EngineError, match="in its own words"):
            await models.answer("what CUDA says of a kernel that went astray")
        await eventually(lambda: models.status().error is not None, "its worker has ended")
        assert "device-side assert" in str(models.status().error)
        assert await models.answer("fine") == "fine"
        assert models.worker().pid != first.pid


async def test_a_chunk_that_is_none_fails_the_stream_that_it_is_in() -> None:
    async with running(echo(implementation=f"{ODD}:Garbler")) as models:
        await models.load()
        call = models.ask("a chunk that no delta is", streaming=True)
        with pytest.raises(EngineError, match="no chunk of this task"):
            async for _ in call.chunks():
                pass
        assert await models.answer("fine") == "fine"


async def test_callers_who_leave_while_their_answer_is_on_its_way_break_nothing() -> None:
    async with running(echo(slots=64)) as models:
        worker = await models.load()
        for turns in range(60):
            calls = [models.ask(f"call {i}") for i in range(8)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for call in calls:
                models.pool.cancel(call)
        await models.answer("still there")
        assert models.worker().pid == worker.pid
        await eventually(lambda: models.status().active == 0, "every slot is free")
        assert len(models.seen.calls) == 60 * 8 + 1
        assert all(call.done for call, _ in models.seen.calls)


async def test_an_engine_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_compose.runtime.pool.STOP_GRACE_S", 0.2)
    async with running(echo(implementation=f"{ODD}:Stubborn")) as models:
        call = models.ask("hello", streaming=True)
        await anext(call.chunks())
        worker = models.worker()
        await models.pool.close()
        assert gone(worker.pid)


async def test_a_paused_worker_is_ended_too() -> None:
    async with running(echo()) as models:
        worker = await models.load()
        os.kill(worker.pid, signal.SIGSTOP)
        models.pool.release("echo", stay=True)
        await eventually(lambda: gone(worker.pid), "it ended", 4)
        assert models.status().state == "unloaded"


async def test_a_worker_is_what_the_kernel_takes_when_memory_is_short() -> None:
    async with running(echo()) as models:
        worker = await models.load()
        score = int(Path(f"/proc/{worker.pid}/oom_score_adj").read_text())
        assert score > int(Path("/proc/self/oom_score_adj").read_text())
        assert isinstance(worker, psutil.Process)
