"""Does a call end once, in time, and leave nothing behind, whatever the server does?"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.components.http_client.upstream import (
    Asked,
    Connection,
    Handler,
    Upstream,
    answers,
    upstream,
)
from tests.compose.apps import app_of, output_of, run_of, start

from model_compose.api.status import error_body, status_of
from model_compose.components.streams import MOST_BEHIND
from model_compose.compose.app import App
from model_compose.errors import Cancelled, TimedOut, UpstreamError

SSE = "text/event-stream"
PIECES = "output: ${response[]}"


@contextlib.asynccontextmanager
async def service(handler: Handler, folder: Path, more: str = "") -> AsyncIterator[tuple[App, Upstream]]:
    async with upstream(handler) as server:
        text = f"component:\n  type: http-client\n  endpoint: {server.url}/x\n" + "".join(
            f"  {line}\n" for line in more.strip().splitlines()
        )
        async with app_of(text, folder) as app:
            yield app, server


class Endless:
    """A server that streams for ever; it says how far it is, and when its caller has gone."""

    def __init__(self) -> None:
        self.sent = 0
        self.began = asyncio.Event()
        self.gone = asyncio.Event()

    async def __call__(self, asked: Asked, connection: Connection) -> None:
        await connection.head(SSE)
        with contextlib.suppress(ConnectionError):
            for i in itertools.count():
                if connection.gone.is_set():
                    break
                await connection.chunk(b"data: %d%s\n\n" % (i, b" " * 10_000))
                self.sent = i + 1
                self.began.set()
                await asyncio.sleep(0)
        self.gone.set()


# Cancelling


async def test_closing_a_stream_hangs_up(tmp_path: Path) -> None:
    handler = Endless()
    async with service(handler, tmp_path, PIECES) as (app, _):
        run, stream = await start(app, None, streaming=True)
        follow = run.follow(stream)
        assert (await anext(follow))[0].strip() == "0"
        await follow.aclose()
        await handler.gone.wait()
        assert run.status == "cancelled"


async def test_a_stream_that_nobody_reads_hangs_up_when_it_is_closed(tmp_path: Path) -> None:
    handler = Endless()
    async with service(handler, tmp_path, PIECES) as (app, _):
        run, stream = await start(app, None, streaming=True)
        await stream.aclose()
        run.fail(asyncio.CancelledError())
        await handler.gone.wait()
        assert run.status == "cancelled"


@pytest.mark.parametrize("more", ["", PIECES])
async def test_cancelling_a_run_hangs_up(more: str, tmp_path: Path) -> None:
    handler = Endless()
    async with service(handler, tmp_path, more) as (app, _):
        call = asyncio.create_task(run_of(app))
        await handler.began.wait()
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        await handler.gone.wait()


async def test_cancelling_before_the_answer_hangs_up(tmp_path: Path) -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def handle(_: Asked, connection: Connection) -> None:
        asked.set()
        await connection.gone.wait()
        gone.set()

    async with service(handle, tmp_path) as (app, _):
        call = asyncio.create_task(run_of(app))
        await asked.wait()
        call.cancel()
        await gone.wait()
        await asyncio.wait([call])
        assert call.cancelled()
        assert not app._runs


async def test_closing_a_stream_while_somebody_waits_for_it(tmp_path: Path) -> None:
    gone = asyncio.Event()

    async def handle(_: Asked, connection: Connection) -> None:
        await connection.head(SSE)
        await connection.chunk(b"data: 1\n\n")
        await connection.gone.wait()
        gone.set()

    async with service(handle, tmp_path, PIECES) as (app, _):
        run, stream = await start(app, None, streaming=True)
        readers = [stream.reader(), stream.reader()]
        assert [await anext(each) for each in readers] == [["1"], ["1"]]
        waits = [asyncio.create_task(anext(each)) for each in readers]
        await asyncio.sleep(0)  # both wait now
        await stream.aclose()
        found = await asyncio.gather(*waits, return_exceptions=True)
        assert all(isinstance(each, Cancelled | UpstreamError) for each in found), found
        run.fail(asyncio.CancelledError())
        await gone.wait()


async def test_a_slow_reader_slows_the_server_down(tmp_path: Path) -> None:
    handler = Endless()
    async with service(handler, tmp_path, PIECES) as (app, _):
        run, stream = await start(app, None, streaming=True)
        follow = run.follow(stream)
        await anext(follow)
        before = -1
        while before < handler.sent:  # until the sockets between us are full
            before = handler.sent
            await asyncio.sleep(0.05)
        assert not handler.gone.is_set()
        for _ in range(before + 2 * MOST_BEHIND):
            await anext(follow)
        assert handler.sent > before
        await follow.aclose()


# Limits


async def test_at_most_so_many_calls_are_under_way(tmp_path: Path) -> None:
    under_way = [0, 0]
    full, go_on = asyncio.Event(), asyncio.Event()

    async def handle(_: Asked, connection: Connection) -> None:
        under_way[0] += 1
        under_way[1] = max(under_way)
        if under_way[0] == 2:
            full.set()
        await go_on.wait()
        under_way[0] -= 1
        await connection.respond({})

    async with service(handle, tmp_path, "max_concurrent_count: 2") as (app, server):
        calls = [asyncio.create_task(run_of(app)) for _ in range(6)]
        await full.wait()
        await asyncio.sleep(0.05)  # for a third, which must not come
        go_on.set()
        await asyncio.gather(*calls)
        assert under_way == [0, 2]
        assert len(server.asked) == 6


async def test_a_call_that_fails_or_is_closed_gives_its_place_back(tmp_path: Path) -> None:
    async def handle(asked: Asked, connection: Connection) -> None:
        if asked.json()["what"] == "fail":
            await connection.respond({}, status="500 No")
        else:
            await connection.stream(SSE, b"data: 1\n\n")

    more = "max_concurrent_count: 1\nbody: {what: '${input.what}'}\n"
    async with service(handle, tmp_path, more + PIECES) as (app, _):
        for _ in range(3):
            with pytest.raises(UpstreamError):
                await output_of(app, {"what": "fail"})
            run, stream = await start(app, None, streaming=True)
            await stream.aclose()
            run.fail(asyncio.CancelledError())
            assert await output_of(app) == "1"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("timeouts: {read: 400ms}", r"sent nothing for 0\.4 s"),
        ("timeouts: {total: 400ms}", "ran out"),
        ("timeout: 400ms", "ran out"),
    ],
)
@pytest.mark.parametrize("begins", [False, True])
async def test_a_server_that_says_nothing_is_not_waited_for(
    more: str, message: str, begins: bool, tmp_path: Path
) -> None:
    gone = asyncio.Event()

    async def handle(_: Asked, connection: Connection) -> None:
        if begins:
            await connection.head(SSE)
            await connection.chunk(b"data: 1\n\n")
        await connection.gone.wait()
        gone.set()

    async with service(handle, tmp_path, f"{more}\n{PIECES}") as (app, server):
        with pytest.raises(TimedOut, match=message) as raised:
            await output_of(app)
        assert status_of(raised.value) == 504
        if server.asked:  # a busy machine may not have come so far
            await gone.wait()


# Errors


async def test_what_is_no_success_is_an_error_with_its_status_and_a_part_of_its_body(tmp_path: Path) -> None:
    body = {"error": {"message": "model 'x' not found", "code": 404}, "more": "y" * 5000}
    async with service(answers(body, status="404 Not Found"), tmp_path) as (app, server):
        with pytest.raises(UpstreamError) as raised:
            await output_of(app)
        error = raised.value
        assert error.message == (
            f"`__component__`: `{server.url}/x` answered 404 Not Found: model 'x' not found"
        )
        assert error.upstream_status == 404
        assert error.upstream_body is not None
        assert error.upstream_body.startswith('{"error": {"message": "model')
        assert len(error.upstream_body) == 2048
        assert status_of(error) == 502
        assert error_body(error)["upstream_status"] == 404


async def test_secrets_of_a_request_are_in_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def handle(asked: Asked, connection: Connection) -> None:
        said = f"bad key {asked.headers['authorization']} and {asked.headers['x-api-key']} at {asked.target}"
        await connection.respond({"error": said}, status="401 Unauthorized")

    caplog.set_level(logging.DEBUG)
    more = "headers: {Authorization: Bearer sk-secret, X-API-Key: 'pw-secret'}\nparams: {token: query-secret}"
    async with service(handle, tmp_path, more) as (app, _):
        with pytest.raises(UpstreamError) as raised:
            await output_of(app)
    shown = repr(error_body(raised.value)) + raised.value.message
    assert "bad key" in shown
    assert "401 Unauthorized" in shown
    for secret in ("sk-secret", "pw-secret", "query-secret"):
        assert secret not in shown
        assert secret not in caplog.text


async def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    async with upstream(answers({})) as server:
        url = server.url
    async with app_of(f"component: {{type: http-client, endpoint: {url}/a?key=secret}}", tmp_path) as app:
        with pytest.raises(UpstreamError, match=f"`{url}/a` cannot be reached: .*refused") as raised:
            await output_of(app)
    assert raised.value.hint == "is the server running, and is this its address?"
    assert raised.value.upstream_status is None


async def test_a_server_that_hangs_up_in_the_middle_is_an_error(tmp_path: Path) -> None:
    async def handle(_: Asked, connection: Connection) -> None:
        await connection.head(SSE)
        await connection.chunk(b"data: 1\n\n")
        connection.hang_up()

    for more in (PIECES, ""):
        async with service(handle, tmp_path, more) as (app, _):
            with pytest.raises(UpstreamError, match="hung up in the middle of its answer"):
                await output_of(app)


async def test_a_run_has_the_error_of_the_server(tmp_path: Path) -> None:
    async with service(answers({"detail": "no"}, status="503 Busy"), tmp_path) as (app, _):
        with pytest.raises(UpstreamError):
            await output_of(app)
        (run,) = [await app.record(name) for name in app._finished]
        assert (run.status, run.error_type) == ("failed", "upstream_error")


# Trying again


class Failing:
    """A server that fails so often before it answers."""

    def __init__(self, *failures: str, headers: dict[str, str] | None = None) -> None:
        self.failures = [*failures]
        self.headers = headers

    async def __call__(self, _: Asked, connection: Connection) -> None:
        if not self.failures:
            await connection.respond({"ok": True})
        elif (failure := self.failures.pop(0)) == "hang up":
            connection.hang_up()
        else:
            await connection.respond({"error": "later"}, status=failure, headers=self.headers)


RETRY = "retry: {max_attempt_count: 3, delay: 1ms"


@pytest.mark.parametrize("failure", ["429 Later", "502 Bad", "503 Busy", "504 Slow", "hang up"])
@pytest.mark.parametrize("keys", ["method: GET\n" + RETRY + "}", RETRY + ", idempotent: true}"])
async def test_what_failed_on_the_way_is_tried_again(failure: str, keys: str, tmp_path: Path) -> None:
    async with service(Failing(failure, failure), tmp_path, keys) as (app, server):
        assert await output_of(app) == {"ok": True}
        assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("keys", "failures", "asked"),
    [
        ("method: GET\n" + RETRY + "}", ["503 Busy"] * 3, 3),
        ("method: GET", ["503 Busy"], 1),
        (RETRY + "}", ["503 Busy"], 1),
        ("method: GET\n" + RETRY + "}", ["500 No"], 1),
        ("method: GET\n" + RETRY + "}", ["404 No"], 1),
    ],
)
async def test_other_failures_are_told(keys: str, failures: list[str], asked: int, tmp_path: Path) -> None:
    async with service(Failing(*failures), tmp_path, keys) as (app, server):
        with pytest.raises(UpstreamError, match="later"):
            await output_of(app)
        assert len(server.asked) == asked


async def test_a_server_that_asks_for_a_pause_gets_it_or_is_left_alone(tmp_path: Path) -> None:
    keys = "method: GET\n" + RETRY + "}"
    loop = asyncio.get_running_loop()
    async with service(Failing("503 Busy", headers={"Retry-After": "1"}), tmp_path, keys) as (app, _):
        began = loop.time()
        await output_of(app)
        assert loop.time() - began >= 1
    async with service(Failing("503 Busy", headers={"Retry-After": "3600"}), tmp_path, keys) as (app, server):
        with pytest.raises(UpstreamError):
            await output_of(app)
        assert len(server.asked) == 1


# Redirects


def redirecting(to: str, status: str = "302 Found") -> Handler:
    async def handle(asked: Asked, connection: Connection) -> None:
        if asked.path == "/x":
            await connection.respond(b"", None, status=status, headers={"Location": to})
        else:
            await connection.respond({"path": asked.path})

    return handle


async def test_a_redirect_within_the_server_is_followed(tmp_path: Path) -> None:
    async with service(redirecting("/y"), tmp_path, "method: GET") as (app, _):
        assert await output_of(app) == {"path": "/y"}
    async with service(redirecting("/y", "307 Moved"), tmp_path, "method: PUT\nbody: 1") as (app, server):
        assert await output_of(app) == {"path": "/y"}
        assert [asked.body for asked in server.asked] == [b"1", b"1"]


async def test_other_redirects_are_not(tmp_path: Path) -> None:
    async with service(redirecting("http://127.0.0.2:1/y"), tmp_path, "method: GET") as (app, server):
        with pytest.raises(UpstreamError, match=r"redirects to another server, `http://127\.0\.0\.2:1/y`"):
            await output_of(app)
    async with service(redirecting("/y"), tmp_path) as (app, server):
        with pytest.raises(UpstreamError, match="answered 302"):
            await output_of(app)
        assert len(server.asked) == 1
    async with service(redirecting("/x"), tmp_path, "method: GET") as (app, server):
        with pytest.raises(UpstreamError, match="more than 5 redirects"):
            await output_of(app)
        assert len(server.asked) == 6
