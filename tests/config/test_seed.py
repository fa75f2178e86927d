"""Is every file of the documentation that we follow judged as it should be?

What is not supported yet must be told as that, and nothing else about a block may be wrong: so each is
also checked with a catalog in which all tasks and drivers are there.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.config.seed_blocks import BLOCKS

from model_compose.compose.catalog import BuiltIn
from model_compose.config.environment import Environment
from model_compose.config.project import load_project
from model_compose.config.schema import Project
from model_compose.config.spec import Catalog, DriverSpec, TaskDriver
from model_compose.errors import ConfigErrors


class NoOptions(msgspec.Struct, kw_only=True):
    """It has none."""


class Everything(BuiltIn):
    """What there is, and the drivers that are to come."""

    def driver(self, name: str) -> DriverSpec | None:
        if name == "unsloth":
            tasks = dict.fromkeys(super().tasks(), TaskDriver("nowhere:Nothing"))
            return DriverSpec(name, name, NoOptions, tasks=tasks)
        return super().driver(name)


def project(text: str, folder: Path, catalog: Catalog) -> Project:
    (folder / "model-compose.yml").write_text(text, encoding="utf-8")
    return load_project([], Environment({}), catalog, folder=folder)


def told(text: str, folder: Path, catalog: Catalog) -> list[str]:
    try:
        project(text, folder, catalog)
    except ConfigErrors as errors:
        return [error.message for error in errors.errors]
    return []


def test_all_blocks_are_here() -> None:
    assert list(BLOCKS) == list(range(1, 46))


@pytest.mark.parametrize("number", BLOCKS)
def test_a_block_is_right_or_its_mistakes_are_told(number: int, tmp_path: Path) -> None:
    text, mistakes = BLOCKS[number]
    assert sorted(told(text, tmp_path, BuiltIn())) == sorted(mistakes)


@pytest.mark.parametrize("number", BLOCKS)
def test_a_block_is_right_once_its_task_and_driver_are_there(number: int, tmp_path: Path) -> None:
    text, mistakes = BLOCKS[number]
    expected = [each for each in mistakes if not each.startswith(("task `", "driver `"))]
    assert sorted(told(text, tmp_path, Everything())) == sorted(expected)


@pytest.mark.parametrize("number", range(30, 35))
def test_a_fragment_is_right_inside_a_component(number: int, tmp_path: Path) -> None:
    indented = BLOCKS[number][0].strip().replace("\n", "\n  ")
    component = f"component:\n  type: model\n  task: text-generation\n  model: ./model.gguf\n  {indented}\n"
    assert told(component, tmp_path, BuiltIn()) == []


def test_the_workflow_is_right_with_its_components(tmp_path: Path) -> None:
    # The second one is another model here, because no store is there yet.
    components = """
components:
  - id: vectors
    type: model
    task: text-embedding
    model: ./vectors.gguf
    text: ${input.text as text}
  - id: recipes
    type: model
    task: text-generation
    model: ./model.gguf
    action: search
    prompt: ${input.vector} ${input.top_k}
"""
    found = project(components + BLOCKS[17][0], tmp_path, BuiltIn())
    (workflow,) = found.workflows.values()
    assert [job.depends_on for job in workflow.jobs] == [(), ("vectorise",)]


@pytest.mark.parametrize("number", [6, 10, 29])
def test_a_token_that_is_not_set_is_a_warning(number: int, tmp_path: Path) -> None:
    (warning,) = project(BLOCKS[number][0], tmp_path, Everything()).warnings
    assert "`HUB_TOKEN` is not set" in warning.message
