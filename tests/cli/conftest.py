"""What tests of the command line share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.shell import Shell


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A folder to type commands in, and a home beside it. No service outlives the test."""
    for name in ("project", "home"):
        (tmp_path / name).mkdir()
    shell = Shell(tmp_path / "project", tmp_path / "home")
    yield shell
    shell.clean_up()
