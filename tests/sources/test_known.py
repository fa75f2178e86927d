from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.fakes.web import sha256_of
from tests.fakes.weights import Shelf, packed
from tests.sources.recorder import Recorder, cancelling_after

from model_compose.errors import Cancelled, Corrupt, SourceError, SourceNotFound, SourceOffline
from model_compose.sources.cache import Cache
from model_compose.sources.download import Http, Retry
from model_compose.sources.fetch import locate, resolve
from model_compose.sources.inventory import items, remove
from model_compose.sources.known import KNOWN, KnownWeights
from model_compose.sources.spec import KnownSource, LoadedSource, format_of

FILE = "Tiny_x4.pth"
WEIGHTS = os.urandom(300_000)
TINY = KnownSource(name="Tiny_x4")

MEMBERS = {"det.onnx": os.urandom(100_000), "rec.onnx": os.urandom(50_000)}
PACK = packed({**{f"faces/{name}": content for name, content in MEMBERS.items()}, "faces/read.me": b"!"})
FACES = KnownSource(name="faces")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine whose home is empty, and which nobody has told anything."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("MODEL_COMPOSE_MODELS", "HF_HUB_OFFLINE", "UV_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    with Shelf() as shelf:
        monkeypatch.setitem(KNOWN, TINY.name, shelf.add(FILE, WEIGHTS))
        known = shelf.add("faces.zip", PACK, members=MEMBERS, licence="research only", home="~/.faces/models")
        monkeypatch.setitem(KNOWN, FACES.name, known)
        yield shelf


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def get(cache: Cache, source: KnownSource = TINY, **options: Any) -> LoadedSource:
    return resolve(source, base_dir=Path("/"), cache=cache, **options)


def found(cache: Cache, source: KnownSource = TINY) -> LoadedSource | None:
    return locate(source, base_dir=Path("/"), cache=cache)


def kept(cache: Cache) -> list[Path]:
    """The content that the cache holds, whole or partial."""
    return [
        path for name in ("files", "partial") for path in (cache.root / name).rglob("*") if path.is_file()
    ]


def put(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN.keys())
def test_every_name_says_what_it_stands_for(known: KnownWeights) -> None:
    assert known.url.startswith("https://github.com/")
    assert known.size_bytes > 1_000_000
    assert known.licence
    for sha256 in (known.sha256, *known.members.values()):
        assert len(bytes.fromhex(sha256)) == 32
    assert known.file.endswith(".zip") == bool(known.members)


def test_the_format_is_that_of_the_file() -> None:
    assert {name: format_of(KnownSource(name=name)) for name in ("RealESRGAN_x4plus", "buffalo_l")} == {
        "RealESRGAN_x4plus": "pytorch",
        "buffalo_l": "onnx",
    }
    assert format_of(KnownSource(name="nobody")) is None


def test_weights_come_once_and_are_kept(shelf: Shelf, cache: Cache) -> None:
    assert found(cache) is None
    progress = Recorder()
    loaded = get(cache, progress=progress)
    assert Path(loaded.path).name == FILE
    assert Path(loaded.path).read_bytes() == WEIGHTS
    assert (loaded.format, loaded.origin, loaded.size_bytes) == ("pytorch", "Tiny_x4", len(WEIGHTS))
    assert (progress.label, progress.bytes) == ("Tiny_x4 (127.0.0.1, BSD-3-Clause)", len(WEIGHTS))
    assert kept(cache) == [Path(loaded.path)]
    assert get(cache, offline=True) == found(cache) == loaded
    assert len(shelf.requests) == 1


def test_an_archive_is_unpacked_into_one_folder(shelf: Shelf, cache: Cache) -> None:
    progress = Recorder()
    loaded = get(cache, FACES, progress=progress)
    folder = Path(loaded.path)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == MEMBERS
    assert (folder.name, loaded.format, loaded.size_bytes) == ("faces", "onnx", 150_000)
    assert progress.label == "faces (127.0.0.1, research only)"
    assert sorted(kept(cache)) == sorted(folder.iterdir())
    assert get(cache, FACES, offline=True) == found(cache, FACES) == loaded
    assert len(shelf.requests) == 1


def test_a_folder_that_lost_a_file_is_made_anew(shelf: Shelf, cache: Cache) -> None:
    folder = Path(get(cache, FACES).path)
    (folder / "rec.onnx").unlink()
    assert found(cache, FACES) is None
    assert {path.name for path in Path(get(cache, FACES).path).iterdir()} == MEMBERS.keys()


def test_two_who_want_the_same_download_it_once(shelf: Shelf, cache: Cache) -> None:
    with ThreadPoolExecutor(2) as threads:
        paths = {each.path for each in threads.map(lambda _: get(cache, FACES), range(2))}
    assert len(paths) == 1
    assert len(shelf.requests) == 1


@pytest.mark.parametrize(("source", "file"), [(TINY, FILE), (FACES, "faces.zip")])
def test_a_broken_download_goes_on_where_it_was(
    shelf: Shelf, cache: Cache, source: KnownSource, file: str
) -> None:
    shelf.break_after(file, 90_000)
    get(cache, source)
    assert [request.range for request in shelf.requests] == [None, "bytes=90000-"]


