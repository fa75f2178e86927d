from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from tests.fakes.hub import FakeHub
from tests.fakes.web import sha256_of

from model_compose.sources.cache import Cache
from model_compose.sources.fetch import locate, resolve
from model_compose.sources.inventory import items, remove
from model_compose.sources.spec import HubSource

CONTENT = b"weights" * 100


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


def keep(cache: Cache, origin: str) -> Path:
    def write(file: BinaryIO) -> str:
        file.write(CONTENT)
        return sha256_of(CONTENT)

    entry = cache.keep(
        f"pypi {origin}", origin=origin, name="a.gguf", revision="1", size_bytes=len(CONTENT), write=write
    )
    return cache.path_of(entry)


def pull(hub: FakeHub, folder: Path, revision: str) -> HubSource:
    source = HubSource(repository="org/model", revision=revision, cache_dir="hub", endpoint=hub.url)
    resolve(source, base_dir=folder, cache=Cache(folder / "cache"))
    return source


def test_empty_caches_hold_nothing(cache: Cache, tmp_path: Path) -> None:
    assert items(cache, [tmp_path / "hub"]) == []
    assert not cache.root.exists()


def test_both_caches_are_listed_alike(cache: Cache, hub: FakeHub, tmp_path: Path) -> None:
    path = keep(cache, "a==1:a.gguf")
    commit = hub.add("org/model", {"model.safetensors": CONTENT, "config.json": b"{}"})
    pull(hub, tmp_path, "main")
    half = cache.partial_path("abc.whl")
    half.write_bytes(b"half")
    found = {item.kind: item for item in items(cache, [tmp_path / "hub"])}
    assert {kind: (item.name, item.revision, item.size_bytes) for kind, item in found.items()} == {
        "pypi": ("a==1:a.gguf", "1", len(CONTENT)),
        "huggingface": ("org/model", commit, len(CONTENT) + 2),
        "partial": ("abc.whl", None, 4),
    }
    assert found["pypi"].path == path
    assert found["huggingface"].path.name == commit
    assert all(item.used_s > 1e9 for item in found.values())


def test_the_least_recently_used_comes_first(cache: Cache, tmp_path: Path) -> None:
    for name in ("new", "old"):
        keep(cache, name)
    for index in (cache.root / "index").iterdir():
        if '"old"' in index.read_text():
            os.utime(index, (1000, 1000))
    assert [item.name for item in items(cache, [])] == ["old", "new"]


def test_what_is_removed_is_gone_and_its_bytes_are_counted(cache: Cache, tmp_path: Path) -> None:
    path = keep(cache, "a")
    half = cache.partial_path("abc.whl")
    half.write_bytes(b"half")
    half.with_name("abc.whl.etag").write_text('"1"')
    assert sum(remove(item, cache) for item in items(cache, [])) == len(CONTENT) + 4
    assert items(cache, []) == []
    assert not path.exists()
    assert list((cache.root / "partial").iterdir()) == []


def test_a_revision_of_a_repository_is_removed_without_the_files_of_others(
    cache: Cache, hub: FakeHub, tmp_path: Path
) -> None:
    hub.add("org/model", {"model.safetensors": CONTENT, "config.json": b"{}"})
    hub.add("org/model", {"model.safetensors": CONTENT, "config.json": b'{"v": 2}'}, revision="v2")
    main, v2 = pull(hub, tmp_path, "main"), pull(hub, tmp_path, "v2")
    revision = locate(main, base_dir=tmp_path)
    assert revision is not None
    (item,) = [item for item in items(cache, [tmp_path / "hub"]) if item.revision == revision.revision]
    assert remove(item, cache) == 2
    assert locate(main, base_dir=tmp_path) is None
    assert locate(v2, base_dir=tmp_path) is not None
    (last,) = items(cache, [tmp_path / "hub"])
    assert remove(last, cache) > len(CONTENT)
    assert not (tmp_path / "hub" / "models--org--model").exists()
