"""How do tests get a service that answers over HTTP? The real server, in this process, with echo models."""

from __future__ import annotations

import asyncio
import contextlib
import json
import types
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import uvicorn.server

from model_compose.api.http import http_app
from model_compose.api.metrics import Metrics
from model_compose.api.server import Server, listen
from model_compose.compose.app import App
from model_compose.compose.catalog import BuiltIn
from model_compose.config.environment import Environment
from model_compose.config.project import load_project
from model_compose.sources.progress import Silent

ADMIN = "an admin token"

# uvicorn looks ten times a second whether it shall end, and pauses as long before it does: that is most of
# what a test with a service takes.
_brisk = types.SimpleNamespace(**vars(asyncio))
_brisk.sleep = lambda delay_s: asyncio.sleep(delay_s / 20)
uvicorn.server.asyncio = _brisk  # type: ignore[assignment, attr-defined]

#: The smallest file that is served; more keys of the component may follow. Its model is in a worker.
IN_A_WORKER = """
controller: {port: 0}
component:
  id: echo
  type: model
  task: text-generation
  driver: echo
"""

#: The same in this process, for what does not depend on where a model is: it starts at once.
ECHO = IN_A_WORKER + "  runtime: embedded\n"


class Service(msgspec.Struct):
    """A service under test and a client for it."""

    app: App
    server: Server
    url: str
    client: httpx2.AsyncClient

    async def run(self, given: Any = None, **more: Any) -> httpx2.Response:
        """`POST /api/workflows/runs`"""
        return await self.client.post("/api/workflows/runs", json={"input": given, **more})

    async def events(self, given: Any = None, **more: Any) -> list[tuple[str, Any]]:
        """The events of a run: (name, data), unnamed ones as `message`; data that is JSON is decoded."""
        body = {"input": given, "stream": True, **more}
        response = await self.client.post("/api/workflows/runs", json=body)
        assert response.status_code == 200, response.text
        return parse_events(response.text)

    async def eventually(self, condition: Any, what: str, within_s: float = 20) -> None:
        """Wait until a condition holds, or fail."""
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(0.005)
        assert condition(), what


def parse_events(text: str) -> list[tuple[str, Any]]:
    """Server-sent events by the standard: lines of data joined, one leading space dropped."""
    events = []
    for block in text.split("\n\n"):
        name, lines = "message", []
        for line in block.split("\n"):
            field, _, value = line.partition(":")
            if field == "event":
                name = value.removeprefix(" ")
            elif field == "data":
                lines.append(value.removeprefix(" "))
        if lines:
            data = "\n".join(lines)
            events.append((name, data if name == "message" else json.loads(data)))
    return events


@contextlib.asynccontextmanager
async def serving(text: str, folder: Path, *, state: Path | None = None) -> AsyncIterator[Service]:
    """Serve a file until the end of the block; every preloaded model has settled."""
    path = folder / "model-compose.yml"
    path.write_text(text)
    project = load_project([path], Environment({}), BuiltIn())
    metrics = Metrics()
    app = App(project, BuiltIn(), progress=lambda _: Silent(), state=state, observer=metrics)
    sock = listen(project.controller.host, project.controller.port)
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    async with app:
        metrics.watch(app)
        server = Server(http_app(app, metrics, ADMIN), app)
        task = asyncio.create_task(server.serve(sockets=[sock]))
        try:
            async with httpx2.AsyncClient(base_url=url, timeout=30) as client:
                await app.pool.until(app.settled)
                yield Service(app, server, url, client)
        finally:
            server.stop()
            server.stop()
            await task
