"""Do the mistakes that people make read as they should?

Each `golden/NAME.yml` has one or more of them, and `NAME.txt` is what they are told; `NAME.over.yml` is
a second file that is merged into the first. `UPDATE_GOLDEN=1 pytest tests/config/test_golden.py` writes
the texts anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.config.catalog import FixedCatalog

from model_compose.config.environment import Environment, Value
from model_compose.config.project import load_project
from model_compose.errors import ConfigErrors
from model_compose.frames import render

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.yml") if not path.stem.endswith(".over"))
ENVIRONMENT = Environment(
    {
        "PORT": Value("8080", ".env:1"),
        "API_KEY_FILE": Value("key", "`-e`"),
        "BATCH": Value("many", ".env:2"),
        "HF_TOKEN": Value("hf_secret", "the environment"),
    }
)


def told(name: str) -> str:
    files = [file for file in (Path(f"{name}.yml"), Path(f"{name}.over.yml")) if file.exists()]
    with pytest.raises(ConfigErrors) as raised:
        load_project(files, ENVIRONMENT, FixedCatalog())
    return render(raised.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_typical_mistake_is_told_with_place_and_hint(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)
    text = told(name)
    if os.environ.get("UPDATE_GOLDEN"):
        Path(f"{name}.txt").write_text(text, encoding="utf-8")
    assert text == Path(f"{name}.txt").read_text(encoding="utf-8")


def test_every_text_belongs_to_a_file() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.txt")) == NAMES
