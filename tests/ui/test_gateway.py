"""The pages' client, against the real service on a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.api.serving import ECHO, Service, serving

from model_compose.api.webui import Beside
from model_compose.compose.run import Run
from model_compose.errors import InvalidInput, ModelComposeError, Unauthorized
from model_compose.ui.gateway import Event, Gateway, caller_of, failure

KEY = "a-key-of-somebody-who-looks"


@contextlib.asynccontextmanager
async def gateway_of(service: Service, folder: Path) -> AsyncIterator[Gateway]:
    path = str(folder / "api.sock")
    server = Beside(service.server.config.app, path)  # type: ignore[arg-type]
    await server.begin()
    gateway = Gateway(path, "/api")
    try:
        yield gateway
    finally:
        await gateway.close()
        await server.end()


async def events_of(gateway: Gateway, prompt: str, caller: dict[str, str] | None = None) -> list[Event]:
    return [event async for event in gateway.run("__workflow__", {"prompt": prompt}, caller or {})]


async def watched(service: Service, gateway: Gateway, folder: Path, prompt: str) -> list[Event]:
    """The events of a run that does something only when somebody watches it."""
    events = []
    async for event in gateway.run("__workflow__", {"prompt": f"wait:{folder}/go {prompt}"}, {}):
        if event.name == "started":
            run = service.app.running(event.data)
            assert run is not None
            beginning = asyncio.create_task(_begin(service, run, folder / "go"))
        events.append(event)
    await beginning
    return events


async def _begin(service: Service, run: Run, file: Path) -> None:
    await service.eventually(lambda: run._watchers, "the run is watched")
    file.touch()


def text_of(events: list[Event]) -> str:
    return "".join(event.data for event in events if event.name == "chunk" and event.data)


async def test_a_run_says_how_it_goes(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service, gateway_of(service, tmp_path) as gateway:
        events = await watched(service, gateway, tmp_path, "chunks:20 steps:3")
    assert events[0].name == "started"
    assert [event.data for event in events if event.name == "progress"][-1] == {"done": 3, "total": 3}
    assert events[-1].name == "end"
    assert events[-1].data["status"] == "completed"
    assert text_of(events) == events[-1].data["output"] == "".join(f"{i} " for i in range(20))


async def test_who_comes_late_hears_what_was_said_before(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service:
        body = {"input": {"prompt": f"chunks:9 wait:{tmp_path}/go"}, "wait_for_completion": False}
        task = (await service.client.post("/api/workflows/runs", json=body)).json()["task_id"]
        run = service.app.running(task)
        assert run is not None
        await service.eventually(lambda: len(run._pieces) == 9, "all of it is said")
        (tmp_path / "go").touch()
        heard = [event async for event in run.events()]
    said = "".join(event.data for event in heard if event.name == "chunk" and event.data)
    assert said == "".join(f"{i} " for i in range(9))


async def test_texts_with_every_kind_of_line_break_are_whole(tmp_path: Path) -> None:
    text = "a\n\nb\r\nc\u2028d\x85e "
    async with serving(ECHO, tmp_path) as service, gateway_of(service, tmp_path) as gateway:
        events = await watched(service, gateway, tmp_path, text)
    assert text_of(events).endswith(text)


async def test_who_stops_listening_ends_the_run(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service, gateway_of(service, tmp_path) as gateway:
        async with contextlib.aclosing(gateway.run("__workflow__", {"prompt": "wait:/never"}, {})) as events:
            task = (await anext(events)).data
        assert service.app.running(task) is None
        assert (await service.app.record(task)).status == "cancelled"


async def test_an_error_is_what_the_service_says(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service, gateway_of(service, tmp_path) as gateway:
        with pytest.raises(InvalidInput) as refused:
            await anext(gateway.run("__workflow__", {}, {}))
        with pytest.raises(ModelComposeError, match="Workflow 'nothing' not found"):
            await anext(gateway.run("nothing", {}, {}))
        failed = failure((await events_of(gateway, "fail"))[-1].data)
    assert refused.value.field == "prompt"
    assert "not in the mood" in failed.message


async def test_calls_are_those_of_who_looks(tmp_path: Path) -> None:
    text = ECHO.replace("port: 0", f"port: 0, api_keys: [{{key: {KEY}, name: eve}}]")
    async with serving(text, tmp_path) as service, gateway_of(service, tmp_path) as gateway:
        with pytest.raises(Unauthorized):
            await gateway.components({})
        caller = caller_of({"authorization": f"Bearer {KEY}", "cookie": "x"})
        events = await events_of(gateway, "hello", caller)
        assert [each["name"] for each in await gateway.components(caller)] == ["echo"]
        assert "vllm:generation_tokens_total" in await gateway.metrics(caller)
        (workflow,) = await gateway.workflows(caller)
    assert events[-1].data["owner"] == "eve"
    fields: dict[str, Any] = {each["name"]: each for each in workflow["input"]}
    assert "alias_of" not in fields["prompt"]
    assert fields["text"]["alias_of"] == "prompt"
    assert fields["top_p"]["schema"]["maximum"] == 1
