"""Files of pages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from model_compose.types import Blob
from model_compose.ui.blobs import KEPT_S, Shelf, from_uri, read_file


@pytest.mark.parametrize("blob", [Blob("image/png", b"\x00\xff"), Blob("text/plain", b""), Blob("a/b", b"x")])
def test_what_we_write_we_read(blob: Blob) -> None:
    assert from_uri(blob.data_uri()) == blob


@pytest.mark.parametrize(
    "text",
    ["", "data:", "data:image/png;base64", "data:image/png;base64,!!", "data: " + "x" * 500 + ",y", "x"],
)
def test_other_texts_are_none(text: str) -> None:
    assert from_uri(text) is None


def test_a_plain_data_uri_is_read_too() -> None:
    assert from_uri("data:text/plain,a%20b") == Blob("text/plain", b"a b")


def test_the_kind_of_a_file_comes_from_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.jpeg").write_bytes(b"x")
    (tmp_path / "b").write_bytes(b"y")
    assert read_file(str(tmp_path / "a.jpeg")) == Blob("image/jpeg", b"x", "a.jpeg")
    assert read_file(str(tmp_path / "b")).media_type == "application/octet-stream"


def test_a_file_is_kept_under_its_name_and_nowhere_else(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf")
    path = Path(shelf.put(Blob("image/webp", b"x"), "../../image 1"))
    assert path.name == "image-1.webp"
    assert path.parents[1] == tmp_path / "shelf"
    assert path.read_bytes() == b"x"


def test_old_files_go_when_new_ones_come(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    old = Path(shelf.put(Blob("text/plain", b"old")))
    os.utime(old.parent, (1, 1))
    new = Path(shelf.put(Blob("text/plain", b"new")))
    assert KEPT_S > 0
    assert not old.exists()
    assert new.exists()
