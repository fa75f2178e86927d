from __future__ import annotations

from pathlib import Path

import pytest
from tests import models
from tests.docs.pages import ROOT, blocks, pages
from tests.docs.running import Reader

_RUN = [
    page
    for page in pages()
    if ROOT / "examples" not in page.parents and any("run" in block.marks for block in blocks(page))
]


@pytest.mark.process
@pytest.mark.parametrize("page", _RUN, ids=[str(page.relative_to(ROOT)) for page in _RUN])
def test_what_a_page_says_works(page: Path, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    printed = Reader(tmp_path, models.tiny_chat(), {}).follow(list(blocks(page)))
    assert printed


def test_pages_with_commands_are_found() -> None:
    assert {"quickstart.md", "http-api.md", "cli.md"} <= {page.name for page in _RUN}
