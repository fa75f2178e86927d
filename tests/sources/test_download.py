from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.fakes.web import Answer, Request, WebServer
from tests.sources.recorder import Recorder, cancelling_after

from model_compose.errors import AccessDenied, Cancelled, Corrupt, SourceError, SourceNotFound, SourceOffline
from model_compose.sources.download import Http, Partial, Retry

CONTENT = bytes(range(256)) * 1024
NAME = "weights.bin"


class Site(WebServer):
    """One file, with an ETag that can change and answers that can be put before it."""

    def __init__(self) -> None:
        super().__init__()
        self.etag = '"v1"'
        self.content = CONTENT
        self.first: list[Answer] = []
        self.when_asked: Callable[[], None] = lambda: None

    def answer(self, request: Request) -> Answer:
        self.when_asked()
        if self.first:
            return self.first.pop(0)
        return self.file(request, NAME, self.content, self.etag, {})


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@pytest.fixture
def http() -> Iterator[Http]:
    with Http(cancel=threading.Event(), retry=Retry(attempts=3, first_wait_s=0.01)) as http:
        yield http


@pytest.fixture
def partial(tmp_path: Path) -> Partial:
    return Partial(tmp_path / "file.part")


def download(http: Http, site: Site, partial: Partial, **options: Any) -> Recorder:
    progress = Recorder()
    http.download(f"{site.url}/{NAME}", partial, label="weights", progress=progress, **options)
    return progress


def test_a_file_arrives_whole_and_progress_is_told(http: Http, site: Site, partial: Partial) -> None:
    progress = download(http, site, partial, size_bytes=len(CONTENT))
    assert partial.path.read_bytes() == CONTENT
    assert (progress.label, progress.total_bytes, progress.bytes) == ("weights", len(CONTENT), len(CONTENT))
    assert progress.calls == ["start", "finish"]


def test_a_broken_connection_goes_on_where_it_broke(http: Http, site: Site, partial: Partial) -> None:
    site.break_after(NAME, 100_000, 50_000)
    progress = download(http, site, partial)
    assert partial.path.read_bytes() == CONTENT
    assert progress.bytes == len(CONTENT)
    assert [request.range for request in site.requests] == [None, "bytes=100000-", "bytes=150000-"]
    assert [request.headers.get("if-range") for request in site.requests] == [None, '"v1"', '"v1"']


def test_a_connection_that_breaks_often_is_tried_while_it_gets_anywhere(
    http: Http, site: Site, partial: Partial
) -> None:
    site.break_after(NAME, *[20_000] * 8)
    download(http, site, partial)
    assert partial.path.read_bytes() == CONTENT


def test_what_came_is_kept_when_the_connection_stays_broken(http: Http, site: Site, partial: Partial) -> None:
    site.break_after(NAME, 100_000, 0, 0)
    with pytest.raises(SourceOffline, match=r"`127.0.0.1` cannot be reached") as caught:
        download(http, site, partial)
    assert "goes on from there" in (caught.value.hint or "")
    assert partial.size_bytes == 100_000

    progress = download(http, site, partial, size_bytes=len(CONTENT))
    assert partial.path.read_bytes() == CONTENT
    assert site.requests[-1].range == "bytes=100000-"
    assert progress.already == 100_000


def test_a_file_that_changed_meanwhile_comes_anew(http: Http, site: Site, partial: Partial) -> None:
    site.break_after(NAME, 100_000, 0, 0)
    with pytest.raises(SourceOffline):
        download(http, site, partial)
    site.etag, site.content = '"v2"', CONTENT[::-1]
    progress = download(http, site, partial)
    assert partial.path.read_bytes() == CONTENT[::-1]
    assert progress.bytes == len(CONTENT)


def test_a_server_without_ranges_sends_everything_again(http: Http, site: Site, partial: Partial) -> None:
    site.first = [Answer(200, {}, CONTENT, 5000), Answer(200, {}, CONTENT)]
    progress = download(http, site, partial)
    assert partial.path.read_bytes() == CONTENT
    assert progress.bytes == len(CONTENT)


