from __future__ import annotations

from pathlib import Path

import pytest

from model_compose.errors import SourceNotFound
from model_compose.sources.local import absolute, locate
from model_compose.sources.spec import LocalSource


def test_a_relative_path_starts_at_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.gguf").write_bytes(b"1234")
    loaded = locate(LocalSource(path="./models/a.gguf"), tmp_path)
    assert loaded.path == str(tmp_path / "models" / "a.gguf")
    assert (loaded.format, loaded.revision, loaded.size_bytes) == ("gguf", None, 4)
    assert loaded.origin == "./models/a.gguf"


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.safetensors").write_bytes(b"")
    assert locate(LocalSource(path="~/a.safetensors"), Path("/elsewhere")).path == str(
        tmp_path / "a.safetensors"
    )


def test_an_absolute_path_stands_for_itself(tmp_path: Path) -> None:
    assert locate(LocalSource(path=str(tmp_path)), Path("/elsewhere")).path == str(tmp_path)


def test_a_folder_counts_all_its_files_and_tells_its_format(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "pytorch_model.bin").write_bytes(b"12345")
    (tmp_path / "deep" / "model.safetensors").write_bytes(b"123")
    (tmp_path / "config.json").write_bytes(b"{}")
    loaded = locate(LocalSource(path="."), tmp_path)
    assert (loaded.format, loaded.size_bytes) == ("safetensors", 10)
    assert locate(LocalSource(path=".", format="pytorch"), tmp_path).format == "pytorch"


def test_a_missing_path_names_the_neighbours(tmp_path: Path) -> None:
    (tmp_path / "smollm2.gguf").write_bytes(b"")
    (tmp_path / ".hidden").write_bytes(b"")
    with pytest.raises(SourceNotFound) as caught:
        locate(LocalSource(path="./smolm2.gguf"), tmp_path)
    path = tmp_path / "smolm2.gguf"
    assert str(caught.value) == f"there is no file or folder `{path}`: `{tmp_path}` has no `smolm2.gguf`"
    assert caught.value.hint == "did you mean `smollm2.gguf`?"


def test_a_missing_folder_is_named_rather_than_the_file_in_it(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound) as caught:
        locate(LocalSource(path="./models/llama/a.gguf"), tmp_path)
    assert str(caught.value).endswith(f"/models/llama/a.gguf`: `{tmp_path}` has no `models`")
    assert caught.value.hint == f"`{tmp_path}` is empty"


def test_a_home_that_nobody_has_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match=r"no home folder for `~nobody-at-all/model\.gguf`"):
        absolute("~nobody-at-all/model.gguf", tmp_path)
