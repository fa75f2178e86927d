"""Who is let in, and what they may do."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.routing import Mount, Route
from tests.api.certificates import made_in
from tests.api.serving import ADMIN, ECHO, Service, serving

USE, OTHER, BOSS = (
    "a-key-of-somebody-who-uses",
    "a-key-of-somebody-else-who-uses",
    "a-key-of-the-administrator",
)
LISTED = f"[{USE}, {{key: {OTHER}, name: other}}, {{key: {BOSS}, role: admin, name: boss}}]"
KEYS = ECHO.replace("{port: 0}", f"{{port: 0, api_keys: {LISTED}}}")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def routes_of(asgi: Any) -> Iterator[tuple[str, str]]:
    """Method and path of everything that is served, found below whatever stands in front of it."""
    while not hasattr(asgi, "routes"):
        asgi = getattr(asgi, "_others", None) or getattr(asgi, "_app", None) or asgi.app
    for route in asgi.routes:
        if isinstance(route, Mount):
            yield "GET", f"{route.path}/swagger-ui.css"
        else:
            assert isinstance(route, Route)
            path = route.path
            for name in route.param_convertors:
                path = path.replace(f"{{{name}}}", "echo")
            for method in sorted((route.methods or {"GET"}) - {"HEAD"}):
                yield method, path


async def test_no_route_but_one_is_open(tmp_path: Path) -> None:
    async with serving(KEYS, tmp_path) as service:
        routes = list(routes_of(service.server.config.app))
        for headers in ({}, bearer("wrong"), {"X-API-Key": ""}, {"X-API-Key": "wrong"}):
            for method, path in [*routes, ("GET", "/nowhere"), ("POST", "/livez/../metrics")]:
                answer = await service.client.request(method, path, headers=headers)
                if path == "/livez":
                    assert answer.status_code == 200
                    continue
                assert answer.status_code == 401, (method, path)
                assert answer.headers.get_list("www-authenticate")[0] == "Bearer"
    assert len(routes) > 12


async def test_every_way_of_showing_a_key_is_taken(tmp_path: Path) -> None:
    basic = base64.b64encode(f"anybody:{USE}".encode()).decode()
    async with serving(KEYS, tmp_path) as service:
        for headers in (bearer(USE), {"X-API-Key": USE}, {"Authorization": f"Basic {basic}"}):
            assert (await service.client.get("/api/workflows", headers=headers)).status_code == 200
        broken = await service.client.get("/api/workflows", headers={"Authorization": "Basic %%%"})
        assert broken.status_code == 401


async def test_only_an_administrator_stops_components(tmp_path: Path) -> None:
    async with serving(KEYS, tmp_path) as service:
        path = "/api/components/echo/stop"
        refused = await service.client.post(path, headers=bearer(USE))
        assert (refused.status_code, refused.json()["type"]) == (403, "forbidden")
        assert (await service.client.post(path, headers=bearer(BOSS))).status_code == 202
        assert (await service.client.post(path, headers=bearer(ADMIN))).status_code == 202


async def _started(service: Service, key: str) -> str:
    body = {"input": "one two three", "wait_for_completion": False}
    answer = await service.client.post("/api/workflows/runs", json=body, headers=bearer(key))
    return str(answer.json()["task_id"])


@pytest.mark.parametrize("key", [USE, BOSS])
async def test_a_run_is_shown_to_its_owner_and_to_administrators(tmp_path: Path, key: str) -> None:
    async with serving(KEYS, tmp_path, state=tmp_path) as service:
        task = await _started(service, USE)
        shown = await service.client.get(f"/api/tasks/{task}", headers=bearer(key))
        cancelled = await service.client.post(f"/api/tasks/{task}/cancel", headers=bearer(key))
    assert shown.status_code == cancelled.status_code == 200
    assert shown.json()["owner"] == "key-0"


async def test_a_run_of_somebody_else_is_not_there(tmp_path: Path) -> None:
    async with serving(KEYS, tmp_path) as service:
        task = await _started(service, USE)
        for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
            answer = await service.client.request(method, f"/api/tasks/{task}{path}", headers=bearer(OTHER))
            assert (answer.status_code, answer.json()["type"]) == (404, "not_found")
            missing = await service.client.request(method, f"/api/tasks/no{path}", headers=bearer(OTHER))
            assert missing.json()["detail"].replace("no", task) == answer.json()["detail"].replace("no", task)


async def test_without_keys_nobody_is_asked(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service:
        assert (await service.client.get("/api/workflows")).status_code == 200
        assert (await service.client.get("/api/workflows", headers=bearer("any"))).status_code == 200
        assert (await service.client.post("/api/components/echo/stop")).status_code == 403


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return made_in(tmp_path)


async def test_connections_are_encrypted_where_the_file_says_so(tmp_path: Path, certificate: Path) -> None:
    file = ECHO.replace("{port: 0}", "{port: 0, tls: {certificate: cert.pem, key: key.pem}}")
    async with serving(file, tmp_path) as service:
        port = service.url.rpartition(":")[2]
        context = ssl.create_default_context(cafile=certificate)
        async with httpx2.AsyncClient(verify=context) as client:
            answer = await client.get(f"https://localhost:{port}/livez")
        with pytest.raises(httpx2.HTTPError):
            await service.client.get("/livez")
    assert answer.text == "ok\n"
