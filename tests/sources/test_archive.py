from __future__ import annotations

import os
import stat
import threading
import zipfile
from pathlib import Path

import pytest
from tests.fakes.web import sha256_of
from tests.fakes.weights import packed

from model_compose.errors import Corrupt
from model_compose.sources.archive import Archive


def unpacked(path: Path, content: bytes, size_bytes: int | None = None) -> dict[str, str]:
    """Unpack into the folder `out` beside `path`."""
    path.write_bytes(content)
    (path.parent / "out").mkdir()
    with Archive(path, "pack.zip") as archive:
        return archive.unpack_all(
            ".onnx",
            path.parent / "out",
            len(content) if size_bytes is None else size_bytes,
            threading.Event(),
        )


def member(name: str, kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o777) << 16
    return info


def test_files_with_the_ending_lie_in_one_folder(tmp_path: Path) -> None:
    content = {
        "a.onnx": os.urandom(10),
        "pack/deep/b.onnx": os.urandom(20),
        "pack/run.py": b"raise SystemExit",
    }
    assert unpacked(tmp_path / "a.zip", packed(content)) == {
        "a.onnx": sha256_of(content["a.onnx"]),
        "b.onnx": sha256_of(content["pack/deep/b.onnx"]),
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.onnx", "b.onnx"]


@pytest.mark.parametrize(
    "name",
    ["../a.onnx", "x/../../a.onnx", "/etc/a.onnx", "..\\a.onnx", "C:a.onnx", "C:\\a.onnx", "../notes.txt",
     "x//a.onnx", "a\x1b[2J.onnx"],
)  # fmt: skip
def test_a_name_that_leaves_the_archive_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Corrupt, match=r"`pack.zip` is not to be trusted: .* is no name") as caught:
        unpacked(tmp_path / "a.zip", packed({"good.onnx": b"1", name: b"2"}))
    assert "\x1b" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.zip", "out"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_only_plain_files_are_unpacked(tmp_path: Path, kind: int) -> None:
    path = tmp_path / "links.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member("a.onnx", kind), "/etc/passwd")
    with pytest.raises(Corrupt, match=r"`a.onnx` is not a plain file"):
        unpacked(tmp_path / "a.zip", path.read_bytes())
    assert list((tmp_path / "out").iterdir()) == []


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Corrupt, match=r"it has two files `a.onnx`"):
        unpacked(tmp_path / "a.zip", packed({"x/a.onnx": b"1", "y/a.onnx": b"2"}))


def test_a_bomb_of_many_members_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    content = packed({f"{i}.onnx": bytes(1 << 20) for i in range(20)})
    with pytest.raises(Corrupt, match=rf"{len(content)} bytes unpack to {20 << 20}"):
        unpacked(tmp_path / "bomb.zip", content)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_bomb_of_one_member_is_refused(tmp_path: Path) -> None:
    content = packed({"a.onnx": bytes(80 << 20)})
    with pytest.raises(Corrupt, match=f"bytes in it unpack to {80 << 20}"):
        unpacked(tmp_path / "bomb.zip", content, size_bytes=1 << 30)
