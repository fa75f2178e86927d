from __future__ import annotations

import base64
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_compose.components.media import Media, _is_public
from model_compose.config.values import Type, convert
from model_compose.errors import InvalidInput
from model_compose.types import Blob

LIMIT = 100_000
PNG = b"\x89PNG\r\n\x1a\n and so on"
IMAGE = Type("image")


class _Pages(BaseHTTPRequestHandler):
    """A web server with a picture, and with everything that a server does to fool a client."""

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers["host"]))  # type: ignore[attr-defined]
        match self.path.partition("?")[0]:
            case "/cat.png":
                self._send(200, PNG, {"content-type": "image/png"})
            case "/moved":
                self._send(302, b"", {"location": "/cat.png"})
            case "/round":
                self._send(302, b"", {"location": "/round"})
            case "/inside":
                port = self.server.server_address[1]  # type: ignore[index]
                self._send(302, b"", {"location": f"http://127.0.0.1:{port}/cat.png"})
            case "/file":
                self._send(302, b"", {"location": "file:///etc/passwd"})
            case "/zip":
                self._send(200, b"...", {"content-encoding": "gzip"})
            case "/half":
                self._send(200, b"x" * 60_000, {"content-type": "image/png"})
            case "/large":
                self.send_response(200)
                self.end_headers()
                for _ in range(20):
                    self.wfile.write(b"x" * 10_000)
            case _:
                self._send(404, b"no", {})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def pages() -> Iterator[Any]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Pages)
    server.seen = []  # type: ignore[attr-defined]
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def url_of(server: Any, path: str, host: str = "localhost") -> str:
    return f"http://{host}:{server.server_address[1]}{path}"


def media(folder: Path | None = None, hosts: tuple[str, ...] = ()) -> Media:
    return Media([folder] if folder else [], hosts, LIMIT)


async def blob(value: Any, **more: Any) -> Blob:
    found = await media(**more).files(value, "image", "image")
    assert isinstance(found, Blob)
    return found


@pytest.mark.parametrize(
    "text",
    [
        f"data:image/png;base64,{base64.b64encode(PNG).decode()}",
        f"DATA:image/png;name=cat.png;base64,{base64.b64encode(PNG).decode()}",
        base64.b64encode(PNG).decode(),
        base64.encodebytes(PNG).decode(),
        "data:image/png,%89PNG%0D%0A%1A%0A%20and%20so%20on",
    ],
)
async def test_the_same_file_in_every_spelling(text: str) -> None:
    found = await blob(text)
    assert found.data == PNG
    assert found.media_type in ("image/png", "application/octet-stream")


@given(st.binary(min_size=1, max_size=200), st.sampled_from(["image/png", "text/plain"]))
def test_a_data_uri_comes_back_as_what_it_was(content: bytes, kind: str) -> None:
    before = Blob(kind, content)
    assert convert(before.data_uri(), IMAGE, "image", media().converters) == before


@pytest.mark.parametrize("value", ["photo.png", "data:image/png;base64", "", "ünïcode", 7, {"a": 1}])
async def test_what_is_no_file_is_refused_with_its_field(value: Any) -> None:
    with pytest.raises(InvalidInput, match="`image`") as caught:
        await blob(value)
    assert caught.value.field == "image"


def test_a_list_for_a_slot_of_many_stays_one() -> None:
    one = Blob("image/png", PNG)
    wanted = Type("image", lists=True)
    assert convert([one, one.data_uri()], wanted, "image", media().converters) == [one, one]


async def test_a_file_is_read_from_an_allowed_folder_and_nowhere_else(tmp_path: Path) -> None:
    allowed, secret = tmp_path / "photos", tmp_path / "secret"
    for folder in (allowed, secret):
        folder.mkdir()
        (folder / "cat.png").write_bytes(PNG)
    (allowed / "link.png").symlink_to(secret / "cat.png")
    (allowed / "large.png").write_bytes(b"x" * (LIMIT + 1))
    reader = media(allowed)
    by_path = Type("image", format="path")

    def read(name: str) -> Any:
        return convert(name, by_path, "image", reader.converters)

    assert read("cat.png") == Blob("image/png", PNG, "cat.png")
    assert read(str(allowed / "cat.png")).data == PNG
    for name in ("../secret/cat.png", str(secret / "cat.png"), "link.png", "none.png", ".", "a\0b"):
        with pytest.raises(InvalidInput, match=r"no file in a folder of `controller.file_roots`"):
            read(name)
    with pytest.raises(InvalidInput, match="larger than 100000 bytes"):
        read("large.png")
    with pytest.raises(InvalidInput, match="file_roots"):
        convert("cat.png", by_path, "image", media().converters)


async def test_a_path_is_none_without_the_word_for_it(tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes(PNG)
    with pytest.raises(InvalidInput, match="neither a data URI, base64, nor"):
        await blob(str(tmp_path / "cat.png"), folder=tmp_path)


async def test_a_url_of_a_listed_host_is_fetched(pages: Any) -> None:
    found = await blob(url_of(pages, "/cat.png?v=1"), hosts=("localhost",))
    assert found == Blob("image/png", PNG, "cat.png")
    assert pages.seen == [("/cat.png?v=1", f"localhost:{pages.server_address[1]}")]


async def test_certificates_that_cannot_be_read_are_no_reason_of_ours(
    pages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost() -> None:
        raise OSError("no certificates here")

    monkeypatch.setattr("model_compose.components.media._tls", lost)
    with pytest.raises(InvalidInput, match="no certificates here"):
        await blob(url_of(pages, "/cat.png"), hosts=("localhost",))


async def test_a_redirect_is_followed_where_it_leads_to_a_listed_host(pages: Any) -> None:
    assert (await blob(url_of(pages, "/moved"), hosts=("localhost",))).data == PNG


async def test_what_the_urls_of_a_list_lead_to_is_bounded_together(pages: Any) -> None:
    fetch = media(hosts=("localhost",)).files
    url = url_of(pages, "/half")
    given = [Blob("image/png", b"x" * LIMIT), url]
    assert [len(each.data) for each in await fetch(given, "image", "image")] == [LIMIT, 60_000]  # type: ignore[union-attr]
    with pytest.raises(InvalidInput, match="larger than") as caught:
        await fetch([url, url], "image", "image")
    assert caught.value.field == "image[1]"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/inside", "`127.0.0.1` has no public address"),
        ("/file", "no http"),
        ("/round", "more than 5 redirects"),
        ("/none", "answers 404"),
        ("/zip", "compresses"),
        ("/large", "larger than 100000 bytes"),
    ],
)
async def test_what_a_server_may_not_do(pages: Any, path: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        await blob(url_of(pages, path), hosts=("localhost",))


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "[::1]", "0.0.0.0", "169.254.169.254", "10.0.0.1"]
)
async def test_a_private_address_is_not_asked(pages: Any, host: str) -> None:
    with pytest.raises(InvalidInput, match="no public address"):
        await blob(url_of(pages, "/cat.png", host))
    assert pages.seen == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:7f00:1::", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::5db8:d822", True),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert _is_public(address) is public


async def test_a_url_with_a_password_is_refused() -> None:
    with pytest.raises(InvalidInput, match="without credentials"):
        await blob("http://me:secret@localhost/cat.png", hosts=("localhost",))
    with pytest.raises(InvalidInput) as caught:
        await blob("http://localhost:1/cat.png?token=secret", hosts=("localhost",))
    assert "secret" not in str(caught.value)
