from __future__ import annotations

import io
import sys
import threading

import pytest

from model_compose.cli.downloads import Bars, Both, Lines, Stages, shown_on
from model_compose.runtime.model import LoadStage


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def told(total: int | None, already: int, *steps: tuple[float, int]) -> list[str]:
    """What lines say of a download that advances by so much at such times."""
    clock, said = Clock(), list[str]()
    line = Lines(lambda component, text: said.append(f"{component}: {text}"), clock)("chat")
    line.start("weights", total, already)
    for at, n in steps:
        clock.now = at
        line.advance(n)
    line.finish()
    return said


def test_lines_tell_the_beginning_the_end_and_now_and_then_how_far_it_is() -> None:
    steps = [(second, 10_000_000) for second in range(1, 11)]
    assert told(100_000_000, 0, *steps) == [
        "chat: downloading `weights` (100 MB)",
        "chat: 50 % of 100 MB, 10.0 MB/s, 5 s left",
        "chat: 100 % of 100 MB, 10.0 MB/s, 0 s left",
        "chat: downloaded `weights` in 10 s",
    ]


def test_lines_count_what_was_there_and_do_not_count_it_as_speed() -> None:
    assert told(100, 60, (6, 20), (7, 20)) == [
        "chat: downloading `weights` (100 B, 60 B of it here already)",
        "chat: 80 % of 100 B, 3 B/s, 6 s left",
        "chat: downloaded `weights` in 7 s",
    ]


def test_a_download_that_begins_anew_or_breaks_off_is_not_called_done() -> None:
    assert told(100, 60, (6, -60), (7, 10)) == [
        "chat: downloading `weights` (100 B, 60 B of it here already)",
        "chat: 0 % of 100 B, 0 B/s",
    ]


def test_a_download_of_unknown_size_tells_how_much_has_come() -> None:
    assert told(None, 0, (10, 50_000)) == ["chat: downloading `weights`", "chat: 50.0 kB, 5.0 kB/s"]


@pytest.mark.parametrize("kind", ["a pipe", "a terminal that can do nothing"])
def test_only_a_real_terminal_gets_bars(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb" if kind != "a pipe" else "xterm")
    stream = io.StringIO() if kind == "a pipe" else Terminal()
    assert isinstance(shown_on(stream, lambda *_: None), Lines)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(shown_on(Terminal(), lambda *_: None), Bars)


def test_bars_of_several_threads_stay_on_the_screen_when_all_have_ended() -> None:
    screen = Terminal()
    bars = Bars(screen)
    before = sys.stdout

    def download(name: str) -> None:
        bar = bars(name)
        bar.start("weights", 1_000_000)
        for _ in range(10):
            bar.advance(100_000)
        bar.finish()

    threads = [threading.Thread(target=download, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = screen.getvalue()
    for name in ("a", "b", "c"):
        assert f"{name}  weights" in last
    assert "1.0/1.0 MB" in last
    assert sys.stdout is before


def test_a_screen_that_goes_away_does_not_disturb_a_download() -> None:
    screen = Terminal()
    bars = Bars(screen)
    bar = bars("a")
    bar.start("weights", 100)
    bars.close()
    screen.close()
    bar.advance(50)
    bar.finish()
    late = bars("b")
    late.start("weights", 100)
    late.advance(100)
    late.finish()
    assert screen.closed


def test_each_stage_of_a_load_is_told_once_and_a_long_one_now_and_then() -> None:
    clock, said = Clock(), list[str]()
    stages = Stages(lambda component, text: said.append(f"{component}: {text}"), clock)
    for second in range(12):
        clock.now = second
        stages("chat", LoadStage("weights", second, 12))
    stages("other", LoadStage("weights", 1, 2))
    for _ in range(2):
        stages("chat", LoadStage("warm-up", 0, 1))
    clock.now = 100
    stages("chat", LoadStage("warm-up", 0, 1))
    stages.over("chat")
    stages("chat", LoadStage("weights", 0, 12))
    assert said == [
        "chat: loading weights",
        "chat: loading weights 41%",
        "chat: loading weights 83%",
        "other: loading weights",
        "chat: loading warm-up",
        "chat: loading weights",
    ]


def test_one_download_can_be_shown_in_two_ways() -> None:
    first, second = list[str](), list[str]()
    show = Both(Lines(lambda _, text: first.append(text)), Lines(lambda _, text: second.append(text)))
    both = show("chat")
    both.start("weights", 10)
    both.advance(10)
    both.finish()
    assert first == second
    assert len(first) == 2
