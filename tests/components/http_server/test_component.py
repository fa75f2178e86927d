from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.components.http_server.servers import file, free_port, start
from tests.compose.apps import Seen, app_of, output_of
from tests.compose.apps import start as begin
from tests.runtime.pools import eventually, gone

from model_compose.components.http_server import component
from model_compose.components.streams import Stream
from model_compose.compose.app import App
from model_compose.errors import ModelComposeError, ModelUnavailable, TimedOut
from model_compose.runtime.model import State
from model_compose.runtime.pool import ComponentStatus

pytestmark = pytest.mark.process

CHECK = {"path": "/health", "interval": "10ms"}


class States(Seen):
    """Remembers the states that components had."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[State] = []

    def changed(self, component: str, state: State) -> None:
        self.states.append(state)


@contextlib.asynccontextmanager
async def serving(text: str, folder: Path, **keys: Any) -> AsyncIterator[App]:
    """An app whose server is as it will be."""
    async with app_of(text, folder, **keys) as app:
        await asyncio.wait_for(app.until(app.settled), 60)
        yield app


def status(app: App) -> ComponentStatus:
    return app.component("it").status()


async def failed(app: App) -> ModelComposeError:
    await asyncio.wait_for(app.until(lambda: bool(app.failed())), 60)
    error = app.component("it").error()
    assert error is not None
    return error


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are short."""
    monkeypatch.setattr(component, "FIRST_BACKOFF_S", 0.01)
    monkeypatch.setattr(component, "LOOK_S", 0.02)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The state folder of a service."""
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


@pytest.fixture
def run() -> Iterator[Callable[[int], subprocess.Popen[bytes]]]:
    """Starts servers that are not ours, and ends them after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start_one(port: int) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(start(port)))
        return started[-1]

    yield start_one
    for each in started:
        each.kill()
        each.wait()


async def test_a_server_is_started_called_and_ended_with_all_that_it_started(tmp_path: Path) -> None:
    seen = States()
    async with serving(file(free_port(), "parent"), tmp_path, observer=seen) as app:
        assert app.ready()
        assert seen.states == ["loading", "ready"]
        assert await output_of(app, {"text": "hello"}, "echo") == {"said": "hello"}
        pids = await output_of(app, {}, "pid")
        assert status(app).pid == pids["pid"]
        assert os.getpgid(pids["child"]) == pids["pid"]
    assert gone(pids["pid"])
    await eventually(lambda: gone(pids["child"]), "the child ended")


async def test_it_runs_where_the_file_says_with_the_variables_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    text = file(free_port(), env={"TOLD": "this"}, working_dir="below")
    async with serving(text, tmp_path) as app:
        said = await output_of(app, {}, "env")
    assert said == {"told": "this", "folder": str(tmp_path / "below")}


async def test_a_health_check_decides_when_it_is_ready(tmp_path: Path) -> None:
    async with serving(file(free_port(), "sick=3", healthcheck=CHECK), tmp_path) as app:
        assert app.ready()
        assert await output_of(app, {}, "asked") == {"asked": 4}


@pytest.mark.parametrize(
    ("how", "keys", "told"),
    [
        (("silent",), {}, "nothing listens"),
        (
            ("sick=1000000",),
            {"healthcheck": {"path": "/health", "interval": "10ms"}},
            "`/health` answered 503",
        ),
    ],
)
async def test_one_that_is_never_ready_has_failed_after_a_while(
    how: tuple[str, ...], keys: dict[str, Any], told: str, tmp_path: Path
) -> None:
    text = file(free_port(), *how, start_timeout="1500ms", **keys)
    async with app_of(text, tmp_path) as app:
        error = await failed(app)
        assert told in str(error)
        assert "within 1.5 s" in str(error)
        assert status(app).pid is None
        with pytest.raises(ModelUnavailable, match="`it` has failed"):
            await output_of(app, {}, "pid")


