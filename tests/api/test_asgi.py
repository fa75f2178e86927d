"""Requests and responses at the border to the server: who leaves, fails or reads slowly."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.types import Message
from tests.api.serving import ECHO, serving

from model_compose.api.access import Caller
from model_compose.api.asgi import flag, read_body, respond_events, until_gone
from model_compose.api.runs import StartRun
from model_compose.compose.app import App
from model_compose.errors import Cancelled

SCOPE = {
    "type": "http",
    "headers": [(b"content-type", b"application/json")],
    "query_string": b"",
    "caller": Caller(None, admin=False),
}


class Client:
    """What a server passes on of a client that sends `messages` and then stays until it `leaves`."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self._messages = list(messages)
        self.left = asyncio.Event()
        self.sent: list[Message] = []

    async def receive(self) -> dict[str, Any]:
        if self._messages:
            return self._messages.pop(0)
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)


def body(value: Any) -> dict[str, Any]:
    return {"type": "http.request", "body": json.dumps(value).encode()}


async def test_work_that_fails_without_an_answer_ends_the_request() -> None:
    async def work() -> None:
        raise RuntimeError("unforeseen")

    async with asyncio.timeout(5):
        with pytest.raises(RuntimeError, match="unforeseen"):
            await until_gone(Client().receive, work())


async def test_work_that_is_cancelled_from_elsewhere_ends_the_request() -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    async with asyncio.timeout(5):
        await until_gone(Client().receive, work())
    assert asyncio.current_task() is not None


async def test_a_request_that_is_cancelled_takes_its_work_with_it() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    request = asyncio.create_task(until_gone(Client().receive, work()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert ended.is_set()


async def test_a_body_that_its_client_does_not_finish_is_none() -> None:
    client = Client({"type": "http.request", "body": b"half", "more_body": True})
    client.left.set()
    assert await read_body(SCOPE, client.receive, 100) is None


@pytest.mark.parametrize(
    ("query", "value"),
    [
        (b"full=true", True),
        (b"full=1", True),
        (b"x=2&full=TRUE", True),
        (b"full=false", False),
        (b"not_full=true", False),
        (b"", False),
    ],
)
def test_a_flag_is_read_by_its_whole_name(query: bytes, value: bool) -> None:
    assert flag({"query_string": query}, "full") is value


async def test_a_client_that_left_before_its_run_began_leaves_no_run_behind(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service:
        client = Client(body({"input": "hello"}))
        client.left.set()
        await StartRun(service.app)(SCOPE, client.receive, client.send)
        assert service.app._runs == {}


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error_of_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(ECHO, tmp_path) as service:
        address = urlsplit(service.url)
        sock = socket.create_connection((address.hostname, address.port))
        head = "POST /api/workflows/runs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{"
        sock.sendall(head.encode())
        await service.eventually(lambda: len(service.server.server_state.tasks) == 1, "it is being read")
        sock.close()
        await service.eventually(lambda: len(service.server.server_state.tasks) == 0, "it is over")
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_slow_reader_of_a_run_that_is_cancelled_is_told(tmp_path: Path) -> None:
    """The cancellation finds the service where it waits for the client, and not for the model."""
    async with serving(ECHO, tmp_path) as service:
        client = Client(body({"input": "chunks:1000", "stream": True}))
        reading, reads = asyncio.Event(), asyncio.Event()

        async def send(message: Message) -> None:
            if message.get("body") and not reads.is_set():
                reading.set()
                await reads.wait()
            client.sent.append(message)

        request = asyncio.create_task(StartRun(service.app)(SCOPE, client.receive, send))
        await reading.wait()
        (run,) = service.app._runs.values()
        run.cancel(Cancelled("cancelled by request"))
        await run.wait()
        reads.set()
        await service.eventually(lambda: client.sent[-1].get("body") == b"", "the response is complete")
        client.left.set()
        await request
    assert run.error is run.reason
    assert client.sent[-2]["body"].startswith(b"event: error\n")


async def test_events_are_closed_however_sending_them_ends() -> None:
    closed = asyncio.Event()

    async def frames() -> AsyncGenerator[bytes]:
        try:
            while True:
                yield b"data: x\n\n"
        finally:
            closed.set()

    async def send(message: Any) -> None:
        if message.get("body"):
            raise RuntimeError("the connection broke")

    with pytest.raises(RuntimeError):
        await respond_events(send, frames())
    assert closed.is_set()


async def test_an_error_that_nobody_foresaw_is_told_in_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: App, name: str | None) -> Any:
        raise RuntimeError("a secret")

    monkeypatch.setattr(App, "workflow", fails)
    async with serving(ECHO, tmp_path) as service:
        response = await service.run("hello")
    assert response.status_code == 500
    assert response.json() == {"detail": "internal error", "type": "internal"}
