"""Do servers of others work as the guide says?"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests import models
from tests.components.http_server.servers import free_port
from tests.compose.apps import app_of, start
from tests.docs.pages import ROOT

from model_compose.components.streams import Stream

pytestmark = [pytest.mark.model, pytest.mark.timeout(500)]


def chat(port: int, begin: list[str], **body: Any) -> str:
    """A file with a server that speaks OpenAI's protocol."""
    component = {
        "type": "http-server",
        "start": begin,
        "port": port,
        "healthcheck": {"path": "/health"},
        "env": {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        "path": "/v1/chat/completions",
        "body": {
            "messages": [{"role": "user", "content": "${input.prompt}"}],
            "max_tokens": 24,
            "temperature": 0,
            "stream": True,
            **body,
        },
        "output": "${response[].choices[0].delta.content}",
    }
    return json.dumps({"component": component})


async def said(text: str, folder: Path) -> list[str]:
    """The pieces of an answer."""
    async with app_of(text, folder) as app:
        await asyncio.wait_for(app.until(app.settled), 400)
        run, stream = await start(app, {"prompt": "What is photosynthesis?"}, streaming=True)
        assert isinstance(stream, Stream)
        return [piece async for pieces in run.follow(stream) for piece in pieces]


async def test_llama_cpp_streams_through_us(tmp_path: Path) -> None:
    port = free_port()
    server = str(ROOT / "examples" / "managed-server" / "server.py")
    pieces = await said(chat(port, [sys.executable, server, str(models.smollm2()), str(port)]), tmp_path)
    assert len(pieces) > 10
    assert "hotosynthesis" in "".join(pieces)


async def test_transformers_serve_streams_through_us(tmp_path: Path) -> None:
    port, folder = free_port(), str(models.smollm2_hf())
    cli = str(Path(sys.executable).with_name("transformers"))
    words = [cli, "serve", folder, "--port", str(port), "--dtype", "float32"]
    pieces = await said(chat(port, words, model=folder), tmp_path)
    assert len(pieces) > 10
    assert "hotosynthesis" in "".join(pieces)