async def test_one_that_ends_before_it_is_ready_has_failed_at_once_with_its_last_words(
    tmp_path: Path,
) -> None:
    (tmp_path / "ill").touch()
    async with app_of(file(free_port(), f"mortal={tmp_path / 'ill'}"), tmp_path) as app:
        error = await failed(app)
    assert str(error) == (
        "the server of `it` ended with exit code 4 before it was ready; its last lines:\n  I was never well"
    )


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    async with app_of(file(free_port(), start=["no-such-program"]), tmp_path) as app:
        assert str(await failed(app)) == "`start` of `it` cannot run: there is no program `no-such-program`"


async def test_one_that_goes_into_the_background_is_told_to_stay(tmp_path: Path) -> None:
    async with app_of(file(free_port(), start="sleep 1000 &"), tmp_path) as app:
        error = await failed(app)
        assert error.hint == "`start` must stay in the foreground as long as the server runs"


@pytest.mark.usefixtures("quick")
async def test_one_that_dies_is_started_again_and_calls_wait_for_it(tmp_path: Path) -> None:
    async with serving(file(free_port()), tmp_path) as app:
        before = status(app).pid
        with pytest.raises(ModelComposeError):
            await output_of(app, {}, "die")
        await eventually(lambda: status(app).state != "ready", "it is known that it died")
        assert "exit code 3" in str(status(app).error)
        assert "the end is near" in str(status(app).error)
        pids = await output_of(app, {}, "pid")
        assert pids["pid"] != before
        assert status(app).error is None


@pytest.mark.usefixtures("quick")
async def test_one_that_dies_again_and_again_is_given_up(tmp_path: Path) -> None:
    seen = States()
    async with serving(file(free_port()), tmp_path, observer=seen) as app:
        for _ in range(component.MAX_CRASHES):
            with contextlib.suppress(ModelComposeError):
                await output_of(app, {}, "die")
            await eventually(lambda: status(app).state != "ready", "it is known that it died")
        assert "the end is near" in str(await failed(app))
        assert seen.states == ["loading", "ready"] * component.MAX_CRASHES + ["loading", "failed"]
        app.component("it").restart()  # by hand it is
        assert (await output_of(app, {}, "pid"))["pid"] == status(app).pid


@pytest.mark.usefixtures("quick")
async def test_one_that_cannot_be_started_again_is_given_up(tmp_path: Path) -> None:
    async with serving(file(free_port(), f"mortal={tmp_path / 'ill'}"), tmp_path) as app:
        (tmp_path / "ill").touch()
        with contextlib.suppress(ModelComposeError):
            await output_of(app, {}, "die")
        assert "I was never well" in str(await failed(app))


async def test_one_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    async with serving(file(free_port(), "stubborn", "parent", stop_timeout="200ms"), tmp_path) as app:
        pids = await output_of(app, {}, "pid")
    assert gone(pids["pid"])
    await eventually(lambda: gone(pids["child"]), "the child was killed")


