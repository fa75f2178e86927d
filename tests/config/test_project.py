from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.config.catalog import FixedCatalog
from tests.config.projects import MODEL

from model_compose.config.environment import Environment, Value
from model_compose.config.project import load_project
from model_compose.config.schema import Project
from model_compose.errors import ConfigErrors

COMPONENT = f"component: {{{MODEL}}}\n"


def load(folder: Path, *names: str, **variables: str) -> Project:
    environment = Environment({name: Value(text, ".env:1") for name, text in variables.items()})
    return load_project([folder / name for name in names], environment, FixedCatalog(), folder=folder)


def mistakes(folder: Path, *names: str) -> list[str]:
    with pytest.raises(ConfigErrors) as raised:
        load(folder, *names)
    return [f"{Path(error.place.file).name}: {error.message}" for error in raised.value.errors if error.place]


@pytest.mark.parametrize("name", ["model-compose.yml", "model-compose.yaml"])
def test_the_file_of_a_folder_is_found(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(COMPONENT)
    assert load(tmp_path).folder == tmp_path


def test_relative_paths_start_at_the_folder_of_the_first_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "base.yml").write_text(COMPONENT)
    (tmp_path / "over.yml").write_text("component: {batch_size: 4}\n")
    found = load(tmp_path, "a/base.yml", "over.yml")
    assert found.folder == tmp_path / "a"
    assert found.components["__component__"].config.batch_size == 4


def test_later_files_win_and_lists_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "1.yml").write_text(
        f"component: {{{MODEL}, stop: [a, b], device: cpu}}\ncontroller: {{port: 1}}\n"
    )
    (tmp_path / "2.yml").write_text("component: {stop: [c]}\n")
    (tmp_path / "3.yml").write_text("component: {device: mps}\ncontroller: {port: 3}\n")
    found = load(tmp_path, "1.yml", "2.yml", "3.yml")
    merged = found.components["__component__"]
    assert (merged.config.device, merged.actions[0].values["stop_sequences"]) == ("mps", ["c"])
    assert found.controller.port == 3


def test_the_mistakes_of_all_files_come_together(tmp_path: Path) -> None:
    (tmp_path / "1.yml").write_text(f"{COMPONENT}a: 1\na: 2\n")
    (tmp_path / "2.yml").write_text("controller: {port: x, port: y}\n")
    assert mistakes(tmp_path, "1.yml", "2.yml") == [
        "1.yml: unknown field `a` in the file",
        "1.yml: the key `a` stands twice in one map",
        '2.yml: `port` of the controller: expected an integer from 0 to 65535, found `"x"`',
        "2.yml: the key `port` stands twice in one map",
    ]


def test_a_file_that_cannot_be_read_is_told_with_the_mistakes_of_the_others(tmp_path: Path) -> None:
    (tmp_path / "1.yml").write_text("a: 1\na: 2\n")
    (tmp_path / "2.yml").write_text("b: [\n")
    assert [message.partition(":")[0] for message in mistakes(tmp_path, "1.yml", "2.yml")] == [
        "1.yml",
        "2.yml",
    ]
    with pytest.raises(ConfigErrors) as raised:
        load(tmp_path, "1.yml", "nowhere.yml")
    assert len(raised.value.errors) == 2


def test_variables_are_filled_in_after_merging(tmp_path: Path) -> None:
    (tmp_path / "1.yml").write_text(f"{COMPONENT}controller: {{port: '${{env.UNSET}}'}}\n")
    (tmp_path / "2.yml").write_text("controller: {port: '${env.PORT}'}\n")
    assert load(tmp_path, "1.yml", "2.yml", PORT="81").controller.port == 81


LARGE = "components:\n" + "".join(
    f"""
  - id: c{i}
    type: model
    task: chat-completion
    model: ./models/model-{i}.gguf
    keep_alive: 5m
    messages:
      - role: system
        content: You are number {i}. ${{input.style as text | short}}
      - role: user
        content: ${{input.question}}
    params:
      temperature: ${{input.temperature as number | 0.7}}
    output:
      answer: ${{result.text}}
"""
    for i in range(20)
)


def test_a_file_of_20_components_takes_no_time(tmp_path: Path) -> None:
    (tmp_path / "model-compose.yml").write_text(LARGE)
    load(tmp_path)
    took = []
    for _ in range(5):
        started = time.process_time()
        load(tmp_path)
        took.append(time.process_time() - started)
    assert min(took) < 0.1


def test_checking_needs_no_heavy_library(tmp_path: Path) -> None:
    (tmp_path / "model-compose.yml").write_text(LARGE)
    program = f"""
import sys
from pathlib import Path
from model_compose.compose.catalog import BuiltIn
from model_compose.config.environment import Environment
from model_compose.config.project import load_project
load_project([], Environment({{}}), BuiltIn(), folder=Path({str(tmp_path)!r}))
heavy = {{"torch", "transformers", "xllamacpp", "numpy", "huggingface_hub", "starlette", "uvicorn", "httpx2",
          "asyncio", "dotenv", "importlib.metadata", "rich", "typer"}}
print(sorted(heavy & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
