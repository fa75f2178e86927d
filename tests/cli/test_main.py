from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest
from typer.testing import CliRunner, Result

from model_compose import __main__
from model_compose.about import __version__
from model_compose.cli import schema
from model_compose.cli.main import commands
from model_compose.errors import (
    BadRequest,
    ConfigError,
    ConfigErrors,
    InvalidInput,
    ModelComposeError,
    ModelLoadError,
    NotFound,
    ServiceError,
    SourceOffline,
    WorkerDied,
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def typed(*words: str) -> Result:
    return CliRunner().invoke(commands(), list(words))


def failing_with(error: BaseException, monkeypatch: pytest.MonkeyPatch, *before: str) -> Result:
    """A command that raises this."""

    def fail() -> None:
        raise error

    monkeypatch.setattr(schema, "version", fail)
    monkeypatch.setattr(fail, "__name__", "version")
    return typed(*before, "version")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigErrors([ConfigError("wrong"), ConfigError("wrong too")]), 2),
        (BadRequest("no JSON"), 2),
        (InvalidInput("no prompt"), 2),
        (NotFound("no such workflow"), 2),
        (ModelLoadError("no GGUF"), 1),
        (WorkerDied("it died"), 1),
        (ServiceError("no service"), 1),
        (SourceOffline("no network"), 1),
        (ModelComposeError("anything else"), 1),
        (KeyboardInterrupt(), 130),
        (PermissionError(13, "Permission denied", "a.txt"), 1),
        (ExceptionGroup("two", [ModelLoadError("one"), NotFound("other")]), 1),
    ],
)
def test_an_error_has_its_exit_code(error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    done = failing_with(error, monkeypatch)
    assert done.exit_code == code
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_errors_are_told_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    group = ExceptionGroup("two", [ModelLoadError("one", hint="try"), NotFound("other")])
    assert failing_with(group, monkeypatch).stderr == "error: one\n\nhint: try\n\nerror: other\n"


def test_what_the_system_refuses_is_told_with_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    denied = PermissionError(13, "Permission denied", "a.txt")
    assert failing_with(denied, monkeypatch).stderr == "error: Permission denied: `a.txt`\n"


def test_on_demand_an_error_shows_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    told = failing_with(ModelLoadError("no GGUF"), monkeypatch, "--verbose").stderr
    assert "Traceback" in told
    assert told.endswith("error: no GGUF\n")


def test_a_bug_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(failing_with(ZeroDivisionError(), monkeypatch).exception, ZeroDivisionError)
    mixed = ExceptionGroup("two", [ModelLoadError("one"), ZeroDivisionError()])
    assert isinstance(failing_with(mixed, monkeypatch).exception, ExceptionGroup)


@pytest.mark.parametrize(
    "words", [["no-such-command"], ["up", "--no-such-option"], ["restart"], ["up", "--log-format", "x"]]
)
def test_words_that_mean_nothing_are_mistakes_of_who_typed_them(words: list[str]) -> None:
    done = typed(*words)
    assert done.exit_code == 2
    assert done.stderr.startswith("Usage: ")


def test_a_command_that_is_nearly_right_is_suggested() -> None:
    assert "Did you mean 'check'" in typed("chekc").stderr


@pytest.mark.parametrize("words", [["--version"], ["version"]])
def test_the_version_is_told(words: list[str]) -> None:
    assert typed(*words).stdout == f"model-compose {__version__}\n"


def test_the_schema_is_printed_as_json() -> None:
    import msgspec

    schema = msgspec.json.decode(typed("schema").stdout)
    assert schema["title"] == "model-compose.yml"
    assert "component" in schema["properties"]


def test_ctrl_c_while_the_command_is_imported_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(ModuleType):
        def __getattr__(self, name: str) -> NoReturn:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "model_compose.cli.main", Interrupted("main"))
    with pytest.raises(SystemExit) as end:
        __main__.main()
    assert end.value.code == 130
