"""The texts of `--help`, as files in `golden/`. After a wanted change: `UPDATE_GOLDEN=1 pytest ...`"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from model_compose.cli.main import commands

HelpOf = Callable[[str], str]

GOLDEN = Path(__file__).parent / "golden"
COMMANDS = (
    *("", "init", "check", "install", "pull", "up", "down", "ps", "logs", "run", "restart", "stop", "mcp"),
    *("cache", "cache ls", "cache rm", "merge", "schema", "version"),
)


@pytest.fixture
def help_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> HelpOf:
    monkeypatch.setenv("COLUMNS", "100")

    def help_of(command: str) -> str:
        with pytest.raises(SystemExit) as end:
            commands()([*command.split(), "--help"], prog_name="model-compose")
        assert end.value.code == 0
        return capsys.readouterr().out

    return help_of


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_is_as_it_was_read_last(command: str, help_of: HelpOf) -> None:
    golden = GOLDEN / f"{command.replace(' ', '-') or 'model-compose'}.txt"
    text = help_of(command)
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_every_command_is_listed_and_has_a_golden_text(help_of: HelpOf) -> None:
    section = help_of("").partition("Commands:\n")[2].partition("\n\n")[0]
    listed = {line.split()[0] for line in section.splitlines()}
    assert listed == {command.split()[0] for command in COMMANDS if command}
