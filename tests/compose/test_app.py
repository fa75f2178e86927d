"""Does every run end exactly once, whatever happens to it, and is it remembered as long as it should be?"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.compose.apps import ECHO, Seen, app_of, output_of, project_of, run_of, start
from tests.runtime.pools import eventually, files

from model_compose.components.streams import Stream
from model_compose.compose import app as app_module
from model_compose.compose.app import App
from model_compose.compose.catalog import BuiltIn
from model_compose.compose.run import Run
from model_compose.errors import (
    Cancelled,
    DriverMissing,
    EngineError,
    Interrupted,
    InvalidInput,
    ModelUnavailable,
    NotFound,
    Overloaded,
    ServiceError,
)
from model_compose.sources.progress import Silent
from model_compose.types import plain

TWO = """
components:
  - {id: a, type: model, task: text-generation, driver: echo, runtime: embedded}
  - {id: b, type: model, task: text-generation, driver: echo, runtime: embedded, options: {load_fails: no}}
workflows:
  - {id: first, jobs: [{id: j, component: a, input: '${input}'}]}
  - {id: second, jobs: [{id: j, component: b}]}
"""


def limited(count: int, queue: int = 256) -> str:
    return f"controller: {{max_concurrent_count: {count}, max_queue: {queue}}}\n{ECHO}"


async def waits(app: App, folder: Path) -> tuple[Run, asyncio.Task[object], Path]:
    """A run that waits for a file, and has begun."""
    begun, go = files(folder, f"begun{len(list(folder.iterdir()))}", "go")
    workflow = app.workflow(None)
    run, value = app.begin(workflow, f"touch:{begun} wait:{go}")
    task = asyncio.create_task(app.execute(run, workflow, value, streaming=False))
    await eventually(begun.exists, "the run has begun")
    return run, task, go


# Runs


async def test_a_run_is_recorded_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    seen = Seen()
    async with app_of(ECHO, tmp_path, observer=seen) as app:
        run = await run_of(app, "hello there")
        record = await app.record(run.id)
        assert (record.status, record.output, record.error) == ("completed", "hello there", None)
        assert record.started is not None
        assert record.finished is not None
        assert record.created <= record.started <= record.finished
        assert record.usage == {
            "prompt_tokens": 2,
            "completion_tokens": 2,
            "total_tokens": 4,
            "cached_tokens": 0,
        }
        assert seen.runs == [run]
        assert app.running(run.id) is None


async def test_a_run_that_fails_keeps_its_reason(tmp_path: Path) -> None:
    async with app_of(ECHO, tmp_path) as app:
        run, value = app.begin(app.workflow(None), "fail")
        with pytest.raises(EngineError):
            await app.execute(run, app.workflow(None), value, streaming=False)
        record = await app.record(run.id)
        assert (record.status, record.error_type) == ("failed", "engine_error")
        assert "not in the mood" in str(record.error)
        assert record.output is None


async def test_an_unforeseen_error_ends_the_run_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(app_module, "run_workflow", broken)
    async with app_of(ECHO, tmp_path) as app:
        run, value = app.begin(app.workflow(None), "x")
        with pytest.raises(ZeroDivisionError):
            await app.execute(run, app.workflow(None), value, streaming=False)
        record = await app.record(run.id)
        assert (record.status, record.error_type) == ("failed", "internal")
        assert record.error == "ZeroDivisionError: a bug of ours"


async def test_a_run_that_is_cancelled_ends_so_and_frees_its_slot(tmp_path: Path) -> None:
    async with app_of(ECHO, tmp_path) as app:
        run, task, _ = await waits(app, tmp_path)
        run.cancel(Cancelled("cancelled by request"))
        run.cancel(Cancelled("a second time"))
        with pytest.raises(asyncio.CancelledError):
            await task
        record = await app.record(run.id)
        assert (record.status, record.error) == ("cancelled", "cancelled by request")
        await eventually(lambda: app.status()[0].active == 0, "its slot is free")


async def test_a_run_that_is_cancelled_before_it_executes_never_does(tmp_path: Path) -> None:
    async with app_of(ECHO, tmp_path) as app:
        (mark,) = files(tmp_path, "mark")
        workflow = app.workflow(None)
        run, value = app.begin(workflow, f"touch:{mark}")
        run.cancel(Cancelled("changed my mind"))
        with pytest.raises(asyncio.CancelledError):
            await app.execute(run, workflow, value, streaming=False)
        assert (await app.record(run.id)).error == "changed my mind"
        assert not mark.exists()


async def test_a_run_cannot_end_twice(tmp_path: Path) -> None:
    seen = Seen()
    async with app_of(ECHO, tmp_path, observer=seen) as app:
        run = await run_of(app, "hello")
        run.fail(EngineError("too late"))
        run.cancel(Cancelled("too late"))
        assert run.status == "completed"
        assert run.error is None
        assert seen.runs == [run]


async def test_a_stream_ends_its_run_with_what_its_pieces_make(tmp_path: Path) -> None:
    async with app_of(ECHO, tmp_path) as app:
        run, output = await start(app, "chunks:5", streaming=True)
        assert isinstance(output, Stream)
        assert (await app.record(run.id)).status == "processing"
        assert [len(pieces) > 0 async for pieces in run.follow(output)]
        assert (await app.record(run.id)).output == "0 1 2 3 4 "


@pytest.mark.parametrize("ends", ["completed", "failed", "cancelled"])
async def test_the_job_that_streams_ends_as_its_run_does(tmp_path: Path, ends: str) -> None:
    async with app_of(ECHO, tmp_path) as app:
        prompt = "chunks:2" + (" fail" if ends == "failed" else "")
        run, output = await start(app, prompt, streaming=True)
        assert isinstance(output, Stream)
        assert [timing.state for timing in run.jobs.values()] == ["processing"]
        pieces = run.follow(output)
        await anext(pieces)
        if ends == "cancelled":
            await pieces.aclose()
        else:
            with contextlib.suppress(EngineError):
                async for _ in pieces:
                    pass
        assert run.status == ends
        assert [timing.state for timing in run.jobs.values()] == [ends]


# Which workflow


async def test_the_workflow_is_found_by_its_id(tmp_path: Path) -> None:
    async with app_of(TWO, tmp_path) as app:
        await app.pool.until(app.settled)
        assert await output_of(app, {"prompt": "x"}, "first") == "x"
        with pytest.raises(NotFound, match="Workflow 'firts' not found") as raised:
            app.workflow("firts")
        assert "`first`" in (raised.value.hint or "")
        with pytest.raises(NotFound, match="__default__"):
            app.workflow(None)


async def test_an_input_that_does_not_fit_begins_no_run(tmp_path: Path) -> None:
    seen = Seen()
    async with app_of(ECHO, tmp_path, observer=seen) as app:
        with pytest.raises(InvalidInput, match="unknown field"):
            app.begin(app.workflow(None), {"promt": "x"})
    assert seen.runs == []


# Limits


async def test_no_more_runs_than_max_concurrent_count_are_under_way(tmp_path: Path) -> None:
    async with app_of(limited(2), tmp_path) as app:
        _, first, go = await waits(app, tmp_path)
        _, second, _ = await waits(app, tmp_path)
        third = asyncio.create_task(run_of(app, "third"))
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert not third.done()
        assert app.status()[0].active == 2
        go.touch()
        assert plain((await third).output) == "third"
        await asyncio.gather(first, second)


async def test_a_run_that_finds_too_many_waiting_is_refused(tmp_path: Path) -> None:
    async with app_of(limited(1, queue=1), tmp_path) as app:
        _, first, go = await waits(app, tmp_path)
        second = asyncio.create_task(run_of(app, "second"))
        await eventually(lambda: len(app._runs) == 2, "it waits")
        with pytest.raises(Overloaded) as raised:
            await run_of(app, "third")
        assert raised.value.retry_after_s >= 1
        go.touch()
        await asyncio.gather(first, second)
        assert plain((await run_of(app, "fourth")).output) == "fourth"


async def test_of_a_burst_of_runs_no_more_are_taken_than_may_wait(tmp_path: Path) -> None:
    async with app_of(limited(1, queue=2), tmp_path) as app:
        taken, refused = [], 0
        for i in range(10):  # in one turn of the loop, as a burst of requests is
            try:
                taken.append(app.begin(app.workflow(None), f"run {i}"))
            except Overloaded:
                refused += 1
        assert (len(taken), refused) == (3, 7)
        outputs = [app.execute(run, app.workflow(None), value, streaming=False) for run, value in taken]
        assert [plain(each) for each in await asyncio.gather(*outputs)] == ["run 0", "run 1", "run 2"]


@pytest.mark.parametrize("how", ["cancelled", "failed", "streamed", "stream closed"])
async def test_however_a_run_ends_its_place_is_free(tmp_path: Path, how: str) -> None:
    async with app_of(limited(1), tmp_path) as app:
        if how == "cancelled":
            run, task, _ = await waits(app, tmp_path)
            run.cancel(Cancelled("no more"))
            await asyncio.gather(task, return_exceptions=True)
        elif how == "failed":
            with pytest.raises(EngineError):
                await run_of(app, "fail")
        else:
            run, output = await start(app, "chunks:3", streaming=True)
            assert isinstance(output, Stream)
            pieces = run.follow(output)
            await anext(pieces)
            if how == "stream closed":
                await pieces.aclose()
            else:
                async for _ in pieces:
                    pass
        assert plain((await asyncio.wait_for(run_of(app, "next"), 5)).output) == "next"


async def test_a_run_that_is_cancelled_while_it_waits_for_a_place_takes_none(tmp_path: Path) -> None:
    async with app_of(limited(1), tmp_path) as app:
        _, first, go = await waits(app, tmp_path)
        workflow = app.workflow(None)
        run, value = app.begin(workflow, "x")
        waiting = asyncio.create_task(app.execute(run, workflow, value, streaming=False))
        await eventually(lambda: run.task is not None, "it waits")
        run.cancel(Cancelled("no more"))
        await asyncio.gather(waiting, return_exceptions=True)
        assert not run.holds_place
        go.touch()
        await first
        assert plain((await run_of(app, "next")).output) == "next"


# What is remembered


async def test_an_unknown_task_is_not_found(tmp_path: Path) -> None:
    async with app_of(ECHO, tmp_path) as app:
        with pytest.raises(NotFound, match="`01NONE`"):
            await app.record("01NONE")


async def test_a_finished_run_is_forgotten_after_its_time(tmp_path: Path) -> None:
    async with app_of(f"controller: {{task_ttl: 50ms}}\n{ECHO}", tmp_path) as app:
        run = await run_of(app, "hello")
        assert run.status == "completed"
        with pytest.raises(NotFound):
            await _until_forgotten(app, run)


async def _until_forgotten(app: App, run: Run) -> None:
    async with asyncio.timeout(10):
        while await app.record(run.id):
            await asyncio.sleep(0.005)


async def test_what_is_remembered_is_bounded_in_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "REMEMBERED", 3)
    async with app_of(ECHO, tmp_path) as app:
        runs = [await run_of(app, f"run {i}") for i in range(5)]
        for run in runs[:2]:
            with pytest.raises(NotFound):
                await app.record(run.id)
        assert [(await app.record(run.id)).output for run in runs[2:]] == ["run 2", "run 3", "run 4"]


async def test_what_is_remembered_is_bounded_in_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "REMEMBERED_BYTES", 50_000)
    async with app_of(ECHO, tmp_path) as app:
        large = [await run_of(app, "x" * 20_000) for _ in range(4)]
        assert app._finished_bytes <= 50_000
        assert app._finished_bytes == sum(map(len, app._finished.values()))
        assert (await app.record(large[-1].id)).output == "x" * 20_000
        huge = await run_of(app, "x" * 100_000)
        assert app._finished_bytes == 0
        with pytest.raises(NotFound):
            await app.record(huge.id)


# Watching


async def collected(run: Run) -> AsyncIterator[tuple[str, Any]]:
    async for event in run.events():
        yield event.name, event.data


async def test_who_watches_a_run_sees_its_jobs_its_chunks_and_its_end(tmp_path: Path) -> None:
    async with app_of(ECHO, tmp_path) as app:
        workflow = app.workflow(None)
        run, value = app.begin(workflow, "chunks:3")
        watching = asyncio.create_task(_list(run))
        await asyncio.sleep(0)
        output = await app.execute(run, workflow, value, streaming=True)
        async for _ in run.follow(output):
            pass
        events = await watching
        assert [name for name, _ in events] == ["job", "chunk", "chunk", "chunk", "job", "end"]
        assert [data for name, data in events if name == "chunk"] == ["0 ", "1 ", "2 "]
        assert events[-1][1]["status"] == "completed"


async def _list(run: Run) -> list[tuple[str, Any]]:
    return [event async for event in collected(run)]


async def test_who_watches_slowly_sees_what_happened_meanwhile(tmp_path: Path) -> None:
    async with app_of(ECHO, tmp_path) as app:
        run, _ = app.begin(app.workflow(None), "hello")
        run.job("a", "processing")
        events = run.events()
        seen = [await anext(events)]
        run.job("a", "completed")
        run.job("b", "processing")
        run.complete("hello")
        seen += [event async for event in events]
    assert [(event.name, event.data.get("id"), event.data.get("state")) for event in seen] == [
        ("job", "a", "processing"),
        ("job", "a", "completed"),
        ("job", "b", "processing"),
        ("job", "b", "completed"),
        ("end", None, None),
    ]


async def test_who_watches_a_run_that_has_ended_sees_its_end(tmp_path: Path) -> None:
    async with app_of(ECHO, tmp_path) as app:
        run = await run_of(app, "hello")
        assert [name for name, _ in await _list(run)] == ["job", "end"]


async def test_who_stops_watching_is_forgotten(tmp_path: Path) -> None:
    async with app_of(ECHO, tmp_path) as app:
        workflow = app.workflow(None)
        run, value = app.begin(workflow, "hello")
        watching = asyncio.create_task(_list(run))
        await asyncio.sleep(0)
        assert len(run._watchers) == 1
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        assert run._watchers == []
        await app.execute(run, workflow, value, streaming=False)


# The life of an app


async def test_a_service_that_drains_takes_nothing_new_and_lets_the_rest_end(tmp_path: Path) -> None:
    async with app_of(ECHO, tmp_path) as app:
        _, task, go = await waits(app, tmp_path)
        draining = asyncio.create_task(app.drain(30))
        await asyncio.sleep(0)
        with pytest.raises(Interrupted):
            app.begin(app.workflow(None), "late")
        go.touch()
        await draining
        assert await task is not None


async def test_what_does_not_end_in_time_is_interrupted(tmp_path: Path) -> None:
    async with app_of(ECHO, tmp_path) as app:
        run, task, _ = await waits(app, tmp_path)
        await app.drain(0.05)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (run.status, type(run.error)) == ("failed", Interrupted)


async def test_readiness_follows_the_models(tmp_path: Path) -> None:
    go, *_ = files(tmp_path, "go")
    text = ECHO + f"  options: {{load_waits_for: {go}}}\n"
    async with app_of(text, tmp_path) as app:
        await eventually(lambda: app.pool.state("echo") == "loading", "it loads")
        assert not app.ready()
        assert not app.settled()
        go.touch()
        await app.pool.until(app.ready)
        assert app.settled()
        assert app.hopeless() is None


async def test_a_lazy_model_is_ready_unloaded_and_loads_for_a_request(tmp_path: Path) -> None:
    async with app_of(ECHO + "  preload: false\n", tmp_path) as app:
        assert app.ready()
        assert app.pool.state("echo") == "unloaded"
        assert await output_of(app, "hello") == "hello"
        assert app.pool.state("echo") == "ready"


async def test_one_model_that_cannot_load_leaves_the_others_serving(tmp_path: Path) -> None:
    async with app_of(TWO, tmp_path) as app:
        await app.pool.until(app.settled)
        assert not app.ready()
        assert app.hopeless() is None
        assert await output_of(app, {"prompt": "x"}, "first") == "x"
        with pytest.raises(ModelUnavailable):
            await output_of(app, "x", "second")


async def test_a_service_whose_every_model_has_failed_is_hopeless(tmp_path: Path) -> None:
    async with app_of(ECHO + "  options: {load_fails: no such weights}\n", tmp_path) as app:
        await app.pool.until(app.settled)
        assert "no such weights" in str(app.hopeless())


async def test_a_driver_whose_library_is_missing_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = project_of(ECHO, tmp_path)
    app = App(project, BuiltIn(), progress=lambda _: Silent())

    def missing(_: object) -> None:
        raise DriverMissing("component `echo` needs `nothing`, which is not installed")

    monkeypatch.setattr("model_compose.compose.models.require_drivers", missing)
    with pytest.raises(DriverMissing):
        await app.start()
    assert app._pool is None


async def test_a_store_that_cannot_be_read_is_told_and_leaves_nothing_running(tmp_path: Path) -> None:
    (tmp_path / "runs.sqlite").write_bytes(b"this is no database" * 1000)
    with pytest.raises(ServiceError, match=r"runs\.sqlite"):
        async with app_of(ECHO, tmp_path, state=tmp_path):
            pass
