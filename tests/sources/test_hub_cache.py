from __future__ import annotations

from pathlib import Path

import pytest

from model_compose.sources.hub_cache import HubFolder, default_cache_dir, folder_of
from model_compose.sources.spec import HubSource

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SOURCE = HubSource(repository="org/model")


@pytest.fixture
def folder(tmp_path: Path) -> HubFolder:
    return HubFolder(tmp_path, "org/model")


def put(folder: HubFolder, *names: str) -> None:
    for name in names:
        path = folder.path_of(COMMIT, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"12345")


def test_an_empty_cache_finds_nothing_and_makes_nothing(folder: HubFolder) -> None:
    assert folder.commit_of(None) is None
    assert folder.find(SOURCE) is None
    assert list(folder.cache_dir.iterdir()) == []


def test_a_commit_stands_for_itself_and_a_branch_for_what_was_recorded(folder: HubFolder) -> None:
    assert folder.commit_of(COMMIT) == COMMIT
    folder.record("refs/pr/1", COMMIT, {})
    folder.record(None, COMMIT, {})
    assert folder.commit_of("refs/pr/1") == folder.commit_of("main") == folder.commit_of(None) == COMMIT
    assert folder.commit_of("v2") is None


def test_what_is_found_is_the_folder_of_the_commit(folder: HubFolder) -> None:
    put(folder, "config.json", "model.safetensors", "notes.md")
    folder.record(
        None, COMMIT, {"config.json": 5, "model.safetensors": 5, "onnx/model.onnx": 5, "notes.md": 5}
    )
    loaded = folder.find(SOURCE)
    assert loaded is not None
    assert (loaded.path, loaded.revision) == (str(folder.path_of(COMMIT)), COMMIT)
    assert (loaded.format, loaded.size_bytes) == ("safetensors", 10)


@pytest.mark.parametrize(
    "files", [{"model.safetensors": 5, "a/model.safetensors": 5}, {"model.safetensors": 6}]
)
def test_a_file_that_is_missing_or_cut_off_makes_it_incomplete(
    folder: HubFolder, files: dict[str, int]
) -> None:
    put(folder, "model.safetensors")
    folder.record(None, COMMIT, files)
    assert folder.find(SOURCE) is None


def test_without_a_list_of_files_what_lies_there_is_judged(folder: HubFolder) -> None:
    put(folder, "config.json", "model-00001-of-00002.safetensors")
    by_commit = HubSource(repository="org/model", revision=COMMIT)
    assert folder.find(by_commit) is None
    put(folder, "model-00002-of-00002.safetensors")
    assert folder.find(by_commit) is not None


def test_forgetting_a_file_removes_its_content_through_all_links(folder: HubFolder) -> None:
    put(folder, "config.json")
    store, blob = folder.cache_dir / "blobs" / "ab", folder.cache_dir / "models--org--model" / "blobs" / "cd"
    for path in (store, blob):
        path.parent.mkdir()
    store.write_bytes(b"wrong")
    blob.symlink_to("../../blobs/ab")
    folder.path_of(COMMIT, "model.safetensors").symlink_to("../../blobs/cd")
    assert folder.path_of(COMMIT, "model.safetensors").read_bytes() == b"wrong"
    folder.forget(COMMIT, "model.safetensors")
    assert [path.name for path in folder.cache_dir.rglob("*") if not path.is_dir()] == ["config.json"]


def test_forgetting_a_file_removes_nothing_outside_the_cache(folder: HubFolder, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.write_bytes(b"mine")
    put(folder, "config.json")
    folder.path_of(COMMIT, "model.safetensors").symlink_to(outside)
    folder.forget(COMMIT, "model.safetensors")
    assert outside.read_bytes() == b"mine"
    assert not folder.path_of(COMMIT, "model.safetensors").is_symlink()


def test_a_cache_dir_starts_at_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for text, expected in (
        ("hub", tmp_path / "hub"),
        ("~/hub", tmp_path / "home" / "hub"),
        ("/hub", Path("/hub")),
    ):
        assert folder_of(HubSource(repository="a", cache_dir=text), tmp_path).cache_dir == expected
    assert folder_of(SOURCE, tmp_path).cache_dir == default_cache_dir()
