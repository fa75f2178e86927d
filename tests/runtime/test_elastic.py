"""Do engines that can change their threads share the cores, and never take more than there are?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.runtime.pools import Models, echo, eventually, files, running

from model_compose.drivers.contract import Outcome
from model_compose.runtime import messages
from model_compose.runtime.call import Call
from model_compose.runtime.host import ModelHost
from model_compose.runtime.pool import ModelSetup
from model_compose.tasks.text_generation.spec import TextGeneration

pytestmark = pytest.mark.process

CORES = 4


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


class Diary:
    """What each engine computed with, one entry behind the other; 0 is idle."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "diary"
        self.path.touch()

    def __call__(self) -> list[tuple[str, int]]:
        return [(line.split()[0], int(line.split()[1])) for line in self.path.read_text().splitlines()]

    def now(self) -> dict[str, int]:
        return dict(self())

    def most(self) -> int:
        """The most threads that computed at any time."""
        now, most = dict[str, int](), 0
        for name, threads in self():
            now[name] = threads
            most = max(most, sum(now.values()))
        return most


def elastic(name: str, diary: Diary, **more: Any) -> ModelSetup:
    how = "tests.runtime.odd_models:Elastic"
    return echo(name, implementation=how, threads=CORES, who=name, diary=str(diary.path), **more)


async def said(call: Call) -> str:
    end: Outcome = await call.outcome()
    return str(end.result.text)


async def loaded(models: Models, *names: str) -> None:
    for name in names:
        await models.load(name)


async def test_one_that_is_alone_has_all_of_them(tmp_path: Path) -> None:
    diary = Diary(tmp_path)
    async with running(elastic("a", diary), elastic("b", diary), cores=CORES) as models:
        await loaded(models, "a", "b")
        for name in "ab":
            assert await models.answer("hello", name) == str(CORES)
        assert diary() == [("a", 4), ("a", 0), ("b", 4), ("b", 0)]


async def test_two_that_are_busy_share_them_and_the_last_one_gets_all_again(tmp_path: Path) -> None:
    diary, (go_a, go_b) = Diary(tmp_path), files(tmp_path, "go_a", "go_b")
    async with running(elastic("a", diary), elastic("b", diary), cores=CORES) as models:
        await loaded(models, "a", "b")
        a = models.ask(f"wait:{go_a}", "a")
        await eventually(lambda: diary.now() == {"a": 4}, "a has all")
        b = models.ask(f"wait:{go_b}", "b")
        await eventually(lambda: diary.now() == {"a": 2, "b": 2}, "they share")
        go_a.touch()
        assert await said(a) == "2"
        await eventually(lambda: diary.now() == {"a": 0, "b": 4}, "b has all")
        go_b.touch()
        assert await said(b) == "4"
        assert diary.most() == CORES


async def test_one_gives_way_to_an_engine_that_cannot_change(tmp_path: Path) -> None:
    diary, (go_a, go) = Diary(tmp_path), files(tmp_path, "go_a", "go")
    async with running(elastic("a", diary), echo("fixed", threads=3), cores=CORES) as models:
        await loaded(models, "a", "fixed")
        a = models.ask(f"wait:{go_a}", "a")
        await eventually(lambda: diary.now() == {"a": 4}, "a has all")
        fixed = models.ask(f"wait:{go}", "fixed")
        await eventually(lambda: diary.now() == {"a": 1}, "a has what is left")
        go.touch()
        await fixed.outcome()
        await eventually(lambda: diary.now() == {"a": 4}, "a has all again")
        go_a.touch()
        assert await said(a) == "4"


async def test_however_they_come_and_go_there_are_never_more_threads_than_cores(tmp_path: Path) -> None:
    diary = Diary(tmp_path)
    async with running(*(elastic(name, diary) for name in "abc"), cores=CORES) as models:
        await loaded(models, "a", "b", "c")
        calls = []
        for i in range(60):
            calls.append(models.ask("hello", "abc"[i % 3]))
            if i % 4 == 3:
                await said(calls[-1])
        threads = [int(await said(call)) for call in calls]
        assert {1, 2} & set(threads), "some shared"
        assert diary.most() <= CORES
        assert await models.answer("hello", "a") == str(CORES)


async def test_leases_are_taken_in_the_order_in_which_they_were_given(tmp_path: Path) -> None:
    """A small one takes this engine longer; a larger one behind it must not be undone by it."""
    diary, told = Diary(tmp_path), list[messages.ToGateway]()
    prepared = await elastic("a", diary).prepare(lambda stage, done, total: None)
    host = ModelHost(told.append)
    host.take(prepared.load)
    await eventually(lambda: bool(told), "it is loaded")
    request = messages.encoder.encode(TextGeneration(prompt="hello"))
    for message in (messages.Lease(1), messages.Lease(4), messages.Call(1, msgspec.Raw(request), False)):
        host.take(message)
    await eventually(lambda: isinstance(told[-1], messages.Done), "the call has ended")
    assert [message.threads for message in told if isinstance(message, messages.Leased)] == [1, 4]
    assert [threads for _, threads in diary()] == [0, 0, 4, 0]
    await host.close()
