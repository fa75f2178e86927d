from __future__ import annotations

import io
import logging
import os
import re
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from model_compose.cli.log import MOST_UNPRINTED, LogLine, LogText, Screen, as_json, file_handler
from model_compose.cli.main import commands
from model_compose.cli.state import StateFolder

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def record(
    message: str, name: str = "model_compose.x", level: int = logging.INFO, **extra: str
) -> logging.LogRecord:
    made = logging.LogRecord(name, level, "file", 1, "%s", (message,), None)
    made.__dict__.update(extra)
    return made


def without_time(text: str) -> str:
    return re.sub(r"\d\d:\d\d:\d\d", "TIME", text)


def test_a_record_says_what_it_is_about() -> None:
    assert LogLine.of(record("hello")).component is None
    assert LogLine.of(record("hello", component="chat", task_id="01")).component == "chat"
    assert LogLine.of(record("hello", component="chat", task_id="01")).task_id == "01"
    assert LogLine.of(record("hello", name="model_compose.worker.my.chat")).component == "my.chat"
    assert LogLine.of(record("oh", level=logging.WARNING)).level == "warning"


def test_a_traceback_goes_along() -> None:
    try:
        raise KeyError("lost")
    except KeyError:
        failed = record("oh")
        failed.exc_info = sys.exc_info()
    trace = LogLine.of(failed).trace
    assert trace is not None
    assert trace.startswith("Traceback")
    assert trace.endswith("KeyError: 'lost'")


def test_json_lines_come_back_as_they_were() -> None:
    line = LogLine(AT, "info", "two\nlines", "chat", "01", "trace")
    text = as_json(line)
    assert "\n" not in text
    assert msgspec.json.decode(text, type=LogLine) == line
    assert as_json(LogLine(AT, "info", "a")) == '{"time":"2026-01-02T03:04:05Z","level":"info","message":"a"}'


def test_text_has_a_column_of_names_and_marks_what_is_bad() -> None:
    form = LogText(io.StringIO(), ("chat",))
    lines = [
        LogLine(AT, "info", "ready", "chat"),
        LogLine(AT, "info", "two\nlines"),
        LogLine(AT, "warning", "careful", "chat"),
        LogLine(AT, "error", "broken", "a-longer-name", trace="Traceback\n  here"),
        LogLine(AT, "info", "ready", "chat"),
    ]
    assert [without_time(form(line)) for line in lines] == [
        "TIME chat    | ready",
        "TIME service | two\n                 | lines",
        "TIME chat    | warning: careful",
        "TIME a-longer-name | error: broken\n" + 23 * " " + "| Traceback\n" + 23 * " " + "|   here",
        "TIME chat          | ready",
    ]


def test_a_reader_that_has_gone_stops_nothing_but_the_printing() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    screen = Screen(Gone, as_json)
    root = logging.getLogger()
    root.addHandler(screen)
    screen.emit(record("hello"))
    screen.close()
    assert screen not in root.handlers


def test_a_reader_that_stops_reading_holds_up_nothing_but_the_printing() -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as reader, os.fdopen(write, "w") as pipe:
        screen = Screen(lambda: pipe, lambda line: line.message)
        given = 3 * MOST_UNPRINTED
        for number in range(given):
            screen.emit(record(f"line {number} " + "x" * 1000))
        threading.Thread(target=screen.close).start()
        shown, seen = [], 0
        while seen < given:
            shown.append(reader.readline().decode().split())
            seen += 1 if shown[-1][0] == "line" else int(shown[-1][0])
    places = [int(words[1]) for words in shown if words[0] == "line"]
    lost = [int(words[0]) for words in shown if words[0] != "line"]
    assert places[:MOST_UNPRINTED] == list(range(MOST_UNPRINTED))
    assert places == sorted(set(places))
    assert lost
    assert len(places) + sum(lost) == given


def test_a_screen_that_nobody_reads_is_closed_all_the_same() -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb"), os.fdopen(write, "w") as pipe:
        screen = Screen(lambda: pipe, lambda line: line.message)
        for number in range(500):
            screen.emit(record(f"{number} " + "x" * 1000))
        screen.close()
        assert not [thread for thread in threading.enumerate() if thread.name == "screen"]


# The command


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateFolder:
    monkeypatch.chdir(tmp_path)
    state = StateFolder(tmp_path / ".model-compose")
    with state.hold():
        pass
    return state


def logs(*words: str) -> list[str]:
    done = CliRunner().invoke(commands(), ["logs", *words])
    assert done.exit_code == 0
    return without_time(done.stdout).splitlines()


def write(state: StateFolder, *lines: LogLine) -> None:
    with state.log.open("a") as file:
        file.writelines(as_json(line) + "\n" for line in lines)


def test_the_last_lines_are_shown_of_all_files_in_their_order(state: StateFolder) -> None:
    for number, suffix in ((1, ".10"), (2, ".2"), (3, ".1"), (4, "")):
        path = state.log.with_name(state.log.name + suffix)
        path.write_text("".join(as_json(LogLine(AT, "info", f"{number}{n}")) + "\n" for n in "ab"))
    assert [line.split()[-1] for line in logs()] == ["1a", "1b", "2a", "2b", "3a", "3b", "4a", "4b"]
    assert [line.split()[-1] for line in logs("-n", "3")] == ["3b", "4a", "4b"]
    assert logs("-n", "0") == []


def test_lines_of_one_component_are_found_among_others(state: StateFolder) -> None:
    write(state, *(LogLine(AT, "info", str(n), name) for n, name in enumerate(("a", "b", None, "a", "b"))))
    assert [line.split()[-1] for line in logs("a")] == ["0", "3"]
    assert [line.split()[-1] for line in logs("-n", "1", "b")] == ["4"]
    assert [msgspec.json.decode(line)["message"] for line in logs("--json", "b")] == ["1", "4"]
    silent = CliRunner().invoke(commands(), ["logs", "c"])
    assert silent.exit_code == 0
    assert silent.stderr == "the log says nothing about `c`, only about `a`, `b`\n"


def test_half_a_line_of_a_killed_service_is_passed_over(state: StateFolder) -> None:
    write(state, LogLine(AT, "info", "whole"))
    with state.log.open("a") as file:
        file.write('{"time":"2026-')
    assert logs() == ["TIME service | whole"]
    assert logs("-f") == ["TIME service | whole"]


def test_following_goes_on_in_the_next_file_when_one_is_full(state: StateFolder) -> None:
    from model_compose.cli.logs import _coming

    handler = file_handler(state.log)
    handler.emit(record("first"))
    with state.log.open("rb") as file, state.hold():
        coming = _coming(file, state)
        assert b"first" in next(coming)
        handler.emit(record("second"))
        handler.doRollover()  # type: ignore[attr-defined]
        handler.emit(record("third"))
        assert b"second" in next(coming)
        assert b"third" in next(coming)
        coming.close()
    handler.close()
