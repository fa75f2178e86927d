from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.fakes.hub import FakeHub
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
from model_compose.sources.fetch import locate, resolve
from model_compose.sources.spec import HubSource, LoadedSource

TOKEN = "hf_reader"
CONFIG = b'{"model_type": "bert"}'
WEIGHTS = os.urandom(300_000)
FILES = {
    "config.json": CONFIG,
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"never",
    "README.md": b"#",
}


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    impatient = SimpleNamespace(sleep=lambda _s: None)  # the library waits a second before each new try
    monkeypatch.setattr("huggingface_hub.file_download.time", impatient)
    monkeypatch.setattr("huggingface_hub.utils._http.time", impatient)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub() as hub:
        yield hub


def source(hub: FakeHub, repository: str = "org/model", **fields: object) -> HubSource:
    return HubSource(repository=repository, cache_dir="hub", endpoint=hub.url, **fields)  # type: ignore[arg-type]


def get(source: HubSource, folder: Path, **options: object) -> LoadedSource:
    return resolve(source, base_dir=folder, cache=Cache(folder / "cache"), **options)  # type: ignore[arg-type]


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def content_files(folder: Path) -> list[Path]:
    """Everything in the hub's cache that is content, whole or not."""
    return list((folder / "hub").rglob("blobs/*"))


def test_a_repository_comes_without_what_is_not_worth_having(hub: FakeHub, tmp_path: Path) -> None:
    commit = hub.add("org/model", FILES)
    progress = Recorder()
    loaded = get(source(hub), tmp_path, progress=progress)
    assert names_in(Path(loaded.path)) == ["config.json", "model.safetensors"]
    assert (Path(loaded.path) / "model.safetensors").read_bytes() == WEIGHTS
    assert (loaded.format, loaded.revision, loaded.origin) == ("safetensors", commit, "org/model")
    size = len(CONFIG) + len(WEIGHTS)
    assert loaded.size_bytes == size
    assert (progress.label, progress.total_bytes, progress.bytes) == ("org/model", size, size)
    assert progress.calls == ["start", "finish"]
    assert Path(loaded.path).is_relative_to(tmp_path / "hub")  # the folder of the file, and it was created


