"""Do asynchronous runs survive a restart, and end exactly once across it?"""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.compose.apps import ECHO, app_of, run_of
from tests.runtime.pools import eventually, files

from model_compose.compose.app import App
from model_compose.compose.run import Run
from model_compose.compose.store import RunRecord, RunStore, StoredRun, packed, unpacked
from model_compose.errors import Cancelled, InvalidInput, NotFound, Overloaded, ServiceError
from model_compose.types import Blob

ONE_SLOT = ECHO + "  options: {slots: 1}\n"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


async def enqueue(app: App, given: Any) -> Run:
    return await app.enqueue(app.workflow(None), given)


async def ended(app: App, task_id: str) -> RunRecord:
    async with asyncio.timeout(20):
        while (record := await app.record(task_id)).finished is None:
            await asyncio.sleep(0.005)
    return record


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.builds(Blob, st.text(), st.binary()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_a_record_with_files_in_it_comes_back_as_it_was(output: Any) -> None:
    record = RunRecord(task_id="1", workflow_id="w", status="completed", output=output)
    assert unpacked(packed(record)) == record


async def test_files_survive_a_restart_in_inputs_and_outputs(state: Path) -> None:
    photo = Blob("image/png", b"\x89PNG", "photo.png")
    waits = RunRecord(task_id="1", workflow_id="w", status="pending")
    ended = RunRecord(task_id="2", workflow_id="w", status="completed", output=[photo], finished=1.0)
    store = RunStore(state / "runs.sqlite")
    await store.add(StoredRun(waits, {"image": photo, "text": "x"}))
    await store.add(StoredRun(RunRecord(task_id="2", workflow_id="w", status="pending"), {}))
    await store.update(ended)
    await store.close()
    again = RunStore(state / "runs.sqlite")
    assert await again.unfinished() == [StoredRun(waits, {"image": photo, "text": "x"})]
    assert await again.get("2") == ended
    await again.close()


# While the service runs


async def test_an_enqueued_run_is_stored_executed_and_can_be_asked_for(tmp_path: Path, state: Path) -> None:
    async with app_of(ECHO, tmp_path, state=state) as app:
        run = await enqueue(app, "hello")
        assert run.status == "pending"
        assert _rows(state)[run.id] in ("pending", "processing", "completed")
        record = await ended(app, run.id)
        assert (record.status, record.output) == ("completed", "hello")


async def test_a_run_that_somebody_waits_for_never_touches_the_disk(tmp_path: Path, state: Path) -> None:
    async with app_of(ECHO, tmp_path, state=state) as app:
        await enqueue(app, "stored")
        await run_of(app, "not stored")
        assert len(_rows(state)) == 1


async def test_the_store_is_for_its_owner_alone(tmp_path: Path, state: Path) -> None:
    async with app_of(ECHO, tmp_path, state=state) as app:
        await enqueue(app, "hello")
        assert (state / "runs.sqlite").stat().st_mode & 0o077 == 0


async def test_an_enqueued_run_is_a_stream_for_those_who_watch(tmp_path: Path, state: Path) -> None:
    (go,) = files(tmp_path, "go")
    async with app_of(ECHO, tmp_path, state=state) as app:
        run = await enqueue(app, f"wait:{go} chunks:3")
        watching = asyncio.create_task(_chunks(run))
        await asyncio.sleep(0)
        go.touch()
        assert await watching == ["0 ", "1 ", "2 "]


async def _chunks(run: Run) -> list[Any]:
    return [event.data async for event in run.events() if event.name == "chunk"]


async def test_an_enqueued_run_that_is_cancelled_ends_so(tmp_path: Path, state: Path) -> None:
    (never,) = files(tmp_path, "never")
    async with app_of(ECHO, tmp_path, state=state) as app:
        run = await enqueue(app, f"wait:{never}")
        run.cancel(Cancelled("cancelled by request"))  # it may not have begun to execute
        record = await ended(app, run.id)
        assert (record.status, record.error) == ("cancelled", "cancelled by request")


async def test_an_enqueued_run_is_checked_before_it_is_taken(tmp_path: Path, state: Path) -> None:
    (go,) = files(tmp_path, "go")
    async with app_of(ONE_SLOT + "  max_queue: 1\n", tmp_path, state=state) as app:
        with pytest.raises(InvalidInput):
            await enqueue(app, {"promt": "x"})
        await app.pool.until(app.ready)
        runs = [await enqueue(app, f"wait:{go}")]
        await eventually(lambda: app.status()[0].active == 1, "one runs")
        runs.append(await enqueue(app, f"wait:{go}"))
        await eventually(lambda: app.status()[0].waiting == 1, "one waits")
        with pytest.raises(Overloaded):
            await enqueue(app, "one too many")
        assert len(_rows(state)) == 2
        go.touch()
        for run in runs:
            assert (await ended(app, run.id)).status == "completed"


async def test_of_a_burst_no_more_runs_are_taken_than_the_model_has_room_for(
    tmp_path: Path, state: Path
) -> None:
    (go,) = files(tmp_path, "go")
    async with app_of(ONE_SLOT + "  max_queue: 3\n", tmp_path, state=state) as app:
        await app.pool.until(app.ready)
        runs = await asyncio.gather(*(enqueue(app, f"wait:{go}") for _ in range(20)), return_exceptions=True)
        taken = [run for run in runs if isinstance(run, Run)]
        assert len(taken) == 4  # one runs, three wait
        assert all(isinstance(run, Overloaded) for run in runs if run not in taken)
        go.touch()
        for run in taken:
            assert (await ended(app, run.id)).status == "completed"


async def fill(app: App, full: bool) -> None:
    """Let the disk be full, or have room again."""
    assert app._store is not None
    pages = 1 if full else 1 << 20
    await app._store._do(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchall())


async def test_a_run_that_finds_the_disk_full_is_refused_and_forgotten(tmp_path: Path, state: Path) -> None:
    async with app_of(ECHO, tmp_path, state=state) as app:
        await fill(app, True)
        with pytest.raises(ServiceError, match="full"):
            await enqueue(app, "x" * 100_000)
        assert app._runs == {}
        assert (await run_of(app, "somebody waits")).status == "completed"
        await fill(app, False)
        run = await enqueue(app, "hello")
        assert (await ended(app, run.id)).output == "hello"


async def test_a_run_that_ends_while_the_disk_is_full_can_be_asked_for(
    tmp_path: Path, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (go,) = files(tmp_path, "go")
    async with app_of(ECHO, tmp_path, state=state) as app:
        run = await enqueue(app, f"wait:{go} chunks:30000")
        await fill(app, True)
        go.touch()
        await run.wait()
        await eventually(lambda: "full" in caplog.text, "it is told in the log")
        record = await app.record(run.id)
        assert record.status == "completed"
        assert record.output.endswith("29999 ")
    assert "never retrieved" not in caplog.text


async def test_expiry_goes_on_after_the_store_has_failed(
    tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_compose.compose.app.EXPIRE_EVERY_S", 0.02)
    expire, failures = RunStore.expire, [ServiceError("the disk is away")] * 2

    async def fails_twice(self: RunStore, before: float) -> int:
        if failures:
            raise failures.pop()
        return await expire(self, before)

    monkeypatch.setattr(RunStore, "expire", fails_twice)
    async with app_of(f"controller: {{task_ttl: 50ms}}\n{ECHO}", tmp_path, state=state) as app:
        await (await enqueue(app, "hello")).wait()
        await eventually(lambda: _rows(state) == {}, "it is forgotten")
        assert failures == []


async def test_finished_runs_expire(tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_compose.compose.app.EXPIRE_EVERY_S", 0.02)
    async with app_of(f"controller: {{task_ttl: 50ms}}\n{ECHO}", tmp_path, state=state) as app:
        run = await enqueue(app, "hello")
        await run.wait()
        await eventually(lambda: _rows(state) == {}, "it is forgotten")
        with pytest.raises(NotFound):
            await app.record(run.id)


# Across a restart


async def test_a_finished_run_can_be_asked_for_after_a_restart(tmp_path: Path, state: Path) -> None:
    async with app_of(ECHO, tmp_path, state=state) as app:
        run = await enqueue(app, "hello")
        await ended(app, run.id)
    async with app_of(ECHO, tmp_path, state=state) as app:
        assert (await app.record(run.id)).output == "hello"


async def test_queued_runs_run_after_a_restart_and_begun_ones_are_interrupted(
    tmp_path: Path, state: Path
) -> None:
    begun, go = files(tmp_path, "begun", "go")
    async with app_of(ONE_SLOT, tmp_path, state=state) as app:
        first = await enqueue(app, f"touch:{begun} wait:{go}")
        await eventually(begun.exists, "the first has begun")
        queued = [await enqueue(app, {"prompt": f"run {i}", "seed": i}) for i in range(3)]
    go.touch()
    async with app_of(ONE_SLOT, tmp_path, state=state) as app:
        record = await ended(app, first.id)
        assert (record.status, record.error_type) == ("failed", "interrupted")
        for i, run in enumerate(queued):
            record = await ended(app, run.id)
            assert (record.status, record.output) == ("completed", f"run {i}")
            assert record.created == run.created


async def test_runs_that_were_taken_run_after_a_restart_however_many_wait(
    tmp_path: Path, state: Path
) -> None:
    begun, go = files(tmp_path, "begun", "go")
    async with app_of(ONE_SLOT, tmp_path, state=state) as app:
        await enqueue(app, f"touch:{begun} wait:{go}")
        await eventually(begun.exists, "the first has begun")
        queued = [await enqueue(app, f"run {i}") for i in range(5)]
    go.touch()
    async with app_of(ONE_SLOT + "  max_queue: 1\n", tmp_path, state=state) as app:
        records = [await ended(app, run.id) for run in queued]
    assert [record.output for record in records] == [f"run {i}" for i in range(5)]


async def test_a_stored_run_that_cannot_be_read_is_told(tmp_path: Path, state: Path) -> None:
    store = RunStore(state / "runs.sqlite")
    await store.add(StoredRun(RunRecord(task_id="1", workflow_id="w", status="pending"), "x"))
    await store._do(lambda db: db.execute("UPDATE runs SET record = x'ff'"))
    with pytest.raises(ServiceError, match="cannot be used"):
        await store.unfinished()
    await store.close()


GATEWAY = """
import asyncio, sys
from pathlib import Path
from tests.compose.apps import app_of
from tests.runtime.pools import eventually

async def main(text, folder, state, begun, go):
    async with app_of(text, Path(folder), state=Path(state)) as app:
        await app.enqueue(app.workflow(None), f"touch:{begun} wait:{go}")
        await eventually(Path(begun).exists, "the first has begun")
        await eventually(lambda: list(app._runs.values())[0].status == "processing", "noted")
        for i in range(2):
            await app.enqueue(app.workflow(None), f"run {i}")
        await eventually(lambda: app.status()[0].waiting == 2, "the others wait")
        print("ready", flush=True)
        await asyncio.sleep(1000)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.process
async def test_runs_survive_a_service_that_is_killed(tmp_path: Path, state: Path) -> None:
    begun, go = files(tmp_path, "begun", "go")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", GATEWAY, ONE_SLOT, *map(str, (tmp_path, state, begun, go))),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 30) == b"ready\n"
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    go.touch()
    stored = _rows(state)
    assert sorted(stored.values()) == ["pending", "pending", "processing"]
    async with app_of(ONE_SLOT, tmp_path, state=state) as app:
        records = [await ended(app, task_id) for task_id in sorted(stored)]
    assert [record.status for record in records] == ["failed", "completed", "completed"]
    assert records[0].error_type == "interrupted"
    assert [record.output for record in records[1:]] == ["run 0", "run 1"]


async def test_a_queued_run_whose_workflow_is_gone_fails(tmp_path: Path, state: Path) -> None:
    begun, never = files(tmp_path, "begun", "never")
    async with app_of(ONE_SLOT, tmp_path, state=state) as app:
        await enqueue(app, f"touch:{begun} wait:{never}")
        await eventually(begun.exists, "the first has begun")
        run = await enqueue(app, "late")
    other = ECHO + "workflow: {id: other, jobs: [{id: j, component: echo}]}\n"
    async with app_of(other, tmp_path, state=state) as app:
        record = await ended(app, run.id)
        assert (record.status, record.error_type) == ("failed", "not_found")


async def test_a_run_that_completes_while_the_service_stops_is_stored_as_complete(
    tmp_path: Path, state: Path
) -> None:
    async with app_of(ECHO, tmp_path, state=state) as app:
        await app.pool.until(app.ready)
        runs = [await enqueue(app, f"run {i}") for i in range(30)]
        await eventually(lambda: sum(run.status == "completed" for run in runs) >= 5, "some are complete")
    told = {run.id: run.status for run in runs}
    async with app_of(ECHO, tmp_path, state=state) as app:
        for run in runs:
            record = await ended(app, run.id)
            if told[run.id] == "completed":
                assert record.status == "completed"
            assert record.status in ("completed", "failed")
            assert record.status == "completed" or record.error_type == "interrupted"


# The store itself


async def test_a_store_gives_back_what_it_was_given(state: Path) -> None:
    store = RunStore(state / "runs.sqlite")
    record = RunRecord(task_id="1", workflow_id="w", status="pending", created=1.5)
    given = {"prompt": "héllo", "list": [1, None, 2.5], "bytes": b"\x00\xff"}
    await store.add(StoredRun(record, given))
    assert await store.unfinished() == [StoredRun(record, given)]
    done = RunRecord(task_id="1", workflow_id="w", status="completed", output={"a": [1]}, finished=2.0)
    await store.update(done)
    assert await store.get("1") == done
    assert await store.unfinished() == []
    assert await store.get("2") is None
    assert await store.expire(2.0) == 0
    assert await store.expire(2.1) == 1
    assert await store.get("1") is None
    await store.close()


async def test_the_input_of_a_run_that_has_ended_is_forgotten(state: Path) -> None:
    store = RunStore(state / "runs.sqlite")
    await store.add(StoredRun(RunRecord(task_id="1", workflow_id="w", status="pending"), "a secret"))
    await store.update(RunRecord(task_id="1", workflow_id="w", status="completed", finished=1.0))
    await store.close()
    connection = sqlite3.connect(state / "runs.sqlite")
    assert connection.execute("SELECT input FROM runs").fetchall() == [(b"",)]
    connection.close()


async def test_runs_are_taken_up_in_the_order_in_which_they_came(state: Path) -> None:
    store = RunStore(state / "runs.sqlite")
    for i in (3, 1, 2):
        await store.add(StoredRun(RunRecord(task_id=f"{i}", workflow_id="w", status="pending"), i))
    assert [stored.input for stored in await store.unfinished()] == [1, 2, 3]
    await store.close()


def _rows(state: Path) -> dict[str, str]:
    connection = sqlite3.connect(state / "runs.sqlite")
    try:
        return dict(connection.execute("SELECT id, status FROM runs").fetchall())
    finally:
        connection.close()
