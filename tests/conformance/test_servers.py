"""Do the blocks with servers of others do what they promise?

The ports of the blocks are free ones here, so that tests can run beside each other.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import models
from tests.compose.apps import output_of, start
from tests.conformance.blocks import block, running
from tests.fakes import ollama as ollama_program
from tests.fakes.ollama import Ollama
from tests.fakes.speaking import words_for
from tests.fakes.tgi import Tgi
from tests.runtime.pools import eventually

from model_compose.components.streams import Stream
from model_compose.compose.app import App
from model_compose.errors import ModelComposeError

PROMPT = "Why is the sky blue?"
ANSWER = "".join(words_for(PROMPT))
SERVER = Path(__file__).with_name("llama_server.py")
NOT_RUNNING = "could not connect to ollama server"


def free_port() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return str(sock.getsockname()[1])


async def pieces_of(app: App, given: Any) -> list[Any]:
    """What a run streams, piece by piece."""
    run, output = await start(app, given, streaming=True)
    assert isinstance(output, Stream)
    found = [piece async for pieces in run.follow(output) for piece in pieces]
    assert run.status == "completed"
    return found


# vLLM's place is taken by llama.cpp's own server


@pytest.mark.process
async def test_35_a_server_is_installed_and_started_and_streams(tmp_path: Path) -> None:
    port = free_port()
    text = block(
        35,
        **{
            '        eval "$(pyenv init -)" &&\n': "",
            "        (pyenv activate vllm 2>/dev/null || "
            "pyenv virtualenv $(python --version | cut -d' ' -f2) vllm) &&\n": "",
            "        pyenv activate vllm &&\n": "",
            "pip install vllm": f"echo installed >> {tmp_path}/installed",
            "python -m vllm.entrypoints.openai.api_server": f"{sys.executable} {SERVER}",
            "Qwen/Qwen2-7B-Instruct": str(models.tiny_chat()),
            "8000": port,
        },
    )
    assert "--served-model-name" in text
    async with running(text, tmp_path) as app:
        words = await pieces_of(app, {"prompt": PROMPT})
        assert len(words) > 4
        assert all(isinstance(word, str) for word in words)
        collected = await output_of(app, {"prompt": PROMPT, "temperature": 0})
        assert collected == await output_of(app, {"prompt": PROMPT, "temperature": 0.0})
        assert isinstance(collected, str)
        assert len(collected.split()) > 4
    assert (tmp_path / "installed").read_text() == "installed\n"
    with pytest.raises(ConnectionRefusedError):  # it ended with us
        socket.create_connection(("127.0.0.1", int(port))).close()


# Ollama


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A free port for a program named `ollama` that is on the path."""
    port = free_port()
    (tmp_path / "bin").mkdir()
    ollama_program.program(tmp_path / "bin")
    _environment(monkeypatch, tmp_path, port)
    return port


def _environment(monkeypatch: pytest.MonkeyPatch, folder: Path, port: str) -> None:
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{port}")
    monkeypatch.setenv("OLLAMA_MODELS", str(folder / "models"))


def pulled(folder: Path) -> list[str]:
    """The models that the program has."""
    path = folder / "models" / "models.json"
    return list(json.loads(path.read_text())) if path.exists() else []


def pull(folder: Path, *names: str) -> None:
    (folder / "models").mkdir()
    (folder / "models" / "models.json").write_text(json.dumps([f"{name}:latest" for name in names]))


def installer(folder: Path, *lines: str) -> None:
    """Have `curl` fetch a script that does this."""
    path = folder / "bin" / "curl"
    script = "\n".join(lines)
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{script}\nEND\n")
    path.chmod(0o755)


@pytest.mark.process
async def test_36_ollama_is_installed_and_its_model_is_pulled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    (tmp_path / "bin").mkdir()
    (tmp_path / "there").mkdir()
    program = ollama_program.program(tmp_path / "there")
    installer(tmp_path, f"cp {program} {tmp_path}/bin/ollama")
    _environment(monkeypatch, tmp_path, port)
    async with running(block(36, **{"11434": port}), tmp_path) as app:
        assert await output_of(app, {"prompt": PROMPT}) == {"response": ANSWER}
    assert pulled(tmp_path) == ["llama2:latest"]


@pytest.mark.process
async def test_36_an_installation_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    installer(tmp_path, "echo there is no such machine >&2", "exit 3")
    port = free_port()
    _environment(monkeypatch, tmp_path, port)
    async with running(block(36, **{"11434": port}), tmp_path) as app:
        with pytest.raises(ModelComposeError) as raised:
            await output_of(app, {"prompt": PROMPT})
    assert "`install`" in raised.value.message
    assert "there is no such machine" in raised.value.message


