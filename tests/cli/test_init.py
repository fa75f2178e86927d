from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from model_compose.cli.init import _STARTERS
from model_compose.cli.main import commands
from model_compose.compose.catalog import BuiltIn
from model_compose.config.environment import Environment
from model_compose.config.project import load_project

TASKS = sorted(_STARTERS)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(commands(), ["init", *words])
    return done.exit_code, done.output


@pytest.mark.parametrize("task", TASKS)
def test_a_starter_file_is_right_and_says_what_to_try(task: str) -> None:
    code, said = init("--task", task)
    assert code == 0
    project = load_project([], Environment({}), BuiltIn())
    (component,) = project.components.values()
    assert component.config.task == task
    assert f"model-compose run -i '{_STARTERS[task].example}'" in said


@pytest.mark.parametrize("task", TASKS)
def test_what_a_starter_file_says_in_comments_is_right_too(task: str, folder: Path) -> None:
    init("--task", task, "starter.yml")
    text = "\n".join(_uncommented((folder / "starter.yml").read_text().splitlines()))
    assert {*yaml.safe_load(text)} == {"components", "controller", "workflows"}
    (folder / "everything.yml").write_text(text)
    project = load_project([Path("everything.yml")], Environment({}), BuiltIn())
    assert list(project.workflows) == ["my-workflow"]
    (component,) = project.components.values()
    assert not component.actions[0].synthesised


def _uncommented(lines: list[str]) -> Iterator[str]:
    """The lines with the settings that are commented out, but for the other model."""
    for line in lines:
        indent, _, comment = line.partition("# ")
        key = comment.partition(":")[0].strip(" -")
        is_setting = key.isidentifier() and key not in ("model", "repository", "filename")
        yield indent + comment if is_setting and not indent.strip() else line


def test_a_file_is_never_overwritten(folder: Path) -> None:
    (folder / "model-compose.yml").write_text("mine")
    code, said = init()
    assert code == 1
    assert "`model-compose.yml` is there already" in said
    assert (folder / "model-compose.yml").read_text() == "mine"


def test_an_unknown_task_is_refused() -> None:
    code, said = init("--task", "chat")
    assert code == 2
    assert "'chat-completion'" in said
