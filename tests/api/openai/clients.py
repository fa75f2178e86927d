"""How do tests call OpenAI's API of a service under test, with OpenAI's own client?"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import openai
from tests.api.serving import Service, serving

#: Where `python scripts/test_clients.py` installs what runs on Node.
NODE_CLIENTS = Path(__file__).parents[3] / ".cache" / "test-clients"

#: A model that answers with the question, and one whose embeddings tell the length of a text.
ECHO = """
controller: {port: 0}
components:
  - {id: chat, type: model, task: chat-completion, driver: echo, runtime: embedded, aliases: [gpt-4o-mini]}
  - {id: text, type: model, task: text-generation, driver: echo, runtime: embedded}
  - {id: vectors, type: model, task: text-embedding, driver: echo, runtime: embedded}
"""


def client_of(service: Service) -> openai.AsyncOpenAI:
    """OpenAI's client, which does not try again: a test sees the first answer."""
    return openai.AsyncOpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0, timeout=120)


@contextlib.asynccontextmanager
async def served(text: str, folder: Path) -> AsyncIterator[tuple[Service, openai.AsyncOpenAI]]:
    """A service and OpenAI's client for it."""
    async with serving(text, folder) as service, client_of(service) as client:
        yield service, client


async def post(service: Service, path: str, **body: Any) -> httpx2.Response:
    """What a client without a library sends."""
    return await service.client.post(f"/v1/{path}", json=body)


async def refused(service: Service, path: str, **body: Any) -> dict[str, Any]:
    """The error of a request that is refused with 400."""
    response = await post(service, path, **body)
    assert response.status_code == 400, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    return error


def events(text: str) -> list[Any]:
    """Unnamed events, decoded; the last must be `[DONE]`, which is left out."""
    *rest, last, empty = text.split("\n\n")
    assert (last, empty) == ("data: [DONE]", "")
    return [json.loads(each.removeprefix("data: ")) for each in rest]