def test_what_is_in_the_cache_needs_no_hub(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", FILES)
    loaded = get(source(hub), tmp_path)
    asked = len(hub.paths())
    assert get(source(hub), tmp_path) == loaded
    assert get(source(hub, local_files_only=True), tmp_path) == loaded
    assert get(source(hub), tmp_path, offline=True) == loaded
    assert locate(source(hub), base_dir=tmp_path) == loaded
    assert len(hub.paths()) == asked


def test_local_files_only_asks_nobody(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", FILES)
    for refresh in (False, True):
        with pytest.raises(
            SourceOffline, match="`org/model` is not in the cache, and `local_files_only` is set"
        ):
            get(source(hub, local_files_only=True), tmp_path, refresh=refresh)
    with pytest.raises(SourceOffline, match="the network may not be used"):
        get(source(hub), tmp_path, offline=True)
    assert locate(source(hub), base_dir=tmp_path) is None
    assert hub.paths() == []


def test_a_branch_that_moved_is_followed_only_when_asked(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", FILES)
    old = get(source(hub), tmp_path)
    newer = hub.add("org/model", {**FILES, "config.json": b"{}"})
    assert get(source(hub), tmp_path) == old
    fresh = get(source(hub), tmp_path, refresh=True)
    assert fresh.revision == newer
    assert get(source(hub), tmp_path) == fresh
    # The weights have not changed, so they did not travel again.
    assert len(hub.cdn.requests) == 1


def test_revisions_are_told_apart(hub: FakeHub, tmp_path: Path) -> None:
    main = hub.add("org/model", FILES)
    tag = hub.add("org/model", {"model.safetensors": b"v1"}, revision="v1")
    assert get(source(hub, revision="v1"), tmp_path).revision == tag
    assert get(source(hub), tmp_path).revision == main
    by_commit = get(source(hub, revision=tag), tmp_path)
    assert (Path(by_commit.path) / "model.safetensors").read_bytes() == b"v1"


def test_one_file_is_taken_from_a_subfolder(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", {"q4/a.gguf": WEIGHTS, "q8/a.gguf": b"8", "config.json": CONFIG})
    loaded = get(source(hub, filename="q4/a.gguf"), tmp_path)
    assert Path(loaded.path).read_bytes() == WEIGHTS
    assert loaded.path.endswith("q4/a.gguf")
    assert (loaded.format, loaded.origin) == ("gguf", "org/model:q4/a.gguf")
    # What one source had fetched is no answer for another.
    assert locate(source(hub, filename="q8/a.gguf"), base_dir=tmp_path) is None


def test_a_folder_that_is_not_complete_is_not_served(hub: FakeHub, tmp_path: Path) -> None:
    files = {"model_index.json": b"{}", "unet/model.safetensors": WEIGHTS, "vae/model.safetensors": b"vae"}
    hub.add("org/model", files)
    loaded = get(source(hub), tmp_path)
    (Path(loaded.path) / "vae" / "model.safetensors").unlink()
    assert locate(source(hub), base_dir=tmp_path) is None
    assert get(source(hub), tmp_path) == loaded


def test_a_cache_that_another_program_filled_is_used(hub: FakeHub, tmp_path: Path) -> None:
    from huggingface_hub import hf_hub_download

    hub.add("org/model", FILES)
    download = partial(
        hf_hub_download, "org/model", cache_dir=tmp_path / "hub", endpoint=hub.url, token=False
    )
    download("config.json")
    assert locate(source(hub), base_dir=tmp_path) is None
    download("model.safetensors")
    asked = len(hub.paths())
    assert get(source(hub), tmp_path).size_bytes == len(CONFIG) + len(WEIGHTS)
    assert len(hub.paths()) == asked


def test_a_broken_connection_goes_on_where_it_broke(hub: FakeHub, tmp_path: Path) -> None:
    weights = WEIGHTS * 10
    hub.add("org/model", {"model.safetensors": weights})
    hub.break_after("model.safetensors", 2_500_000)
    progress = Recorder()
    loaded = get(source(hub), tmp_path, progress=progress)
    assert (Path(loaded.path) / "model.safetensors").read_bytes() == weights
    # The library writes in chunks, and what came of the last one is lost.
    assert [request.range for request in hub.cdn.requests] == [None, f"bytes={2 << 20}-"]
    assert progress.bytes == loaded.size_bytes


def test_a_connection_that_stays_broken_leaves_nothing_half_written(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", {"model.safetensors": WEIGHTS})
    hub.break_after("model.safetensors", *[0] * 20)
    with pytest.raises(SourceOffline, match="cannot be reached"):
        get(source(hub), tmp_path)
    assert content_files(tmp_path) == []
    assert locate(source(hub), base_dir=tmp_path) is None


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_with_a_wrong_hash_is_corrupt_and_removed(
    hub: FakeHub, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/model", FILES)
    wrong = FILES[name][:-1] + b"!"
    if name == "model.safetensors":
        hub.corrupt(WEIGHTS, becomes=wrong)
    else:
        serve = hub.file
        monkeypatch.setattr(hub, "file", lambda request, path, _, *rest: serve(request, path, wrong, *rest))
    with pytest.raises(Corrupt, match=f"`{name}` of `org/model` is not the file that the hub announces"):
        get(source(hub), tmp_path)
    assert name not in names_in(tmp_path / "hub" / "models--org--model")
    assert all(path.read_bytes() != wrong for path in content_files(tmp_path))
    assert locate(source(hub), base_dir=tmp_path) is None


def test_a_file_of_the_wrong_size_is_corrupt(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", {"model.safetensors": WEIGHTS})
    hub.corrupt(WEIGHTS, becomes=WEIGHTS[:-10])
    with pytest.raises(Corrupt, match="has not the size that the hub announces"):
        get(source(hub), tmp_path)
    assert content_files(tmp_path) == []


def test_cancelling_stops_and_leaves_nothing_half_written(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", {**FILES, "model.safetensors": WEIGHTS * 10})
    progress, cancel = cancelling_after(len(CONFIG) + 1)
    with pytest.raises(Cancelled):
        get(source(hub), tmp_path, progress=progress, cancel=cancel)
    assert [path.read_bytes() for path in content_files(tmp_path)] == [CONFIG]
    assert progress.calls == ["start", "finish"]
    assert locate(source(hub), base_dir=tmp_path) is None


def test_a_token_reaches_the_hub_but_not_where_files_lie(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", FILES, private=True, readers=[TOKEN])
    assert get(source(hub, token=TOKEN), tmp_path).format == "safetensors"
    assert {request.authorization for request in hub.requests} == {f"Bearer {TOKEN}"}
    assert {request.authorization for request in hub.cdn.requests} == {None}


def test_the_token_of_the_environment_is_not_sent_to_an_address_in_the_file(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.add("org/model", FILES)
    get(source(hub), tmp_path)
    assert {request.authorization for request in hub.requests} == {None}


def test_a_gated_repository_says_how_to_get_in(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", FILES, gated=True, readers=[TOKEN])
    hub.known_tokens.add("hf_other")
    for token, last in ((None, "set `token`"), ("hf_other", "use a token of the account")):
        with pytest.raises(AccessDenied, match="`org/model` is gated") as caught:
            get(source(hub, token=token), tmp_path)
        assert f"accept the terms at {hub.url}/org/model" in (caught.value.hint or "")
        assert last in (caught.value.hint or "")
    assert get(source(hub, token=TOKEN), tmp_path).format == "safetensors"


def test_a_private_repository_and_none_at_all_look_alike_to_strangers(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/private", FILES, private=True, readers=[TOKEN])
    for name in ("org/private", "org/nothing"):
        with pytest.raises(
            AccessDenied, match=f"`{name}` is private, or does not exist on `{hub.url}`"
        ) as caught:
            get(source(hub, name), tmp_path)
        assert "`HF_TOKEN`" in (caught.value.hint or "")


def test_a_file_that_may_not_be_read_is_denied(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", FILES, readers=[TOKEN])
    for token, hint in ((None, "set `token`"), (TOKEN, "give the token read access")):
        hub.fail_next(None, 403)
        with pytest.raises(AccessDenied, match="does not let us read `org/model`") as caught:
            get(source(hub, token=token), tmp_path)
        assert (caught.value.hint or "").startswith(hint)


def test_a_repository_that_does_not_exist_is_not_found_with_a_token(hub: FakeHub, tmp_path: Path) -> None:
    hub.known_tokens.add(TOKEN)
    with pytest.raises(SourceNotFound, match="there is no repository `org/nothing`"):
        get(source(hub, "org/nothing", token=TOKEN), tmp_path)


def test_a_wrong_token_is_denied_and_never_shown(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", FILES)
    with pytest.raises(AccessDenied, match="does not accept the token") as caught:
        get(source(hub, token="hf_wrong"), tmp_path)
    error: BaseException | None = caught.value
    while error is not None:
        shown = [str(error), repr(error), repr(error.args)]
        shown += [render(error)] if isinstance(error, ModelComposeError) else []
        assert all("hf_wrong" not in text for text in shown)
        error = error.__cause__ or error.__context__


def test_a_token_that_cannot_be_one_is_refused_and_never_shown(tmp_path: Path) -> None:
    with pytest.raises(AccessDenied, match="characters that no token has") as caught:
        get(HubSource(repository="org/model", token="hf_sec\nret", cache_dir="hub"), tmp_path)
    assert "hf_sec" not in repr(caught.value.args)


def test_blanks_around_a_token_and_a_slash_behind_an_address_do_no_harm(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", FILES, private=True, readers=[TOKEN])
    address = HubSource(repository="org/model", cache_dir="hub", token=f" {TOKEN}\n", endpoint=f"{hub.url}/")
    assert get(address, tmp_path).format == "safetensors"


def test_a_wrong_revision_names_the_nearest(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", FILES)
    hub.add("org/model", FILES, revision="v1.0")
    with pytest.raises(SourceNotFound, match=r"`org/model` has no revision `v1.1`") as caught:
        get(source(hub, revision="v1.1"), tmp_path)
    assert caught.value.hint == "did you mean `v1.0`? valid: `main`, `v1.0`"


def test_a_named_graph_comes_with_how_its_texts_are_pooled(hub: FakeHub, tmp_path: Path) -> None:
    wanted = {"onnx/model.onnx": WEIGHTS, "1_Pooling/config.json": CONFIG, "modules.json": b"[]"}
    hub.add("org/model", {**FILES, **wanted})
    loaded = get(source(hub, filename="onnx/model.onnx"), tmp_path)
    folder = Path(loaded.path).parents[1]
    assert names_in(folder) == sorted(["config.json", *wanted])


def test_a_wrong_filename_names_the_nearest(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", {"tiny.Q4.gguf": b"4", "tiny.Q8.gguf": b"8"})
    with pytest.raises(SourceNotFound, match=r"no file `tiny.q4.gguf`") as caught:
        get(source(hub, filename="tiny.q4.gguf"), tmp_path)
    assert (caught.value.hint or "").startswith("did you mean `tiny.Q")
    with pytest.raises(SourceNotFound) as caught:
        get(source(hub), tmp_path)
    assert caught.value.hint == "choose one with `filename`: `tiny.Q4.gguf`, `tiny.Q8.gguf`"


def test_a_path_that_was_taken_for_a_repository_is_explained(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"`models/deep/a.gguf` is not the name of a repository") as caught:
        get(HubSource(repository="models/deep/a.gguf"), tmp_path)
    assert "write `./models/deep/a.gguf`" in (caught.value.hint or "")


def test_a_hub_that_is_busy_is_asked_again(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_compose.sources.huggingface._WAITS_S", (0.01, 0.01))
    hub.add("org/model", FILES)
    hub.fail_next(503, 500)
    assert get(source(hub), tmp_path).format == "safetensors"
    hub.fail_next(503, 503, 503)
    with pytest.raises(SourceOffline, match="out of order: it answers 503"):
        get(source(hub), tmp_path, refresh=True)
    hub.fail_next(429)
    with pytest.raises(SourceError, match="asked less often"):
        get(source(hub), tmp_path, refresh=True)


def test_no_hub_at_all_is_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_compose.sources.huggingface._WAITS_S", (0.01,))
    with FakeHub() as gone:
        address = source(gone)
    with pytest.raises(SourceOffline, match="cannot be reached for `org/model`"):
        get(address, tmp_path)


def test_something_else_than_a_hub_is_an_error(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", FILES)
    hub.fail_next(200)
    with pytest.raises(SourceError, match="does not answer as a hub does"):
        get(source(hub), tmp_path)


def test_a_full_disk_leaves_nothing_half_written(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", FILES)
    said = resolve_with_full_disk(source(hub), tmp_path, limit_bytes=100_000)
    assert said.code == "source_error"
    assert said.message.startswith(f"no room for `org/model` in `{tmp_path}/hub`: 300 kB needed, ")
    assert said.stderr == ""
    assert [path.read_bytes() for path in content_files(tmp_path)] == [CONFIG]
    assert locate(source(hub), base_dir=tmp_path) is None


def test_two_processes_download_once(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", FILES)
    script = (
        "import sys; from pathlib import Path; from model_compose.sources.fetch import resolve;"
        "from model_compose.sources.cache import Cache; from model_compose.sources.spec import HubSource;"
        "folder = Path(sys.argv[1]);"
        "source = HubSource(repository='org/model', cache_dir='hub', endpoint=sys.argv[2]);"
        "print(resolve(source, base_dir=folder, cache=Cache(folder / 'cache')).path)"
    )
    command = [sys.executable, "-c", script, str(tmp_path), hub.url]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    paths = {child.communicate(timeout=60)[0].strip() for child in children}
    (path,) = paths
    assert (Path(path) / "model.safetensors").read_bytes() == WEIGHTS
    assert len(hub.cdn.requests) == 1
    assert hub.paths().count("GET /api/models/org/model") == 1


def test_two_threads_download_once(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", FILES)
    threads = [threading.Thread(target=get, args=(source(hub), tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(hub.cdn.requests) == 1


_CHILD = """
import json, sys, threading
from pathlib import Path
from model_compose.errors import ModelComposeError
from model_compose.sources.fetch import resolve
from model_compose.sources.spec import HubSource
try:
    print(resolve(HubSource(repository="org/model"), base_dir=Path("/")).path)
except ModelComposeError as error:
    print(error.code)
"""


def run_with(**environ: str) -> str:
    """What a process of its own, with these variables, gets for `org/model`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD],
        env=clean | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.strip()


def test_the_variables_of_the_hub_are_obeyed(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("org/model", FILES, private=True, readers=[TOKEN])
    environ = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "XDG_CACHE_HOME": str(tmp_path / "xdg"),
    }
    assert run_with(**environ, HF_TOKEN=TOKEN, HF_HUB_OFFLINE="1") == "source_offline"
    assert hub.paths() == []
    hub.break_after("model.safetensors", 1000)  # the library would print that it tries again
    path = run_with(**environ, HF_TOKEN=TOKEN)
    assert Path(path).is_relative_to(tmp_path / "hf" / "hub")
    # Beside the download itself, nothing is asked of the hub.
    assert sorted(hub.paths()) == sorted([
        "GET /api/models/org/model", "HEAD /org/model/resolve/" + Path(path).name + "/config.json",
        "GET /org/model/resolve/" + Path(path).name + "/config.json",
        "HEAD /org/model/resolve/" + Path(path).name + "/model.safetensors",
        *[f"GET {request.path}" for request in hub.cdn.requests],
    ])  # fmt: skip
    assert run_with(**environ) == path


def test_nothing_is_printed_but_it_can_be_logged(
    hub: FakeHub, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    hub.add("org/model", FILES)
    hub.break_after("model.safetensors", 100_000)
    with caplog.at_level(logging.WARNING, logger="huggingface_hub"):
        get(source(hub), tmp_path)
    assert capfd.readouterr() == ("", "")
    assert any("resume" in record.getMessage() for record in caplog.records)


def test_the_list_of_files_stays_with_the_cache(hub: FakeHub, tmp_path: Path) -> None:
    commit = hub.add("org/model", FILES)
    get(source(hub), tmp_path)
    listing = tmp_path / "hub" / "models--org--model" / "model-compose" / f"{commit}.json"
    assert json.loads(listing.read_text())["files"] == {name: len(content) for name, content in FILES.items()}
