from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.index import FakeIndex, wheel, write_folder_index
from tests.fakes.web import Answer, Request, WebServer, sha256_of

from model_compose.errors import SourceError
from model_compose.sources.download import Http, Retry
from model_compose.sources.indexes import Index
from model_compose.sources.simple_api import Link, offered

WHEEL = wheel({"a.gguf": b"weights"})
NAME = "my_pkg-1.0-py3-none-any.whl"
HASH = sha256_of(WHEEL)


@pytest.fixture
def http() -> Iterator[Http]:
    with Http(cancel=threading.Event(), retry=Retry(attempts=1)) as http:
        yield http


@pytest.mark.parametrize(("form", "size"), [("json", len(WHEEL)), ("html", None)])
def test_a_server_is_read_in_both_forms(http: Http, form: str, size: int | None) -> None:
    with FakeIndex(form=form) as index:
        index.add(NAME, WHEEL)
        links = offered(Index(url=f"{index.url}/simple"), "My.Pkg", http)
        assert links == [Link(NAME, f"{index.url}/files/{NAME}", HASH, size)]
        assert index.requests[0].path == "/simple/my-pkg/"
        assert "application/vnd.pypi.simple.v1+json" in index.requests[0].headers["accept"]


def test_a_package_that_a_server_does_not_know_gives_nothing(http: Http) -> None:
    with FakeIndex() as index:
        assert offered(Index(url=f"{index.url}/simple"), "pkg", http) == []


def test_credentials_are_sent(http: Http) -> None:
    with FakeIndex(login=("me", "secret")) as index:
        index.add(NAME, WHEEL)
        place = Index(url=f"{index.url}/simple", credentials=("me", "secret"))
        assert len(offered(place, "my-pkg", http)) == 1


@pytest.mark.parametrize("hashes", [True, False])
def test_a_folder_is_an_index_without_a_network(http: Http, tmp_path: Path, hashes: bool) -> None:
    url = write_folder_index(tmp_path, {NAME: WHEEL}, hashes=hashes)
    (link,) = offered(Index(url=url), "my-pkg", http)
    assert (link.filename, link.sha256) == (NAME, HASH if hashes else None)
    assert link.local_path is not None
    assert link.local_path.read_bytes() == WHEEL
    assert offered(Index(url=url), "other", http) == []


def test_a_folder_of_files_and_a_page_of_links_are_flat(http: Http, tmp_path: Path) -> None:
    (tmp_path / "with space").mkdir()
    (tmp_path / "with space" / NAME).write_bytes(WHEEL)
    folder = Index(url=(tmp_path / "with space").as_uri(), flat=True)
    (link,) = offered(folder, "my-pkg", http)
    assert link.local_path == tmp_path / "with space" / NAME
    page = tmp_path / "page.html"
    page.write_text(f"<a href='with%20space/{NAME}'>wheel</a><A HREF='x.tar.gz'>x</A>")
    links = offered(Index(url=page.as_uri(), flat=True), "my-pkg", http)
    assert [each.filename for each in links] == [NAME, "x.tar.gz"]
    assert links[0].local_path == tmp_path / "with space" / NAME


class Page(WebServer):
    def __init__(self, content_type: str, body: bytes) -> None:
        super().__init__()
        self._page = Answer(200, {"Content-Type": content_type}, body)

    def answer(self, request: Request) -> Answer:
        return self._page


def test_a_base_moves_relative_links(http: Http) -> None:
    with Page(
        "text/html", b'<base href="https://files.example/w/"><a href="a-1-py3-none-any.whl">a</a>'
    ) as page:
        (link,) = offered(Index(url=page.url), "a", http)
    assert link.url == "https://files.example/w/a-1-py3-none-any.whl"


@pytest.mark.parametrize("digest", ["../../etc/passwd", "abc", "g" * 64, "sha256"])
def test_a_digest_that_is_none_is_not_taken(http: Http, digest: str) -> None:
    with FakeIndex() as index:
        index.add(NAME, WHEEL, sha256=digest)
        (link,) = offered(Index(url=f"{index.url}/simple"), "my-pkg", http)
    assert link.sha256 is None


def test_a_server_cannot_point_to_files_of_this_machine(http: Http) -> None:
    with Page("text/html", b'<a href="file:///etc/passwd">a</a><a href="ftp://x/a.whl">a</a>') as page:
        assert offered(Index(url=page.url), "a", http) == []


def test_a_server_that_is_no_index_is_an_error(http: Http) -> None:
    with (
        Page("application/json", b'{"message": "hello"}') as page,
        pytest.raises(SourceError, match="does not answer as a package index does"),
    ):
        offered(Index(url=page.url), "a", http)
