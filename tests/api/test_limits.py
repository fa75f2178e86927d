"""What is too much is refused by HTTP, on the service and on its listeners; both still answer afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from tests.api.certificates import made_in
from tests.api.serving import ADMIN, ECHO, Service, serving

from model_compose.api import protocol, server
from model_compose.api.bodies import MOST_FIELDS, MOST_LEVELS
from model_compose.api.listeners import Ports, listening
from model_compose.api.protocol import MOST_HEAD_BYTES

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MULTIPART = {"Content-Type": "multipart/form-data; boundary=x"}
FILE = (
    ECHO.replace("{port: 0}", "{port: 0, max_body: 64KB}")
    + "  aliases: [gpt]\n"
    + "listeners:\n"
    + "  - {id: go, type: http-trigger, port: 0, path: /go, max_body: 64KB}\n"
    + "  - {id: done, type: http-callback, port: 0, path: /done, identify_by: '${item.id}', max_body: 64KB}\n"
)
#: Every route that takes a body.
ROUTES = (
    "/api/workflows/runs",
    "/api/generate",
    *("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/images/generations"),
    *("/v1/responses", "/v1/rerank"),
)
LISTENERS = ("/go", "/done")


class Reached(msgspec.Struct):
    """A service with its listeners, by what is asked."""

    service: Service
    ports: dict[str, str]

    def url(self, path: str) -> str:
        return f"{self.ports.get(path, self.service.url)}{path}"

    async def post(self, path: str, content: Any, headers: dict[str, str]) -> httpx2.Response:
        return await self.service.client.post(self.url(path), content=content, headers=headers)

    async def answers(self, path: str) -> bool:
        """Whether there is still an answer to something reasonable."""
        response = await self.post(path, b"{}", JSON)
        live = await self.service.client.get("/livez")
        return live.text == "ok\n" and response.status_code in (400, 404, 422)


@contextlib.asynccontextmanager
async def reached(folder: Path, text: str = FILE) -> AsyncIterator[Reached]:
    async with serving(text, folder) as service:
        with Ports(service.app.project) as ports:
            async with listening(service.app, ports):
                urls = [f"http://127.0.0.1:{sock.getsockname()[1]}" for sock in ports.sockets]
                yield Reached(service, dict(zip(LISTENERS, urls, strict=True)))


async def raw(url: str, *pieces: bytes) -> bytes:
    """What comes back for bytes that no client would send."""
    at = httpx2.URL(url)
    reader, writer = await asyncio.open_connection(at.host, at.port)
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
    answer = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(20):
            answer = await reader.read(4096)
    writer.close()
    return answer


@pytest.mark.parametrize(
    "said", [b"", b"G", b"GET /livez HTTP/1.1\r\nHost: x\r\n"], ids=["none", "one", "most"]
)
async def test_a_head_that_does_not_come_is_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD_WITHIN_S", 0.05)
    whole = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    async with reached(tmp_path) as at:
        for path in ("/", *LISTENERS):
            assert await raw(at.url(path), said) == b""
        again = httpx2.URL(at.url("/"))
        reader, writer = await asyncio.open_connection(again.host, again.port)
        writer.write(whole)
        assert await reader.readuntil(b"ok\n")
        writer.write(said or b"P")
        assert await reader.read() == b""
        writer.close()
        assert await at.answers("/api/workflows/runs")


async def test_bytes_that_begin_no_request_keep_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "KEEP_ALIVE_S", 0.3)
    head = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    async with reached(tmp_path) as at:
        url = httpx2.URL(at.url("/"))
        reader, writer = await asyncio.open_connection(url.host, url.port)
        for _ in range(2):
            writer.write(head)
            assert await reader.readuntil(b"ok\n")
            writer.write(b"\r\n")
        assert await reader.read() == b""
        writer.close()


async def test_a_head_that_does_not_come_waits_for_the_answer_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_WITHIN_S", 0.05)
    body = b'{"wait_for_completion": true}'
    head = b"POST /api/workflows/runs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    head += b"Content-Length: %d\r\n\r\n" % len(body)
    text = (
        "controller: {port: 0}\nworkflow: {jobs: [{id: wait, type: delay, duration: 500ms}], output: done}\n"
    )
    async with serving(text, tmp_path) as service:
        at = httpx2.URL(service.url)
        reader, writer = await asyncio.open_connection(at.host, at.port)
        writer.write(head + body + b"POST /")
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"done" in answer


# Bodies


async def test_a_body_that_is_too_large_is_413_however_it_comes(tmp_path: Path) -> None:
    async def chunks() -> Any:
        for _ in range(70):
            yield b" " * 1024

    async with reached(tmp_path) as at:
        for path in (*ROUTES, *LISTENERS):
            for content in (b" " * (64 * 1024 + 1), chunks()):
                response = await at.post(path, content, JSON)
                assert response.status_code == 413, path
                assert "65536 bytes" in response.text or "64000 bytes" in response.text
            assert await at.answers(path), path


@pytest.mark.parametrize("depth", [MOST_LEVELS + 2, 1200, 20_000])
async def test_json_that_is_too_deep_is_400(tmp_path: Path, depth: int) -> None:
    async with reached(tmp_path) as at:
        for path in (*ROUTES, *LISTENERS):
            name = b"item" if path in LISTENERS else b"input"
            body = b'{"%b": ' % name + b"[" * depth + b"]" * depth + b"}"
            response = await at.post(path, body, JSON)
            assert response.status_code == 400, (path, response.text)
            assert "nested too deeply" in response.text
            assert await at.answers(path), path


@pytest.mark.parametrize("content", [b"2\xff", b"[] []", b'{"model": 1} x', b"{" * 200, b"[1" + b"[" * 300])
async def test_json_that_is_broken_behind_a_mistake_is_no_crash(tmp_path: Path, content: bytes) -> None:
    async with reached(tmp_path) as at:
        for path in (*ROUTES, *LISTENERS):
            response = await at.post(path, content, JSON)
            assert response.status_code in (400, 422), (path, response.text)


# Forms


async def test_a_form_with_too_many_fields_is_400(tmp_path: Path) -> None:
    encoded = "&".join(f"f{i}=" for i in range(MOST_FIELDS + 1)).encode()
    parts = b"".join(_part(f'name="f{i}"') for i in range(MOST_FIELDS + 1)) + b"--x--\r\n"
    files = b"".join(_part(f'name="f"; filename="{i}"') for i in range(MOST_FIELDS + 1)) + b"--x--\r\n"
    async with reached(tmp_path, FILE.replace("64KB", "1MB")) as at:
        for path in ("/api/workflows/runs", "/api/generate"):
            for content, headers in ((encoded, FORM), (parts, MULTIPART), (files, MULTIPART)):
                response = await at.post(path, content, headers)
                assert (response.status_code, response.json()["type"]) == (400, "bad_request")
                assert str(MOST_FIELDS) in response.json()["detail"]
            assert await at.answers(path)
        assert (await at.post("/go", encoded, FORM)).status_code == 400
        assert (await at.post("/go", parts, MULTIPART)).status_code == 400  # listeners take no files
        assert await at.answers("/go")


def _part(about: str, *headers: str) -> bytes:
    lines = ["--x", f"Content-Disposition: form-data; {about}", *headers, "", "v", ""]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize(
    "headers",
    [
        ["X-Long: " + "a" * 20_000],
        [f"X-{i}: a" for i in range(2000)],
        ["a" * 20_000],
        ["Content-Type: " + ";a=b" * 4000],
    ],
    ids=["a long one", "many", "no header", "options"],
)
async def test_parts_with_headers_that_are_too_much_end_in_an_answer(
    tmp_path: Path, headers: list[str]
) -> None:
    content = _part('name="prompt"', *headers) + b"--x--\r\n"
    async with reached(tmp_path) as at:
        response = await at.post("/api/generate", content, MULTIPART)
        assert response.status_code in (200, 400), response.text
        assert await at.answers("/api/generate")


async def test_a_file_stays_in_memory_and_its_name_is_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with reached(tmp_path, FILE.replace("64KB", "8MB")) as at:
        monkeypatch.setattr(tempfile, "TemporaryFile", _no_file)
        about = 'name="image"; filename="../../../etc/passwd"'
        content = _part(about).replace(b"\r\nv\r\n", b"\r\n" + b"v" * (3 << 20) + b"\r\n") + b"--x--\r\n"
        response = await at.post("/api/generate", content, MULTIPART)
        assert (response.status_code, response.json()["field"]) == (422, "image")


def _no_file(*_: Any, **__: Any) -> Any:
    raise AssertionError("a file was written")


async def test_fields_of_a_form_that_are_nested_too_deeply_are_400_at_once(tmp_path: Path) -> None:
    async with reached(tmp_path) as at:
        for path in ("/api/workflows/runs", "/api/generate"):
            response = await at.post(path, b"a" + b"[b]" * 20_000 + b"=1", FORM)
            assert response.status_code == 400
            assert "nested too deeply" in response.text


# Heads


@pytest.mark.parametrize("path", ["/livez", *LISTENERS])
async def test_a_head_that_is_too_large_is_431(tmp_path: Path, path: str) -> None:
    start = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode()
    endless = [b"X-Long: ", *[b"a" * 8192] * 12]
    many = [b"".join(b"X-%d: a\r\n" % i for i in range(10_000))]
    address = [b"GET /" + b"a" * (MOST_HEAD_BYTES + 1)]
    whole = [start + b"X-Long: " + b"a" * (MOST_HEAD_BYTES + 1) + b"\r\n\r\n"]
    async with reached(tmp_path) as at:
        url = at.url(path)
        for pieces in ([start, *endless], [start, *many], address, whole):
            assert (await raw(url, *pieces)).startswith(b"HTTP/1.1 431 "), pieces[0][:20]
        assert await at.answers(path if path in LISTENERS else "/api/generate")


async def test_a_head_of_the_largest_size_and_a_body_behind_it_are_taken(tmp_path: Path) -> None:
    async with reached(tmp_path) as at:
        headers = {**JSON, "X-Long": "a" * (MOST_HEAD_BYTES - 1000)}
        for _ in range(3):  # one connection, whose requests are counted each by itself
            response = await at.post("/api/generate", b'{"prompt": "%b"}' % (b"x" * 60_000), headers)
            assert response.status_code == 200


async def test_trailers_without_end_end_the_connection(tmp_path: Path) -> None:
    head = b"POST /api/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    async with reached(tmp_path) as at:
        answer = await raw(at.service.url, head, *[b"X-T: " + b"a" * 8000 + b"\r\n"] * 40)
        assert b" 200 " not in answer
        assert await at.answers("/api/generate")


# Listeners


WITH_KEY = {"X-API-Key": "a-long-key", **JSON}


@pytest.mark.parametrize("own", [False, True], ids=["those of the service", "its own"])
async def test_listeners_ask_for_keys_on_every_path(tmp_path: Path, own: bool) -> None:
    """A trigger has those of the service unless it has its own; a callback has none unless it has its own."""
    text = FILE.replace("64KB}\ncomponent", "64KB, api_keys: [a-long-key]}\ncomponent")
    if own:
        text = FILE.replace("64KB}\n  - ", "64KB, api_keys: [a-long-key]}\n  - ")
        text = text.replace("id}', max_body: 64KB", "id}', max_body: 64KB, api_keys: [a-long-key]")
    async with reached(tmp_path, text) as at:
        for path in LISTENERS if own else LISTENERS[:1]:
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-API-Key": ADMIN}):
                for method, url in (("GET", path), ("POST", path), ("PUT", path), ("GET", "/nowhere")):
                    at_url = at.ports[path] + url
                    response = await at.service.client.request(method, at_url, headers=headers)
                    assert response.status_code == 401, (path, method)
                    assert "a-long-key" not in response.text
        assert (await at.post("/go", b'{"prompt": "a"}', WITH_KEY)).status_code == 202
        key = WITH_KEY if own else JSON
        assert (await at.post("/done", b'{"id": "a"}', key)).status_code == 200
        assert (await at.post("/done", b'{"id": "a"}', JSON)).status_code == (401 if own else 200)


async def test_listeners_are_encrypted_with_the_service(tmp_path: Path) -> None:
    certificate = made_in(tmp_path)
    tls = "max_body: 64KB, tls: {certificate: cert.pem, key: key.pem}}"
    async with serving(FILE.replace("max_body: 64KB}", tls, 1), tmp_path) as service:
        with Ports(service.app.project) as ports:
            assert all(" https://127.0.0.1:" in line for line in ports.urls())
            async with listening(service.app, ports):
                context = ssl.create_default_context(cafile=certificate)
                async with httpx2.AsyncClient(verify=context) as client:
                    for sock, path in zip(ports.sockets, LISTENERS, strict=True):
                        port = sock.getsockname()[1]
                        body = {"prompt": "a", "id": "a"} if path == "/done" else {"prompt": "a"}
                        answer = await client.post(f"https://localhost:{port}{path}", json=body)
                        assert answer.is_success, answer.text
                        with pytest.raises(httpx2.HTTPError):
                            await client.post(f"http://localhost:{port}{path}", json=body)