def test_a_part_that_does_not_continue_ours_is_not_appended(http: Http, site: Site, partial: Partial) -> None:
    partial.path.write_bytes(CONTENT[:5000])
    site.first = [Answer(206, {"Content-Range": f"bytes 4000-4999/{len(CONTENT)}"}, CONTENT[4000:5000])]
    download(http, site, partial)
    assert partial.path.read_bytes() == CONTENT


def test_a_file_that_is_already_whole_does_not_travel(http: Http, site: Site, partial: Partial) -> None:
    partial.path.write_bytes(CONTENT)
    download(http, site, partial, size_bytes=len(CONTENT))
    assert site.requests == []
    download(http, site, partial)  # only the server knows that this is all
    assert site.requests[0].range == f"bytes={len(CONTENT)}-"
    assert partial.path.read_bytes() == CONTENT


def test_more_than_was_announced_is_corrupt_and_removed(http: Http, site: Site, partial: Partial) -> None:
    with pytest.raises(Corrupt, match="`weights` is larger than announced"):
        download(http, site, partial, size_bytes=1000)
    assert not partial.path.exists()


def test_busy_answers_are_waited_for(http: Http, site: Site, partial: Partial) -> None:
    site.first = [Answer(503), Answer(429, {"Retry-After": "0"})]
    download(http, site, partial)
    assert partial.path.read_bytes() == CONTENT


def test_a_server_that_stays_busy_is_given_up(http: Http, site: Site, partial: Partial) -> None:
    site.first = [Answer(503)] * 3
    with pytest.raises(SourceError, match="it answers 503"):
        download(http, site, partial)
    assert len(site.requests) == 3


@pytest.mark.parametrize(
    ("status", "error"), [(401, AccessDenied), (403, AccessDenied), (404, SourceNotFound), (418, SourceError)]
)
def test_a_refusal_is_not_tried_again(
    http: Http, site: Site, partial: Partial, status: int, error: type[SourceError]
) -> None:
    site.first = [Answer(status)]
    with pytest.raises(error, match=str(status)):
        download(http, site, partial)
    assert len(site.requests) == 1


def test_nobody_there_is_offline(http: Http, partial: Partial) -> None:
    with Site() as gone:
        address = gone.url
    with pytest.raises(SourceOffline, match=r"`127.0.0.1` cannot be reached"):
        http.download(f"{address}/{NAME}", partial, label="weights", progress=Recorder())
    assert not partial.path.exists()


def test_cancelling_stops_between_chunks_and_keeps_what_came(site: Site, partial: Partial) -> None:
    progress, cancel = cancelling_after(1)
    with Http(cancel=cancel) as http, pytest.raises(Cancelled):
        http.download(f"{site.url}/{NAME}", partial, label="weights", progress=progress)
    assert 0 < partial.size_bytes < len(CONTENT)
    assert progress.calls == ["start", "finish"]


def test_cancelling_ends_the_wait_for_another_try(site: Site, partial: Partial) -> None:
    cancel = threading.Event()
    site.first = [Answer(503, {"Retry-After": "30"})] * 5
    site.when_asked = lambda: threading.Timer(0.05, cancel.set).start()
    with Http(cancel=cancel) as http, pytest.raises(Cancelled):
        http.download(f"{site.url}/{NAME}", partial, label="weights", progress=Recorder())
    assert len(site.requests) == 1


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_disk_too_small_is_seen_before_anything_is_written(
    http: Http, site: Site, partial: Partial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(1000, 0, 1000))
    with pytest.raises(SourceError, match=r"262 kB needed, 1.0 kB free"):
        download(http, site, partial)
    assert partial.size_bytes == 0


def test_a_page_is_fetched_whole_and_bounded(http: Http, site: Site) -> None:
    page = http.page(f"{site.url}/x?key=secret", accept="text/html")
    assert (page.body, page.url) == (CONTENT, f"{site.url}/x?key=secret")
    assert site.requests[0].headers["accept"] == "text/html"
    with pytest.raises(SourceError, match="larger than 1000 bytes") as caught:
        http.page(f"{site.url}/x?key=secret", accept="text/html", limit_bytes=1000)
    assert "secret" not in str(caught.value)
