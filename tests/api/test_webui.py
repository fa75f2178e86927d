"""The pages behind our port. What is on them: `tests/ui`."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from tests.api.serving import ECHO, Service, serving

from model_compose.api import webui_process

KEY = "a-key-of-somebody-who-looks"
WITH_KEY = ECHO.replace("port: 0", f"port: 0, api_keys: [{KEY}]")
PAGE = {"accept": "text/html,*/*"}


async def shown(service: Service, **more: Any) -> httpx2.Response:
    """The page, as a browser gets it that waits until it is there."""
    async with asyncio.timeout(110):
        while True:
            answer = await service.client.get("/ui/", headers={**PAGE, **more})
            if "Starting the web UI" not in answer.text:
                return answer
            assert answer.headers["cache-control"] == "no-store"
            await asyncio.sleep(0.1)


async def test_a_file_can_do_without(tmp_path: Path) -> None:
    async with serving(ECHO.replace("port: 0", "port: 0, webui: false"), tmp_path) as service:
        root = await service.client.get("/")
        page = await service.client.get("/ui/")
    assert (root.status_code, root.headers["location"]) == (307, "/docs")
    assert (page.status_code, page.json()["hint"]) == (404, "the file says `webui: false`")


async def test_without_gradio_it_is_told_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    async with serving(ECHO, tmp_path) as service:
        root = await service.client.get("/")
        page = await service.client.get("/ui/")
    assert root.headers["location"] == "/docs"
    assert (page.status_code, page.json()["type"]) == (503, "driver_missing")
    assert page.json()["hint"] == "pip install 'modelyard-compose[ui]'"


async def test_nothing_starts_before_somebody_looks(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service:
        root = await service.client.get("/")
        assert (root.status_code, root.headers["location"]) == (307, "/ui/")
        assert pages_of(service) == []
    assert "gradio" not in sys.modules


@pytest.mark.parametrize("path", ["/ui", "/ui/", "/ui/status", "/ui/gradio_api/queue/join", "/"])
async def test_it_is_for_those_with_a_key_and_for_our_own_pages(tmp_path: Path, path: str) -> None:
    async with serving(WITH_KEY, tmp_path) as service:
        for method in ("GET", "POST"):
            assert (await service.client.request(method, path)).status_code == 401
            strange = {"authorization": f"Bearer {KEY}", "origin": "https://example.com"}
            answer = await service.client.request(method, path, headers=strange)
            assert (answer.status_code, answer.json()["type"]) == (403, "forbidden")
        assert pages_of(service) == []


async def test_a_start_that_fails_is_told_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(ECHO, tmp_path) as service:
        with monkeypatch.context() as broken:
            broken.setenv("PYTHONPATH", str(tmp_path))
            (tmp_path / "model_compose.py").write_text("raise SystemExit('out of order')")
            broken.setattr(webui_process, "MODULE", "model_compose")
            answer = await service.client.get("/ui/")
        assert (answer.status_code, answer.json()["type"]) == (503, "service_error")
        assert "could not start; its last lines:\n  out of order" in answer.json()["detail"]
        assert pages_of(service) == []


def pages_of(service: Service) -> list[psutil.Process]:
    """The processes that make pages."""
    return [p for p in psutil.Process().children() if "model_compose.ui" in " ".join(p.cmdline())]


@pytest.mark.process
@pytest.mark.timeout(240)
async def test_the_pages_of_another_process_come_through_our_port(tmp_path: Path) -> None:
    text = WITH_KEY.replace("port: 0", "port: 0, max_body: 100KB")
    async with serving(text, tmp_path) as service:
        service.client.headers["authorization"] = f"Bearer {KEY}"
        first = await service.client.get("/ui/", headers=PAGE)
        assert "Starting the web UI" in first.text
        page = await shown(service)
        assert page.status_code == 200
        assert "default-src 'self'" in page.headers["content-security-policy"]
        assert f'"root":"{service.url}/ui"' in page.text
        (process,) = pages_of(service)
        assert KEY not in " ".join([*process.cmdline(), *process.environ().values()])

        # Files go up, as far as the file allows, and come back; others of this machine do not.
        upload = "/ui/gradio_api/upload"
        (path,) = (await service.client.post(upload, files={"files": ("a.txt", b"hello")})).json()
        assert (await service.client.get(f"/ui/gradio_api/file={path}")).content == b"hello"
        large = await service.client.post(upload, files={"files": ("b.txt", b"x" * 200_000)})
        assert (large.status_code, large.json()["type"]) == (413, "body_too_large")
        for other in (__file__, str(tmp_path / "model-compose.yml"), "/etc/passwd", f"{service.url}/livez"):
            refused = await service.client.get(f"/ui/gradio_api/file={other}")
            assert refused.status_code in (403, 404, 500), refused.text
            assert "hello" not in refused.text

        # When it dies, it is started again.
        os.kill(process.pid, signal.SIGKILL)
        await service.eventually(lambda: not process.is_running() or process.status() == "zombie", "it died")
        page = await shown(service)
        assert page.status_code == 200, page.text
        (again,) = pages_of(service)
        assert again.pid != process.pid

        # A page that is open does not keep the service from ending.
        opened = asyncio.Event()
        open_page = asyncio.create_task(_read(service, "/ui/gradio_api/heartbeat/abc", opened))
        await opened.wait()
        ended = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - ended < 20  # and not the 35 s of those who hang on
    await open_page
    assert not again.is_running()


async def _read(service: Service, path: str, opened: asyncio.Event) -> None:
    headers = service.client.headers
    async with (
        httpx2.AsyncClient(base_url=service.url, headers=headers) as client,
        client.stream("GET", path, timeout=60) as response,
    ):
        async for piece in response.aiter_bytes():
            assert b"ALIVE" in piece
            opened.set()


@pytest.mark.process
async def test_a_port_of_its_own_leads_to_the_pages(tmp_path: Path) -> None:
    file = tmp_path / "model-compose.yml"
    file.write_text(ECHO.replace("port: 0", "port: 0, webui: {port: 0}"))
    up = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "model_compose", "-f", str(file), "up"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        assert up.stdout is not None
        said = ""
        async with asyncio.timeout(60):
            while "workflows" not in said:
                line = (await up.stdout.readline()).decode()
                assert line, said
                said += line
        (api,) = re.findall(r"API +(http\S+)", said)
        (pages,) = re.findall(r"web UI +(http\S+)/ui/", said)
        assert not api.startswith(pages)
        async with httpx2.AsyncClient() as client:
            root = await client.get(f"{pages}/")
            assert (root.status_code, root.headers["location"]) == (307, "/ui/")
            assert (await client.get(f"{pages}/", headers={"host": "example.com"})).status_code == 403
    finally:
        up.send_signal(signal.SIGTERM)
        await up.communicate()


@pytest.mark.process
async def test_the_process_of_the_pages_speaks_with_nobody_else(tmp_path: Path) -> None:
    code = """
import asyncio, json, socket, sys
from model_compose.ui import __main__ as ui
sys.addaudithook(ui.stay_here)
told = []
def tries(what, *given):
    try:
        what(*given)
    except PermissionError as error:
        told.append(str(error))
    except OSError:
        pass
tries(socket.create_connection, ("127.0.0.1", 9))
tries(socket.getaddrinfo, "example.com", 80)
tries(lambda: asyncio.run(asyncio.open_connection("127.0.0.1", 9)))
unix = socket.socket(socket.AF_UNIX)
tries(unix.connect, "/nowhere.sock")
print(json.dumps(told))
"""
    ran = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    out, _ = await ran.communicate()
    assert len(json.loads(out)) == 3
