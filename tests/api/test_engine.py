"""What does a real engine behind the service do when its client goes away, or is killed?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests import models
from tests.api.serving import Service, parse_events, serving

pytestmark = pytest.mark.process

TOKENS = 4000
STREAMS = 8

TINY = f"""
controller: {{port: 0}}
component:
  id: tiny
  type: model
  task: text-generation
  model: {models.tiny_chat()}
  batch_size: {STREAMS}
  options: {{context_length: 8000}}
"""

#: The model has learned to go on for ever after this.
ENDLESS: dict[str, Any] = {"prompt": "a long", "temperature": 0, "max_output_length": TOKENS}


async def engine(service: Service) -> dict[str, float]:
    """What the engine says of itself."""
    (component,) = (await service.client.get("/api/components")).json()
    metrics: dict[str, float] = component["metrics"]
    return metrics


async def test_a_client_that_disconnects_stops_the_engine(tmp_path: Path) -> None:
    async with serving(TINY, tmp_path) as service:
        async with stream(service, ENDLESS) as response:
            await anext(response.aiter_bytes())
        async with asyncio.timeout(20):
            while service.app.status()[0].active:
                await asyncio.sleep(0.005)
        found: dict[str, float] = {}
        async with asyncio.timeout(30):  # the engine reports now and then
            while not found.get("generation_tokens_total") or found["requests_running"]:
                await asyncio.sleep(0.05)
                found = await engine(service)
        assert found["generation_tokens_total"] < TOKENS


async def test_a_worker_that_is_killed_fails_what_it_had_begun_and_the_next_serves_the_rest(
    tmp_path: Path,
) -> None:
    async with serving(TINY, tmp_path) as service:
        begun = [asyncio.Event() for _ in range(STREAMS)]

        async def read(started: asyncio.Event) -> list[tuple[str, Any]]:
            text = b""
            async with stream(service, ENDLESS) as response:
                async for piece in response.aiter_bytes():
                    text += piece
                    started.set()
            return parse_events(text.decode())

        streams = [asyncio.create_task(read(each)) for each in begun]
        await asyncio.gather(*(each.wait() for each in begun))
        waiting = [asyncio.create_task(service.run({**ENDLESS, "max_output_length": 5})) for _ in range(4)]
        await service.eventually(lambda: service.app.status()[0].waiting == 4, "four wait")
        killed = service.app.status()[0].pid
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        for events in await asyncio.gather(*streams):
            name, data = events[-1]
            assert (name, data["type"]) == ("error", "worker_died")
            assert len(events) > 1
        answers = [answer.json() for answer in await asyncio.gather(*waiting)]
        assert [answer["status"] for answer in answers] == ["completed"] * 4
        assert len({answer["output"] for answer in answers}) == 1
        assert service.app.status()[0].pid != killed


def stream(service: Service, given: Any) -> contextlib.AbstractAsyncContextManager[httpx2.Response]:
    return service.client.stream("POST", "/api/workflows/runs", json={"input": given, "stream": True})
