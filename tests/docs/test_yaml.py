from __future__ import annotations

from pathlib import Path

import pytest
from tests.docs.checking import said_of
from tests.docs.pages import ROOT, Block, blocks, matches, pages
from tests.docs.running import packages

_PAGES = {page: list(blocks(page)) for page in pages()}
_YAML = [
    (page, i)
    for page, on_page in _PAGES.items()
    for i, block in enumerate(on_page)
    if block.language == "yaml"
]


@pytest.mark.parametrize(("page", "i"), _YAML, ids=[_PAGES[page][i].place for page, i in _YAML])
def test_every_yaml_block_is_what_it_says(
    page: Path, i: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_page = _PAGES[page]
    block = on_page[i]
    for path in packages(page.parent, tmp_path / "installed"):
        monkeypatch.syspath_prepend(path)
    env_file = block.marks.get("with")
    variables = "".join(each.text for each in on_page if env_file and each.marks.get("save") == env_file)
    said = said_of(block.text, tmp_path, part=block.marks.get("part"), variables=variables)
    if "mistake" in block.marks:
        assert matches(on_page[i + 1].text, said), f"{block.place} gives:\n{said}"
    else:
        assert not said, f"{block.place} gives:\n{said}"


_COPIES = [block for on_page in _PAGES.values() for block in on_page if "in" in block.marks]


@pytest.mark.parametrize("block", _COPIES, ids=[block.place for block in _COPIES])
def test_what_a_page_has_from_a_file_is_still_there(block: Block) -> None:
    assert block.text in (ROOT / block.marks["in"]).read_text()


def test_blocks_are_found() -> None:
    assert _COPIES
    assert len(_YAML) > 40