async def test_one_that_listens_already_is_used_and_left_alone(
    tmp_path: Path, run: Callable[[int], subprocess.Popen[bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    theirs = run(port)
    with caplog.at_level(logging.INFO):
        async with app_of(file(port, start=None), tmp_path) as app:  # without `start` it is waited for
            await asyncio.wait_for(app.until(app.ready), 60)
        async with serving(file(port, start=["false"]), tmp_path) as app:
            assert (await output_of(app, {}, "pid"))["pid"] == theirs.pid
            assert status(app).pid is None
            info = status(app).info
            assert info is not None
            assert info.details["server"] == "not ours"
            app.component("it").restart()
            assert (await output_of(app, {}, "pid"))["pid"] == theirs.pid
    assert "listens on port" in caplog.text
    assert theirs.poll() is None


@pytest.mark.usefixtures("quick")
async def test_one_that_is_not_ours_and_goes_away_is_waited_for(
    tmp_path: Path, run: Callable[[int], subprocess.Popen[bytes]]
) -> None:
    port = free_port()
    theirs = run(port)
    async with app_of(file(port, start=None), tmp_path) as app:
        await asyncio.wait_for(app.until(app.ready), 60)
        theirs.kill()
        theirs.wait()
        await asyncio.wait_for(app.until(lambda: not app.ready()), 60)
        again = run(port)
        assert (await output_of(app, {}, "pid"))["pid"] == again.pid


async def test_it_can_be_stopped_and_started_by_hand(tmp_path: Path) -> None:
    async with serving(file(free_port()), tmp_path) as app:
        it, first = app.component("it"), status(app).pid
        assert first is not None
        it.stop()
        with pytest.raises(ModelUnavailable, match="`it` is stopped"):
            await output_of(app, {}, "pid")
        await asyncio.wait_for(app.until(lambda: status(app).state == "unloaded"), 60)
        assert gone(first)
        it.restart()
        it.stop()
        it.restart()
        second = (await output_of(app, {}, "pid"))["pid"]
        it.restart()
        third = (await output_of(app, {}, "pid"))["pid"]
        assert len({first, second, third}) == 3
        assert gone(second)


async def test_calls_that_it_has_are_served_before_it_is_restarted(tmp_path: Path) -> None:
    go = tmp_path / "go"
    async with serving(file(free_port(), f"wait={go}"), tmp_path) as app:
        before = status(app).pid
        call = asyncio.create_task(output_of(app, {"text": "first"}, "echo"))
        await eventually(lambda: status(app).active == 1, "it has the call")
        app.component("it").restart()
        later = asyncio.create_task(output_of(app, {"text": "later"}, "echo"))
        await eventually(lambda: status(app).waiting == 1, "another one waits")
        assert status(app).pid == before
        go.touch()
        assert await call == {"said": "first"}
        assert await later == {"said": "later"}
        assert status(app).pid != before


async def test_on_demand_the_first_call_starts_it(tmp_path: Path) -> None:
    async with serving(file(free_port(), preload=False), tmp_path) as app:
        assert app.ready()
        assert status(app).state == "unloaded"
        assert (await output_of(app, {}, "pid"))["pid"] == status(app).pid


async def test_a_call_waits_no_longer_than_its_timeout(tmp_path: Path) -> None:
    text = file(free_port(), "silent", actions=[{"id": "pid", "path": "/pid", "timeout": "50ms"}])
    text = text.replace('"workflows": [', '"x-none": [')
    async with app_of(text, tmp_path) as app:
        with pytest.raises(TimedOut, match="was not ready before"):
            await output_of(app, {})


async def test_no_more_calls_run_at_once_than_the_file_allows(tmp_path: Path) -> None:
    go = tmp_path / "go"
    text = file(free_port(), f"wait={go}", max_concurrent_count=1)
    async with serving(text, tmp_path) as app:
        calls = [asyncio.create_task(output_of(app, {"text": str(i)}, "echo")) for i in range(3)]
        await eventually(lambda: status(app).active == 3, "all have come")
        go.touch()
        assert await asyncio.gather(*calls) == [{"said": str(i)} for i in range(3)]


async def test_a_stream_that_is_closed_is_no_call_any_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with serving(file(free_port()), tmp_path) as app:
            run, stream = await begin(app, {}, "pieces", streaming=True)
            assert isinstance(stream, Stream)
            pieces = run.follow(stream)
            assert (await anext(pieces))[0] == "0 "
            assert status(app).active == 1
            await pieces.aclose()
            await eventually(lambda: status(app).active == 0, "the call is over")
            await eventually(lambda: "nobody reads any more" in caplog.text, "the server knows")


async def test_what_it_prints_is_logged_under_its_name_and_kept_in_a_file_without_secrets(
    tmp_path: Path, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = file(free_port(), env={"TOLD": "a word", "MY_TOKEN": "hf_abcdef"})
    with caplog.at_level(logging.INFO):
        async with serving(text, tmp_path, state=state):
            pass
    line = "TOLD is a word, TOKEN is ***"
    assert line in (state / "logs" / "it.log").read_text().splitlines()
    record = next(each for each in caplog.records if each.getMessage() == line)
    assert vars(record)["component"] == "it"
    assert "hf_abcdef" not in caplog.text


async def test_a_flood_of_lines_stops_neither_the_server_nor_the_log(
    tmp_path: Path, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with serving(file(free_port(), "flood=300000"), tmp_path, state=state) as app:
            assert app.ready()
    assert (state / "logs" / "it.log").read_text().count("\n") == 300_001
    assert len(caplog.records) < 5000
    assert "lines are not shown: they came too fast; they are in" in caplog.text


async def test_memory_is_that_of_all_its_processes(tmp_path: Path) -> None:
    async with serving(file(free_port(), "parent"), tmp_path) as app:
        await eventually(lambda: bool(status(app).memory), "its memory is known")
        pids = await output_of(app, {}, "pid")
        rss = sum(psutil.Process(pid).memory_info().rss for pid in pids.values())
        assert abs(status(app).memory["host"] - rss) < rss / 2


# What is run before


def marked(name: str, code: int = 0) -> str:
    """A command that leaves a trace each time that it runs."""
    return f"echo ran >> {name}; echo {name} says hello; exit {code}"


def count(path: Path) -> int:
    return path.read_text().count("ran") if path.exists() else 0


async def test_it_is_installed_and_built_once_until_the_commands_change(
    tmp_path: Path, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys: dict[str, Any] = {"install": [["sh", "-c", marked("a")], ["sh", "-c", marked("b")]]}
    keys["manage"] = {"build": marked("c")}
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            async with serving(file(free_port(), **keys), tmp_path, state=state) as app:
                assert app.ready()
    assert [count(tmp_path / name) for name in "abc"] == [1, 1, 1]
    assert "install (2 of 2): sh -c: echo ran >> b" in caplog.text
    assert "b says hello" in caplog.text
    keys["install"] = marked("a")
    async with serving(file(free_port(), **keys), tmp_path, state=state):
        pass
    assert [count(tmp_path / name) for name in "abc"] == [2, 1, 1]


async def test_what_cannot_be_built_has_failed_and_is_built_again_next_time(tmp_path: Path) -> None:
    for number in (1, 2):
        async with app_of(file(free_port(), build=marked("a", 7)), tmp_path) as app:
            assert str(await failed(app)) == (
                "`build` of `it` ended with exit code 7; its last lines:\n  a says hello"
            )
        assert count(tmp_path / "a") == number


async def test_what_can_be_installed_only_by_a_server_that_runs_is_installed_then(tmp_path: Path) -> None:
    port = free_port()
    install = (
        f"echo ran >> tries; python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", {port}))'"
    )
    for _ in range(2):
        async with serving(file(port, install=install), tmp_path) as app:
            assert (await output_of(app, {}, "pid"))["pid"] == status(app).pid
    assert count(tmp_path / "tries") == 2, "once before the server, once when it ran, and never again"


async def test_what_cannot_be_installed_even_then_has_failed(tmp_path: Path) -> None:
    async with app_of(file(free_port(), install=marked("a", 1)), tmp_path) as app:
        assert "`install` of `it` ended with exit code 1" in str(await failed(app))
        assert status(app).pid is None
        assert count(tmp_path / "a") == 2


async def test_an_installation_that_is_not_waited_for_is_ended(tmp_path: Path) -> None:
    async with app_of(file(free_port(), install="echo $$ > pid; sleep 1000"), tmp_path) as app:
        written = tmp_path / "pid"
        await eventually(lambda: written.exists() and bool(written.read_text()), "it runs")
        await eventually(lambda: str(status(app)) == "loading install", "it says so")
        pid = int(written.read_text())
    await eventually(lambda: gone(pid), "it ended")


async def test_the_service_can_be_killed_and_leaves_nothing(tmp_path: Path) -> None:
    code = """
import asyncio, sys
from pathlib import Path
from tests.components.http_server.servers import file
from tests.compose.apps import app_of, output_of

async def main():
    async with app_of(file(int(sys.argv[1]), "parent"), Path(sys.argv[2])) as app:
        pids = await output_of(app, {}, "pid")
        print(*pids.values(), flush=True)
        await asyncio.sleep(1000)

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", code, str(free_port()), str(tmp_path)),
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout is not None
    pids = [int(pid) for pid in (await asyncio.wait_for(process.stdout.readline(), 60)).split()]
    assert len(pids) == 2
    assert not any(map(gone, pids))
    process.send_signal(signal.SIGKILL)
    await process.wait()
    for pid in pids:
        await eventually(lambda pid=pid: gone(pid), f"process {pid} ended")  # type: ignore[misc]
