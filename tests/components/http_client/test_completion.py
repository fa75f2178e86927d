"""Does a call wait for work that it only began, and see how it ended?"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.components.http_client.upstream import Asked, Connection, Handler, Upstream, upstream
from tests.compose.apps import app_of, output_of, run_of

from model_compose.errors import InvalidInput, TimedOut, UpstreamError

POLLING = """
component:
  type: http-client
  base_url: URL
  headers: {Authorization: Bearer key}
  path: /jobs
  body: {what: "${input.what}"}
  completion:
    type: polling
    path: /jobs/${response.id}
    params: {who: "${input.what}"}
    status: ${result.state}
    success_when: [done, 7]
    fail_when: failed
    interval: 1ms
    timeout: TIMEOUT
  output: {result: "${result.value}", id: "${response.id}"}
"""


def jobs(*states: Any, id_: str = "a b") -> Handler:
    """A server of jobs that are in these states when asked in turn; the last one stays."""
    left = [*states]

    async def handle(asked: Asked, connection: Connection) -> None:
        if asked.method == "POST":
            await connection.respond({"id": id_}, status="202 Accepted")
        else:
            state = left.pop(0) if len(left) > 1 else left[0]
            await connection.respond({"state": state, "value": 42})

    return handle


def polling(server: Upstream, timeout: str = "20s") -> str:
    return POLLING.replace("URL", server.url).replace("TIMEOUT", timeout)


@pytest.mark.parametrize("last", ["done", 7, "7"])
async def test_a_job_is_asked_for_until_it_is_done(last: Any, tmp_path: Path) -> None:
    handler = jobs("queued", None, "running", last)
    async with upstream(handler) as server, app_of(polling(server), tmp_path) as app:
        assert await output_of(app, {"what": "x"}) == {"result": 42, "id": "a b"}
    first, *polls = server.asked
    assert first.json() == {"what": "x"}
    assert [(asked.method, asked.target) for asked in polls] == [("GET", "/jobs/a%20b?who=x")] * 4
    assert {asked.headers["authorization"] for asked in server.asked} == {"Bearer key"}
    assert server.connections == 1


async def test_a_job_that_fails_is_an_error(tmp_path: Path) -> None:
    async with upstream(jobs("running", "failed")) as server, app_of(polling(server), tmp_path) as app:
        with pytest.raises(UpstreamError, match='the work failed: `status` is `"failed"`') as raised:
            await output_of(app, {"what": "x"})
        assert raised.value.upstream_body == '{"state":"failed","value":42}'


async def test_a_job_that_takes_too_long_is_an_error(tmp_path: Path) -> None:
    async with upstream(jobs("running")) as server, app_of(polling(server, "300ms"), tmp_path) as app:
        with pytest.raises(TimedOut, match=r'not done within 0\.3 s: `status` is `"running"`'):
            await output_of(app, {"what": "x"})


async def test_a_cancelled_call_asks_no_more(tmp_path: Path) -> None:
    async with upstream(jobs("running")) as server, app_of(polling(server), tmp_path) as app:
        call = asyncio.create_task(run_of(app, {"what": "x"}))
        while len(server.asked) < 3:
            await asyncio.sleep(0.001)
        call.cancel()
        await asyncio.wait([call])
        asked = len(server.asked)
        await asyncio.sleep(0.05)
        assert len(server.asked) == asked


BY_CODE = """
component:
  type: http-client
  endpoint: URL/jobs
  completion: {type: polling, endpoint: WHERE, success_when: SUCCESS, fail_when: FAIL, interval: 1ms}
"""


def by_code(*codes: str, url: str = "") -> Handler:
    left = [*codes]

    async def handle(asked: Asked, connection: Connection) -> None:
        if asked.method == "POST":
            await connection.respond({"url": url or f"http://{asked.headers['host']}/jobs/1"})
        else:
            await connection.respond({"code": left[0]}, status=f"{left.pop(0)} X")

    return handle


@pytest.mark.parametrize(
    ("codes", "success", "fail", "message"),
    [
        (("202", "202", "200"), "200", "[]", None),
        (("404", "404", "200"), "2xx", "[5xx]", None),
        (("202", "500"), "200", "[5xx]", "answered 500|`status` is `500`"),
        (("202", "404"), "200", "[]", "answered 404"),
        (("404",), "[200, 404]", "[]", None),
    ],
)
async def test_without_a_status_the_code_tells(
    codes: tuple[str, ...], success: str, fail: str, message: str | None, tmp_path: Path
) -> None:
    async with upstream(by_code(*codes)) as server:
        text = BY_CODE.replace("URL", server.url).replace("WHERE", "'${response.url}'")
        async with app_of(text.replace("SUCCESS", success).replace("FAIL", fail), tmp_path) as app:
            if message is None:
                expected = None if codes[-1] == "404" else {"code": codes[-1]}
                assert await output_of(app) == expected
            else:
                with pytest.raises(UpstreamError, match=message):
                    await output_of(app)
    assert len(server.asked) == len(codes) + 1


async def test_a_server_cannot_send_our_headers_to_another(tmp_path: Path) -> None:
    async with upstream(by_code("200", url="http://127.0.0.1:1/jobs")) as server:
        text = BY_CODE.replace("URL", server.url).replace("WHERE", "'${response.url}'")
        async with app_of(text.replace("SUCCESS", "200").replace("FAIL", "[]"), tmp_path) as app:
            with pytest.raises(UpstreamError, match=r"leads to another server: `http://127\.0\.0\.1:1/jobs`"):
                await output_of(app)
    assert len(server.asked) == 1


CALLBACK = """
component:
  type: http-client
  endpoint: URL/jobs
  completion: {type: callback, wait_for: "${response.id}", timeout: TIMEOUT}
  output: {value: "${result.value}", id: "${response.id}"}
"""


@pytest.mark.parametrize("early", [True, False])
async def test_a_callback_ends_a_call(early: bool, tmp_path: Path) -> None:
    async with upstream(jobs("", id_="job-1")) as server:
        text = CALLBACK.replace("URL", server.url).replace("TIMEOUT", "20s")
        async with app_of(text, tmp_path) as app:
            if early:
                app.callbacks.complete("job-1", {"value": 1})
            call = asyncio.create_task(output_of(app))
            while not early and not app.callbacks.complete("job-1", {"value": 1}):
                app.callbacks._early.clear()
                await asyncio.sleep(0.001)
            assert await call == {"value": 1, "id": "job-1"}


async def test_a_callback_may_not_come(tmp_path: Path) -> None:
    async with upstream(jobs("", id_="job-1")) as server:
        text = CALLBACK.replace("URL", server.url).replace("TIMEOUT", "50ms")
        async with app_of(text, tmp_path) as app:
            with pytest.raises(TimedOut, match="no callback `job-1` came"):
                await output_of(app)


async def test_a_callback_has_an_id(tmp_path: Path) -> None:
    async with upstream(jobs("", id_="")) as server:
        text = CALLBACK.replace("URL", server.url).replace("TIMEOUT", "1s")
        async with app_of(text, tmp_path) as app:
            with pytest.raises(
                (UpstreamError, InvalidInput), match="`wait_for` of `completion` has no value"
            ):
                await output_of(app)