def test_a_cancelled_download_goes_on_in_the_next_call(shelf: Shelf, cache: Cache) -> None:
    progress, cancel = cancelling_after(1000)
    with pytest.raises(Cancelled):
        get(cache, FACES, progress=progress, cancel=cancel)
    came = sum(path.stat().st_size for path in kept(cache) if path.suffix == ".zip")
    assert 1000 <= came < len(PACK)
    progress = Recorder()
    get(cache, FACES, progress=progress)
    assert shelf.requests[-1].range == f"bytes={came}-"
    assert (progress.already, progress.total_bytes) == (came, len(PACK))


@pytest.mark.parametrize(("source", "file"), [(TINY, FILE), (FACES, "faces.zip")])
def test_other_bytes_than_the_name_stands_for_are_removed(
    shelf: Shelf, cache: Cache, source: KnownSource, file: str
) -> None:
    shelf.files[file] = bytes(len(shelf.files[file]))
    with pytest.raises(Corrupt, match=rf"what `127.0.0.1` sent is not `{source}`: its sha256 is `[0-9a-f]"):
        get(cache, source)
    assert kept(cache) == []
    assert found(cache, source) is None


def test_a_full_disk_is_told_before_anything_comes(
    shelf: Shelf, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(Path.cwd())._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(SourceError, match=r"no room for `faces .*: 150 kB needed, 1.0 kB free"):
        get(cache, FACES)
    assert [path.suffix for path in kept(cache)] == [".etag"]


class TestOffline:
    @pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "UV_OFFLINE"])
    def test_the_error_says_where_to_put_the_file(
        self, shelf: Shelf, cache: Cache, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        monkeypatch.setenv(variable, "1")
        with pytest.raises(SourceOffline) as caught:
            get(cache)
        assert str(caught.value) == "`Tiny_x4` is not on this machine, and the network may not be used"
        assert caught.value.hint == (
            f"fetch {shelf.url}/releases/{FILE} where there is a network, "
            f"and put it here as `{cache.root / 'models' / FILE}`"
        )
        assert shelf.requests == []

    @pytest.mark.parametrize(("source", "file"), [(TINY, FILE), (FACES, "faces.zip")])
    def test_what_is_put_there_is_used(
        self, shelf: Shelf, cache: Cache, source: KnownSource, file: str
    ) -> None:
        put(cache.root / "models", {file: shelf.files[file]})
        loaded = get(cache, source, offline=True)
        assert Path(loaded.path).exists()
        assert found(cache, source) == get(cache, source, offline=True) == loaded
        assert shelf.requests == []

    def test_the_first_of_the_users_folders_is_named(
        self, shelf: Shelf, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(
            "MODEL_COMPOSE_MODELS", os.pathsep.join((str(tmp_path / "a"), str(tmp_path / "b")))
        )
        with pytest.raises(SourceOffline) as caught:
            get(cache, FACES, offline=True)
        assert f"put it here as `{tmp_path / 'a' / 'faces.zip'}`" in (caught.value.hint or "")

    def test_a_server_that_cannot_be_reached_says_it_too(
        self, shelf: Shelf, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        impatient = partial(Http, retry=Retry(attempts=1))
        monkeypatch.setattr("model_compose.sources.known_download.Http", impatient)
        gone = msgspec.structs.replace(KNOWN[TINY.name], url="http://127.0.0.1:1/Tiny_x4.pth")
        monkeypatch.setitem(KNOWN, TINY.name, gone)
        with pytest.raises(SourceOffline, match=r"`127.0.0.1` cannot be reached") as caught:
            get(cache)
        assert f"put it here as `{cache.root / 'models' / FILE}`" in (caught.value.hint or "")

    def test_a_release_that_is_gone_says_it_too(self, shelf: Shelf, cache: Cache) -> None:
        shelf.files.clear()
        with pytest.raises(SourceNotFound) as caught:
            get(cache)
        assert f"put it here as `{cache.root / 'models' / FILE}`" in (caught.value.hint or "")


class TestFoldersOfTheUser:
    @pytest.fixture(autouse=True)
    def folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.first, self.second = tmp_path / "first", tmp_path / "second"
        monkeypatch.setenv("MODEL_COMPOSE_MODELS", f"{self.first}{os.pathsep}{self.second}")

    def test_a_file_is_used_where_it_lies(self, shelf: Shelf, cache: Cache) -> None:
        put(self.second, {FILE: WEIGHTS})
        assert get(cache).path == str(self.second / FILE)
        assert found(cache) == get(cache)
        assert shelf.requests == []
        assert kept(cache) == []

    def test_they_come_before_the_cache(self, shelf: Shelf, cache: Cache) -> None:
        assert Path(get(cache).path).is_relative_to(cache.root)
        put(self.first, {FILE: WEIGHTS})
        assert get(cache).path == str(self.first / FILE)

    def test_the_home_of_another_program_is_looked_at_for_archives(
        self, shelf: Shelf, cache: Cache, tmp_path: Path
    ) -> None:
        folder = put(tmp_path / "home" / ".faces" / "models" / "faces", MEMBERS)
        assert get(cache, FACES).path == str(folder)
        mine = put(self.first / "faces", MEMBERS)
        assert get(cache, FACES).path == str(mine)
        assert shelf.requests == []

    def test_a_folder_with_none_of_the_files_does_not_count(self, shelf: Shelf, cache: Cache) -> None:
        put(self.first / "faces", {"read.me": b"!"})
        assert Path(get(cache, FACES).path).is_relative_to(cache.root)

    @pytest.mark.parametrize(
        ("source", "files", "why"),
        [
            (TINY, {FILE: b"other"}, f"the sha256 is `{sha256_of(b'other')}`, not `{sha256_of(WEIGHTS)}`"),
            (FACES, {"det.onnx": MEMBERS["det.onnx"]}, "it has no `rec.onnx`"),
            (FACES, {**MEMBERS, "rec.onnx": b"x"}, f"the sha256 of `rec.onnx` is `{sha256_of(b'x')}`, not "),
        ],
    )
    def test_what_is_not_what_the_name_stands_for_is_refused(
        self, shelf: Shelf, cache: Cache, source: KnownSource, files: dict[str, bytes], why: str
    ) -> None:
        folder = self.first if source is TINY else self.first / source.name
        put(folder, files)
        path = folder / FILE if source is TINY else folder
        with pytest.raises(Corrupt) as caught:
            get(cache, source)
        assert str(caught.value).startswith(f"`{path}` is not `{source}`: {why}")
        assert caught.value.hint == f"move it away, or write `model: {path}` to use it as it is"
        assert shelf.requests == []

    def test_an_archive_with_other_bytes_is_refused_and_stays(self, shelf: Shelf, cache: Cache) -> None:
        put(self.first, {"faces.zip": packed({"det.onnx": b"x"})})
        with pytest.raises(Corrupt, match=r"first/faces.zip` is not `faces`: its sha256 is"):
            get(cache, FACES)
        assert (self.first / "faces.zip").exists()


class TestArchives:
    """An archive that nobody should have put into the table does no harm."""

    def refused(self, shelf: Shelf, cache: Cache, monkeypatch: pytest.MonkeyPatch, content: bytes) -> str:
        monkeypatch.setitem(KNOWN, FACES.name, shelf.add("faces.zip", content, members={"a.onnx": b""}))
        with pytest.raises(Corrupt) as caught:
            get(cache, FACES)
        assert kept(cache) == []
        assert found(cache, FACES) is None
        return str(caught.value)

    def test_what_is_known_of_it_must_be_in_it(
        self, shelf: Shelf, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said = self.refused(shelf, cache, monkeypatch, packed({"a.onnx": b"other"}))
        assert said == "`faces.zip` does not hold the `a.onnx` that is known"

    def test_what_is_no_archive_is_told(
        self, shelf: Shelf, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said = self.refused(shelf, cache, monkeypatch, b"not a zip")
        assert said.startswith("`faces.zip` is not a readable zip file")


def test_the_cache_lists_and_removes_them(shelf: Shelf, cache: Cache) -> None:
    get(cache)
    get(cache, FACES)
    (cache.partial_path("half.folder") / "x").mkdir(parents=True)
    listed = {item.name: item for item in items(cache, [])}
    assert {name: (item.kind, item.size_bytes) for name, item in listed.items()} == {
        "Tiny_x4": ("known", len(WEIGHTS)),
        "faces": ("known", 150_000),
        "half.folder": ("partial", 0),
    }
    assert listed["faces"].revision == sha256_of(PACK)[:12]
    assert sum(remove(item, cache) for item in listed.values()) == len(WEIGHTS) + 150_000
    assert items(cache, []) == []
    assert found(cache) is None


def test_what_a_process_that_died_left_behind_is_no_hindrance(shelf: Shelf, cache: Cache) -> None:
    get(cache, FACES)
    (item,) = items(cache, [])
    remove(item, cache)
    (draft,) = [path.name for path in (cache.root / "locks").iterdir()]
    left = put(cache.partial_path(draft.replace(".lock", ".folder")), {"det.onnx": b"half"})
    assert {path.name for path in Path(get(cache, FACES).path).iterdir()} == MEMBERS.keys()
    assert not left.exists()


def test_an_unknown_name_is_told_before_anything_is_asked(cache: Cache) -> None:
    with pytest.raises(SourceError, match="no weights are known as `bufalo_l`") as caught:
        get(cache, KnownSource(name="bufalo_l"))
    assert caught.value.hint == "did you mean `buffalo_l`?"
    assert not cache.root.exists()


def test_unpacking_can_be_cancelled(shelf: Shelf, cache: Cache) -> None:
    put(cache.root / "models", {"faces.zip": PACK})
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Cancelled):
        get(cache, FACES, cancel=cancel)
    assert kept(cache) == []
