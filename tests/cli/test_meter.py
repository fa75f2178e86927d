from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from tests.cli.shell import ECHO, Shell
from tests.cli.test_downloads import Clock, Terminal
from tests.cli.test_terminal_process import seen

from model_compose.cli.meter import Meter

BAR = 24


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")


def lines(stream: io.StringIO) -> list[str]:
    """What stood on the last line, one after the other; the empty ones are where it was erased."""
    return stream.getvalue().split("\r\x1b[K")[1:]


def test_a_bar_grows_and_says_how_long_it_takes_and_goes_at_the_end() -> None:
    stream, clock = Terminal(), Clock()
    with Meter(stream, clock) as meter:
        for done in (1, 2, 12):
            clock.now += 10
            meter(done, 24)
        meter(24, 24)
    assert lines(stream) == [
        f"{'━' * 1}{'─' * 23} 1 of 24",
        f"{'━' * 2}{'─' * 22} 2 of 24, 220 s left".replace("220 s", "4 min"),
        f"{'━' * 12}{'─' * 12} 12 of 24, 22 s left",
        "",
    ]


def test_what_is_printed_between_does_not_stand_behind_the_bar() -> None:
    stream = Terminal()
    meter = Meter(stream, Clock())
    meter(1, 4)
    meter.clear()
    meter.clear()
    stream.write("text\n")
    with meter:
        meter(2, 4)
    said = [line[BAR + 1 :] for line in lines(stream)]
    assert said == ["1 of 4", "", "2 of 4, 0 s left", ""]
    assert stream.getvalue().count("text\n") == 1
    assert "\r\x1b[Ktext\n" in stream.getvalue()


def test_what_begins_anew_is_measured_anew() -> None:
    stream, clock = Terminal(), Clock()
    meter = Meter(stream, clock)
    for at, done in ((0, 1), (100, 3), (200, 1), (201, 2)):
        clock.now = at
        meter(done, 4)
    assert [line[BAR + 1 :] for line in lines(stream)] == [
        "1 of 4",
        "3 of 4, 50 s left",
        "1 of 4",
        "2 of 4, 2 s left",
    ]


def test_nothing_is_drawn_where_nobody_looks() -> None:
    stream = io.StringIO()
    with Meter(stream) as meter:
        meter(1, 2)
        meter(0, 0)
    assert stream.getvalue() == ""


@pytest.mark.process
def test_a_run_shows_its_steps_beside_its_result(shell: Shell, tmp_path: Path) -> None:
    shell.write(ECHO)
    _, drawn = seen(shell, "run", "-i", "steps:3")
    assert re.findall(r"\d of \d", drawn) == ["1 of 3", "2 of 3"]
    assert drawn.endswith("\r\x1b[Ksteps:3\n")
    done = shell("run", "-i", "steps:3")
    assert (done.stdout, done.stderr) == ("steps:3\n", "")
