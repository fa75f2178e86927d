"""Do models that do not fit on the cores together take turns, and does each of them get on?"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.pools import echo, eventually, files, running, settled, stopped

from model_compose.drivers.contract import Outcome

pytestmark = pytest.mark.process


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


async def test_two_that_are_busy_take_turns_and_never_compute_together(tmp_path: Path) -> None:
    (go,) = files(tmp_path, "go")
    async with running(echo("a", threads=2), echo("b", threads=2), cores=2) as models:
        pids = [(await models.load(name)).pid for name in "ab"]
        calls = [models.ask(f"wait:{go}", name) for name in "ab"]
        await eventually(lambda: any(map(stopped, pids)), "one of them is paused")
        ran, together, looks = [0, 0], 0, 300
        for _ in range(looks):
            running_now = [not stopped(pid) for pid in pids]
            ran = [count + now for count, now in zip(ran, running_now, strict=True)]
            together += all(running_now) and not any(map(stopped, pids))
            await asyncio.sleep(0.002)
        # A signal reaches a process that waits for a core a moment later.
        assert together < 0.1 * looks
        assert min(ran) > 0.2 * looks, "both get on"
        go.touch()
        assert all(isinstance(end, Outcome) for end in await settled(calls))
        await eventually(lambda: not any(map(stopped, pids)), "nobody is left paused")


async def test_quick_calls_to_both_are_answered_while_they_take_turns(tmp_path: Path) -> None:
    (go,) = files(tmp_path, "go")
    async with running(echo("a", threads=2), echo("b", threads=2), cores=2) as models:
        await models.load("a")
        await models.load("b")
        long = models.ask(f"wait:{go}", "a")
        for i in range(10):
            assert await asyncio.wait_for(models.answer(f"{i}", "b"), 5) == f"{i}"
        go.touch()
        assert (await long.outcome()).result.text == f"wait:{go}"


async def test_one_alone_is_never_paused(tmp_path: Path) -> None:
    (go,) = files(tmp_path, "go")
    async with running(echo("a", threads=2), echo("b", threads=2), cores=2) as models:
        pids = [(await models.load(name)).pid for name in "ab"]
        call = models.ask(f"wait:{go}", "a")
        for _ in range(100):
            assert not any(map(stopped, pids))
            await asyncio.sleep(0.002)
        go.touch()
        await call.outcome()


async def test_a_death_in_its_turn_gives_the_cores_to_the_other(tmp_path: Path) -> None:
    (go,) = files(tmp_path, "go")
    async with running(echo("a", threads=2), echo("b", threads=2), cores=2) as models:
        pids = [(await models.load(name)).pid for name in "ab"]
        calls = [models.ask(f"wait:{go}", name) for name in "ab"]
        await eventually(lambda: any(map(stopped, pids)), "one of them is paused")
        models.worker("a").kill()
        await eventually(lambda: models.pool.error("a") is not None, "the death is noticed")
        await eventually(lambda: not stopped(pids[1]), "b runs")
        go.touch()
        assert isinstance((await settled(calls[1:]))[0], Outcome)
        assert isinstance((await settled(calls[:1]))[0], Outcome)  # by the next worker


async def test_a_pool_closes_while_one_is_paused(tmp_path: Path) -> None:
    (never,) = files(tmp_path, "never")
    async with running(echo("a", threads=2), echo("b", threads=2), cores=2) as models:
        pids = [(await models.load(name)).pid for name in "ab"]
        for name in "ab":
            models.ask(f"wait:{never}", name)
        await eventually(lambda: any(map(stopped, pids)), "one of them is paused")
        began = asyncio.get_running_loop().time()
        await models.pool.close()
        assert asyncio.get_running_loop().time() - began < 4, "kindly, not by the end of the grace"
