"""Which requests are let in."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.api.serving import ECHO, serving

OPEN = ECHO.replace("{port: 0}", '{port: 0, origins: "https://app.example, https://other.example"}')


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
async def test_a_foreign_name_for_this_machine_is_refused(tmp_path: Path, host: str) -> None:
    async with serving(ECHO, tmp_path) as service:
        response = await service.client.get("/api/workflows", headers={"Host": host})
    assert response.status_code in (400, 403)


@pytest.mark.parametrize("host", ["localhost", "localhost:1234", "[::1]:80", "127.0.0.1", "127.9.9.9:1"])
async def test_names_of_this_machine_are_let_in(tmp_path: Path, host: str) -> None:
    async with serving(ECHO, tmp_path) as service:
        response = await service.client.get("/api/workflows", headers={"Host": host})
    assert response.status_code == 200


async def test_a_web_page_from_elsewhere_is_refused_even_with_a_plain_form(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service:
        response = await service.client.post(
            "/api/workflows/runs", data={"input": "x"}, headers={"Origin": "https://evil.example"}
        )
    assert (response.status_code, response.json()["type"]) == (403, "forbidden")


async def test_a_page_of_our_own_and_an_origin_of_the_file_are_let_in(tmp_path: Path) -> None:
    async with serving(OPEN, tmp_path) as service:
        own = await service.client.get("/api/workflows", headers={"Origin": service.url})
        listed = await service.client.get("/api/workflows", headers={"Origin": "https://other.example"})
        preflight = await service.client.options(
            "/api/workflows/runs",
            headers={"Origin": "https://app.example", "Access-Control-Request-Method": "POST"},
        )
        other = await service.client.get("/api/workflows", headers={"Origin": "https://evil.example"})
    assert own.status_code == listed.status_code == preflight.status_code == 200
    assert listed.headers["access-control-allow-origin"] == "https://other.example"
    assert "access-control-allow-credentials" not in listed.headers
    assert other.status_code == 403


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "http://[",
        "http://[::1",
        "http://user@127.0.0.1:{port}",
        "HTTP://evil.example",
        "127.0.0.1:{port}",
    ],
)
async def test_an_origin_that_is_none_of_ours_is_refused_however_odd_it_is(
    tmp_path: Path, origin: str
) -> None:
    async with serving(ECHO, tmp_path) as service:
        given = origin.replace("{port}", service.url.rpartition(":")[2])
        response = await service.client.get("/api/workflows", headers={"Origin": given})
    assert (response.status_code, response.json()["type"]) == (403, "forbidden")
