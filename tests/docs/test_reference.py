from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs.pages import ROOT

from model_compose import errors
from model_compose.cli.main import commands
from model_compose.compose.catalog import BuiltIn

CATALOG = BuiltIn()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The text of each page by its name."""
    folder = tmp_path_factory.mktemp("reference")
    subprocess.run([sys.executable, ROOT / "scripts" / "reference.py", folder], check=True)
    return {page.stem: page.read_text() for page in folder.glob("*.md")}


@pytest.mark.parametrize("task", CATALOG.tasks())
def test_every_task_has_a_page_and_a_reference(reference: dict[str, str], task: str) -> None:
    assert f"## {task}\n" in reference["tasks"]
    assert (ROOT / "docs" / "tasks" / f"{task}.md").is_file()


@pytest.mark.parametrize("driver", CATALOG.drivers())
def test_every_driver_has_a_page_and_a_reference(reference: dict[str, str], driver: str) -> None:
    assert f"## {driver}\n" in reference["drivers"]
    assert (ROOT / "docs" / "drivers" / f"{driver}.md").is_file()


@pytest.mark.parametrize("driver", CATALOG.drivers())
def test_the_page_of_a_driver_says_first_what_one_asks_first(driver: str) -> None:
    page = (ROOT / "docs" / "drivers" / f"{driver}.md").read_text()
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    first = ["## Best at", "## Tasks", "## Parameters", "## Install", "## What it cannot do"]
    assert headings[: len(first)] == first


def test_what_a_driver_refuses_is_told_with_the_reason(reference: dict[str, str]) -> None:
    assert "llama.cpp has no beam search" in reference["drivers"]


def test_keys_have_their_type_limits_and_default(reference: dict[str, str]) -> None:
    assert "| `port` | an integer from 0 to 65535 | `8080` |" in reference["file"]
    assert "| `top_p` | a number above 0 and at most 1 | `0.9` |" in reference["tasks"]


def test_every_error_has_its_status(reference: dict[str, str]) -> None:
    assert "| `overloaded` | 429 Too Many Requests |" in reference["errors"]
    assert all(
        f"`{cls.code}`" in reference["errors"] for cls in errors.ModelComposeError.__subclasses__()[2:]
    )


def test_metrics_have_their_labels(reference: dict[str, str]) -> None:
    assert (
        "| `vllm:request_success_total` | counter | `model_name`, `finished_reason` |" in reference["metrics"]
    )
    assert "| `model_compose_model_state` | gauge | `model_name`, `state` |" in reference["metrics"]


def test_every_block_of_the_format_is_in_the_table(reference: dict[str, str]) -> None:
    rows = [line.split(" | ") for line in reference["conformance"].splitlines() if line.startswith("| ")]
    assert [int(row[0].strip("| ")) for row in rows[1:]] == list(range(1, 46))
    assert all(len(row) == 4 for row in rows)


def test_every_command_is_there(reference: dict[str, str]) -> None:
    names = [
        c.name or c.callback.__name__ for c in commands().registered_commands if c.callback and not c.hidden
    ]
    assert len(names) > 10
    assert all(f"## {name}\n" in reference["cli"] for name in names)


def test_the_guide_to_the_command_line_names_every_command() -> None:
    guide = (ROOT / "docs" / "guides" / "cli.md").read_text()
    names = [c.name or c.callback.__name__ for c in commands().registered_commands if c.callback]
    assert all(f"`{name}`" in guide for name in names)


def test_everything_that_a_page_leads_to_is_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text()
    docs = ROOT / "docs"
    told = [p.relative_to(docs).as_posix() for p in docs.rglob("*.md") if not _is_decision(p)]
    assert [page for page in told if f": {page}\n" not in menu] == []


def _is_decision(page: Path) -> bool:
    return page.parent.name == "decisions" and page.name != "index.md"
