"""Is it seen how far a load is, from the download to the first answer?"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from tests.runtime.pools import echo, eventually, files, running

from model_compose.drivers.contract import LoadProgress
from model_compose.errors import SourceOffline
from model_compose.runtime.host import REPORT_EVERY_S, LoadReports
from model_compose.runtime.messages import Loading, ToGateway
from model_compose.runtime.model import LoadStage
from model_compose.runtime.pool import DOWNLOADING, ComponentStatus

ODD = "tests.runtime.odd_models"


@pytest.mark.process
@pytest.mark.parametrize("embedded", [False, True], ids=["a process", "embedded"])
async def test_a_status_says_how_far_the_load_is_until_it_is_over(tmp_path: Path, embedded: bool) -> None:
    (go,) = files(tmp_path, "go")
    async with running(echo(load_waits_for=str(go), embedded=embedded)) as models:
        models.pool.want("echo")
        await eventually(lambda: models.status().loading == LoadStage("weights", 2, 5), "it says so")
        assert str(models.status()) == "loading weights 40%"
        go.touch()
        await models.state("echo", "ready")
        assert models.status().loading is None
        assert str(models.status()) == "ready"
        assert models.seen.stages == [
            ("echo", LoadStage("weights", 2, 5)),
            ("echo", LoadStage("weights", 5, 5)),
        ]


@pytest.mark.process
async def test_a_driver_that_reports_thousands_of_times_from_a_thread_is_heard_a_few_times(
    tmp_path: Path,
) -> None:
    (go,) = files(tmp_path, "go")
    async with running(echo(implementation=f"{ODD}:Reporter", go=str(go))) as models:
        models.pool.want("echo")
        await eventually(lambda: str(models.status()) == "loading warm-up", "it warms up")
        stages = [stage for _, stage in models.seen.stages]
        assert stages[0] == LoadStage("weights", 0, 20_000)
        assert stages[-2:] == [LoadStage("weights", 20_000, 20_000), LoadStage("warm-up", 0, 1)]
        assert [stage.done for stage in stages[:-1]] == sorted(stage.done for stage in stages[:-1])
        assert len(stages) < 100
        go.touch()
        assert await models.answer("hello") == "hello"
        assert await models.answer("again") == "again"
        assert "too late" not in {stage.stage for _, stage in models.seen.stages}


@pytest.mark.process
async def test_the_next_load_begins_anew(tmp_path: Path) -> None:
    (go,) = files(tmp_path, "go")
    async with running(echo(load_waits_for=str(go))) as models:
        go.touch()
        await models.load()
        go.unlink()
        models.pool.release("echo", stay=False)
        models.pool.want("echo")
        await models.state("echo", "loading")
        await eventually(lambda: str(models.status()) == "loading weights 40%", "it loads again")
        go.touch()
        await models.state("echo", "ready")
        assert str(models.status()) == "ready"


async def test_a_download_is_shown_as_such_and_those_of_an_earlier_try_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_compose.runtime.scheduler.FIRST_BACKOFF_S", 0.01)
    go = threading.Event()
    tries: list[LoadProgress] = []

    def prepare(progress: LoadProgress) -> None:
        tries.append(progress)
        progress(DOWNLOADING, 0, 0)
        if len(tries) == 1:
            raise SourceOffline("no network")
        tries[0](DOWNLOADING, 90, 100)
        progress(DOWNLOADING, 404, 1000)
        go.wait(30)

    async with running(echo(prepare=prepare, embedded=True)) as models:
        models.pool.want("echo")
        await eventually(lambda: str(models.status()) == "downloading 40%", "it downloads")
        assert models.status().state == "loading"
        go.set()
        await models.state("echo", "ready")
        assert models.status().loading is None


@pytest.mark.parametrize(
    ("stage", "text"),
    [
        (LoadStage("weights", 2, 5), "loading weights 40%"),
        (LoadStage("weights", 9, 5), "loading weights 100%"),
        (LoadStage("warm-up", 0, 1), "loading warm-up"),
        (LoadStage(DOWNLOADING, 3, 0), "downloading"),
        (LoadStage(DOWNLOADING, 999, 1000), "downloading 99%"),
        (None, "loading"),
    ],
)
def test_a_stage_is_told_in_words(stage: LoadStage | None, text: str) -> None:
    assert str(ComponentStatus("a", "loading", {}, 0, 0, loading=stage)) == text


def test_each_stage_is_reported_at_its_ends_and_otherwise_now_and_then() -> None:
    now, sent = 0.0, list[ToGateway]()
    report = LoadReports(sent.append, lambda: now)
    for i in range(1001):
        now = i * REPORT_EVERY_S / 100
        report("weights", i, 1000)
        report("weights", i, 1000)
    report("warm-up", 0, 1)
    report("warm-up", 1, 1)
    told = [(message.stage, message.done) for message in sent if isinstance(message, Loading)]
    assert told[0] == ("weights", 0)
    assert told[-3:] == [("weights", 1000), ("warm-up", 0), ("warm-up", 1)]
    assert 9 <= len(told) <= 14