@pytest.mark.process
async def test_37_lines_of_json_are_pieces_of_text(tmp_path: Path, port: str) -> None:
    pull(tmp_path, "llama2")
    async with running(block(37, **{"11434": port}), tmp_path) as app:
        pieces = await pieces_of(app, {"prompt": PROMPT})
        assert [piece for piece in pieces if piece] == words_for(PROMPT)
        assert await output_of(app, {"prompt": PROMPT}) == ANSWER
        with pytest.raises(ModelComposeError, match="CUDA error"):
            await pieces_of(app, {"prompt": "fail after 2 words"})
        with pytest.raises(ModelComposeError, match="500"):
            await pieces_of(app, {"prompt": "fail at once"})


@pytest.mark.process
async def test_37_a_model_that_is_not_there_is_told_by_the_server(tmp_path: Path, port: str) -> None:
    async with running(block(37, **{"11434": port}), tmp_path) as app:
        with pytest.raises(ModelComposeError, match=r"404.*model 'llama2' not found"):
            await output_of(app, {"prompt": PROMPT})


@pytest.mark.process
async def test_38_a_chat_that_streams_is_one_message(tmp_path: Path, port: str) -> None:
    pull(tmp_path, "llama2")
    async with running(block(38, **{"11434": port}), tmp_path) as app:
        messages = [{"role": "user", "content": PROMPT}]
        assert await output_of(app, {"messages": messages}) == {"message": ANSWER}


async def test_38_a_server_that_is_there_is_used(tmp_path: Path) -> None:
    with Ollama(models=["llama2"]) as ollama:
        async with running(block(38, **{"11434": str(ollama.port)}), tmp_path) as app:
            messages = [{"role": "user", "content": PROMPT}]
            assert await output_of(app, {"messages": messages}) == {"message": ANSWER}
        ((path, body),) = ollama.bodies
        assert (path, body) == ("/api/chat", {"model": "llama2", "messages": messages})
        assert ollama.headers[0]["content-type"] == "application/json"
        with socket.create_connection(("127.0.0.1", ollama.port)):
            pass  # it is not ours, and has not ended with us


@pytest.fixture
def ollama() -> Iterator[Ollama]:
    with Ollama(models=["llama2"]) as server:
        yield server


async def test_39_an_answer_in_pieces_is_put_together(tmp_path: Path, ollama: Ollama) -> None:
    async with running(block(39, **{"11434": str(ollama.port)}), tmp_path) as app:
        assert await output_of(app, {"prompt": PROMPT}) == {"response": ANSWER}
        with pytest.raises(ModelComposeError, match="CUDA error"):
            await output_of(app, {"prompt": "fail after 3 words"})
    assert ollama.bodies[0] == ("/api/generate", {"model": "llama2", "prompt": PROMPT})
    assert ollama.headers[0]["content-type"] == "application/json"


async def test_37_who_goes_away_ends_the_answer(tmp_path: Path, ollama: Ollama) -> None:
    async with running(block(37, **{"11434": str(ollama.port)}), tmp_path) as app:
        run, output = await start(app, {"prompt": PROMPT}, streaming=True)
        following = run.follow(output)
        await anext(following)
        await following.aclose()
        assert run.status == "cancelled"
    await eventually(lambda: ollama.gone == ["/api/generate"], "the server has noticed")


# Text Generation Inference


async def test_40_a_text_is_generated(tmp_path: Path) -> None:
    with Tgi() as tgi:
        async with running(block(40, **{"8080": str(tgi.port)}), tmp_path) as app:
            assert await output_of(app, {"prompt": PROMPT}) == {"generated_text": ANSWER}
            with pytest.raises(ModelComposeError, match=r"422.*must have less than"):
                await output_of(app, {"prompt": "word " * 100})
            with pytest.raises(ModelComposeError, match=r"424.*out of memory"):
                await output_of(app, {"prompt": "fail at once"})
        parameters = {"max_new_tokens": 512, "temperature": 0.7, "top_p": 0.9}
        assert tgi.bodies[0] == ("/generate", {"inputs": PROMPT, "parameters": parameters})


async def test_40_a_busy_server_is_told(tmp_path: Path) -> None:
    with Tgi(busy=True) as tgi:
        async with running(block(40, **{"8080": str(tgi.port)}), tmp_path) as app:
            with pytest.raises(ModelComposeError, match=r"429.*Model is overloaded"):
                await output_of(app, {"prompt": PROMPT})
