from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import BinaryIO

import pytest
from tests.fakes.web import sha256_of

from model_compose.errors import Cancelled, SourceError
from model_compose.sources.cache import Cache, Entry

CONTENT = b"weights" * 1000


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def keep(cache: Cache, key: str, content: bytes = CONTENT, name: str = "a.gguf") -> Entry:
    def write(file: BinaryIO) -> str:
        file.write(content)
        return sha256_of(content)

    return cache.keep(key, origin=key, name=name, revision="1.0", size_bytes=len(content), write=write)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"MODEL_COMPOSE_CACHE": "/big/cache", "XDG_CACHE_HOME": "/xdg"}, "/big/cache"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/model-compose"),
        ({"XDG_CACHE_HOME": ""}, "~/.cache/model-compose"),
        ({}, "~/.cache/model-compose"),
    ],
)
def test_the_environment_names_the_folder(environ: dict[str, str], expected: str) -> None:
    assert Cache.of_machine(environ).root == Path(expected).expanduser()


def test_what_is_kept_is_found_under_its_name(cache: Cache) -> None:
    entry = keep(cache, "pypi a==1")
    assert cache.find("pypi a==1") == entry
    assert cache.path_of(entry).read_bytes() == CONTENT
    assert cache.path_of(entry).name == "a.gguf"
    assert cache.find("pypi a==2") is None


def test_only_the_owner_may_look_into_it(cache: Cache) -> None:
    keep(cache, "a")
    assert stat.S_IMODE(cache.root.stat().st_mode) == 0o700


def test_a_file_that_was_cut_or_removed_is_not_found(cache: Cache) -> None:
    entry = keep(cache, "a")
    os.truncate(cache.path_of(entry), 10)
    assert cache.find("a") is None
    cache.path_of(entry).unlink()
    assert cache.find("a") is None
    assert keep(cache, "a") == cache.find("a")


def test_a_broken_index_file_is_as_good_as_none(cache: Cache) -> None:
    keep(cache, "a")
    (index,) = (cache.root / "index").iterdir()
    index.write_bytes(b'{"half')
    assert cache.find("a") is None
    assert cache.entries() == []


def test_nothing_stays_of_a_file_that_could_not_be_written(cache: Cache) -> None:
    def write(file: BinaryIO) -> str:
        file.write(b"half")
        raise ValueError

    with pytest.raises(ValueError):
        cache.keep("a", origin="a", name="a.gguf", revision="1", size_bytes=100, write=write)
    assert [path for path in cache.root.rglob("*") if path.is_file()] == []
    assert cache.find("a") is None


def test_removing_frees_the_file_when_its_last_entry_goes(cache: Cache) -> None:
    first, second, other = keep(cache, "a"), keep(cache, "b"), keep(cache, "c", b"other")
    assert cache.remove(first) == 0
    assert cache.find("b") == second
    assert cache.remove(second) == len(CONTENT)
    assert not cache.path_of(second).exists()
    assert [entry for entry, _ in cache.entries()] == [other]


def test_entries_are_listed_from_the_least_recently_used(cache: Cache) -> None:
    for age, key in enumerate("abc"):
        keep(cache, key, key.encode())
        (index,) = (path for path in (cache.root / "index").iterdir() if f'"{key}"' in path.read_text())
        os.utime(index, (1000 - age, 1000 - age))
    assert [(entry.key, used) for entry, used in cache.entries()] == [("c", 998), ("b", 999), ("a", 1000)]
    cache.find("c")
    assert [entry.key for entry, _ in cache.entries()] == ["b", "a", "c"]


def test_a_lock_keeps_others_out_until_it_is_released(cache: Cache) -> None:
    order: list[str] = []
    waiting = threading.Event()

    def other() -> None:
        waiting.set()
        with cache.lock("a", threading.Event()):
            order.append("other")

    thread = threading.Thread(target=other)
    with cache.lock("a", threading.Event()):
        thread.start()
        assert waiting.wait(5)
        with cache.lock("b", threading.Event()):
            order.append("first")
    thread.join(5)
    assert order == ["first", "other"]


def test_waiting_for_a_lock_can_be_cancelled(cache: Cache) -> None:
    cancel = threading.Event()
    threading.Timer(0.05, cancel.set).start()
    with cache.lock("a", threading.Event()), pytest.raises(Cancelled), cache.lock("a", cancel):
        pytest.fail("two have the lock")


def test_without_a_home_the_cache_asks_for_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "~")  # what `expanduser` gives where neither `HOME` nor a user is known
    with pytest.raises(SourceError, match=r"there is no home folder for `~/\.cache/model-compose`") as caught:
        Cache.of_machine({})
    assert "MODEL_COMPOSE_CACHE" in str(caught.value.hint)
    assert Cache.of_machine({"MODEL_COMPOSE_CACHE": str(tmp_path)}).root == tmp_path
