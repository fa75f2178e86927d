"""Workflows as MCP tools, called by the official client."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from tests.api.serving import ECHO, serving

TWO = """
controller: {port: 0, name: echoes}
component: {id: echo, type: model, task: text-generation, driver: echo, runtime: embedded}
workflows:
  - id: say
    title: Say it
    description: Says what it is told.
    default: true
    jobs:
      - {id: a, component: echo, input: {prompt: "${input.text as text @(description What to say)}"}}
  - id: map
    jobs:
      - id: a
        component: echo
        input: {prompt: "${input.text}"}
        output: {said: "${output}", n: "${input.n as integer | 3}"}
"""


def text_of(result: Any) -> str:
    (content,) = result.content
    return str(content.text)


async def test_every_workflow_is_a_tool_with_its_schema(tmp_path: Path) -> None:
    async with serving(TWO, tmp_path) as service, Client(f"{service.url}/mcp") as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert list(tools) == ["say", "map"]
    assert (tools["say"].title, tools["say"].description) == ("Say it", "Says what it is told.")
    schema = tools["say"].input_schema
    assert schema["type"] == "object"
    assert schema["properties"]["text"] == {"type": "string", "description": "What to say"}
    assert tools["map"].input_schema["properties"]["n"] == {"type": "integer", "default": 3}


async def test_a_call_runs_the_workflow(tmp_path: Path) -> None:
    async with serving(TWO, tmp_path) as service, Client(f"{service.url}/mcp") as client:
        said = await client.call_tool("say", {"text": "hello there"})
        mapped = await client.call_tool("map", {"text": "hi"})
    assert not said.is_error
    assert "hello" in text_of(said)
    assert mapped.structured_content is not None
    assert mapped.structured_content["n"] == 3
    assert "hi" in mapped.structured_content["said"]


@pytest.mark.parametrize(
    ("tool", "given", "told"),
    [
        ("sya", {"text": "x"}, "did you mean `say`"),
        ("say", {"txt": "x"}, "unknown field `txt`"),
        ("say", {}, "`text` is missing"),
        ("map", {"text": "x", "n": "many"}, "`n`"),
    ],
)
async def test_a_mistake_is_told_to_the_model(tmp_path: Path, tool: str, given: Any, told: str) -> None:
    async with serving(TWO, tmp_path) as service, Client(f"{service.url}/mcp") as client:
        result = await client.call_tool(tool, given)
    assert result.is_error
    assert told in text_of(result)


async def test_a_lone_component_is_a_tool_by_its_own_name(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service, Client(f"{service.url}/mcp") as client:
        (tool,) = (await client.list_tools()).tools
        result = await client.call_tool("echo", {"prompt": "one two"})
    assert tool.name == "echo"
    assert tool.input_schema["type"] == "object"
    assert tool.description == "Continues a text."
    assert "one two" in text_of(result)


async def test_a_call_that_is_given_up_ends_the_run(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service:
        calling = asyncio.create_task(_call(service.url, f"touch:{tmp_path}/began wait:{tmp_path}/never"))
        await service.eventually((tmp_path / "began").exists, "the run begins")
        calling.cancel()
        await asyncio.wait([calling])
        await service.eventually(lambda: not service.app._runs, "the run ends")
        assert [record.status for record in await _finished(service)] == ["cancelled"]


async def test_progress_is_told_to_who_asks_for_it(tmp_path: Path) -> None:
    told: list[tuple[float, float | None]] = []
    go = tmp_path / "go"

    async def tell(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total))
        go.touch()  # what is told behind a result may not be heard

    async with serving(ECHO, tmp_path) as service, Client(f"{service.url}/mcp") as client:
        await client.call_tool("echo", {"prompt": f"steps:3 wait:{go}"}, progress_callback=tell)
    assert told
    assert all(total == 3 for _, total in told)


async def _call(url: str, prompt: str) -> None:
    async with Client(f"{url}/mcp") as client:
        await client.call_tool("echo", {"prompt": prompt})


async def test_a_key_is_asked_for_and_owns_the_run(tmp_path: Path) -> None:
    keys = TWO.replace("port: 0", "port: 0, api_keys: [{key: a-key-for-agents, name: agent}]")
    async with serving(keys, tmp_path) as service:
        assert (await service.client.post("/mcp", json={})).status_code == 401
        headers = {"Authorization": "Bearer a-key-for-agents"}
        async with (
            httpx2.AsyncClient(headers=headers) as http,
            Client(streamable_http_client(f"{service.url}/mcp", http_client=http)) as client,
        ):
            assert not (await client.call_tool("say", {"text": "x"})).is_error
        owners = [unpacked.owner for unpacked in await _finished(service)]
    assert owners == ["agent"]


async def _finished(service: Any) -> list[Any]:
    return [await service.app.record(task) for task in service.app._finished]


@pytest.mark.process
async def test_the_command_speaks_it_on_its_standard_streams(tmp_path: Path) -> None:
    (tmp_path / "model-compose.yml").write_text(TWO)
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "model_compose", "mcp"], cwd=tmp_path, env={**os.environ}
    )
    async with Client(command) as client:
        result = await client.call_tool("say", {"text": "hello"})
    assert "hello" in text_of(result)
