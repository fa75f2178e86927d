from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_compose.cli import terminal
from model_compose.cli.terminal import columns, paint, span
from model_compose.errors import ConfigError, ConfigErrors, Note, Place


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


PLACE = Place("a.yml", 7, 3, 6, "  abc: 1")
ERROR = ConfigError("no `abc`", hint="write `abd`", place=PLACE, notes=[Note("it is used here", PLACE)])


def test_an_error_has_colours_on_a_terminal_and_the_same_text(screen: Terminal) -> None:
    terminal.say_error(ERROR, screen)
    coloured = screen.getvalue()
    assert "\x1b[1;31merror:\x1b[0m \x1b[1mno `abc`\x1b[0m\n" in coloured
    assert "\x1b[36mhint:\x1b[0m write `abd`" in coloured
    assert "\x1b[34mnote:\x1b[0m it is used here" in coloured
    assert "\x1b[1;31m   ^^^\x1b[0m" in coloured
    plain = io.StringIO()
    terminal.say_error(ERROR, plain)
    for code in ("1;31", "36", "34", "1", "0"):
        coloured = coloured.replace(f"\x1b[{code}m", "")
    assert coloured == plain.getvalue()


def test_nobody_gets_colours_who_does_not_want_them(
    screen: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert paint("text", "red", screen) == "\x1b[1;31mtext\x1b[0m"
    assert paint("", "red", screen) == ""
    assert paint("text", "red", io.StringIO()) == "text"
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint("text", "red", screen) == "text"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert paint("text", "red", screen) == "text"


def test_all_mistakes_of_a_file_are_coloured(screen: Terminal) -> None:
    terminal.say_error(ConfigErrors([ERROR, ERROR]), screen)
    assert screen.getvalue().count("\x1b[1;31merror:") == 2
    assert screen.getvalue().endswith("2 mistakes in the configuration\n")


def test_a_warning_looks_like_an_error_but_for_its_name(screen: Terminal) -> None:
    terminal.say_warning(Note("no token", PLACE), screen)
    assert screen.getvalue().startswith("\x1b[33mwarning:\x1b[0m no token\n")
    assert "--> a.yml:7:3" in screen.getvalue()


@given(st.lists(st.tuples(st.text("abc", max_size=9), st.text("abc", max_size=9)), min_size=1))
def test_columns_begin_at_the_same_place(rows: list[tuple[str, str]]) -> None:
    width = max(len(first) for first, _ in rows)
    for line, (first, second) in zip(columns(rows), rows, strict=True):
        assert line == f"{first:{width}}   {second}".rstrip()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2 h"), (3 * 86400, "3 d")],
)
def test_a_time_is_short_and_right(seconds: float, text: str) -> None:
    assert span(seconds) == text
