"""An Ollama for tests: the HTTP protocol of its server, and a program named `ollama` with `serve` and `pull`.

    with Ollama(models=["llama2"]) as ollama:
        httpx2.post(f"{ollama.url}/api/generate", json={"model": "llama2", "prompt": "Why?"})

Its server streams NDJSON unless it is told not to, in chunks, each line with its newline; the last line
has `done` and the timings. An error before the first line has a status; one in the middle is a line.

`python -m tests.fakes.ollama --port N` serves; `python tests/fakes/ollama.py serve` does what `ollama serve`
does, with the address in `OLLAMA_HOST`. What was pulled is kept in the folder `OLLAMA_MODELS`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

if __name__ == "__main__":  # as a program it finds its neighbours by itself
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fakes.speaking import Speaking, beat, fails_after, port_of, words_for

_PORT: Final = 11434
_SIZE_BYTES: Final = 3_826_793_677
_MODELS: Final = "OLLAMA_MODELS"
_HOST: Final = "OLLAMA_HOST"
_BROKEN: Final = "an error was encountered while running the model: CUDA error"

Json = dict[str, Any]


class Ollama(Speaking):
    """The server. `models` are those that are pulled already, `pullable` those that there are."""

    def __init__(
        self,
        *,
        models: Collection[str] = (),
        pullable: Collection[str] = ("llama2",),
        folder: Path | None = None,
        port: int = 0,
        host: str = "127.0.0.1",
    ) -> None:
        super().__init__(port=port, host=host)
        self._pullable = {_tagged(name) for name in pullable}
        self._folder = folder
        self.models = {_tagged(name) for name in models}
        if folder is not None and (folder / "models.json").is_file():
            self.models |= set(json.loads((folder / "models.json").read_text()))

    def routes(self) -> list[Route]:
        return [
            Route("/", self._root, methods=["GET", "HEAD"]),
            Route("/api/version", self._version),
            Route("/api/tags", self._tags),
            Route("/api/generate", self._generate, methods=["POST"]),
            Route("/api/chat", self._chat, methods=["POST"]),
            Route("/api/pull", self._pull, methods=["POST"]),
        ]

    async def _root(self, request: Request) -> Response:
        return PlainTextResponse("Ollama is running")

    async def _version(self, request: Request) -> Response:
        return _json({"version": "0.12.6"})

    async def _tags(self, request: Request) -> Response:
        return _json({"models": [_about(name) for name in sorted(self.models)]})

    async def _generate(self, request: Request) -> Response:
        given = await self._given(request)
        if isinstance(given, Response):
            return given
        prompt = given.get("prompt") or ""
        if not prompt:  # loads the model, and says nothing
            return _json({**_line(given), "response": "", "done": True, "done_reason": "load"})
        end = {"context": list(range(1, 9))}
        return await self._answer(request, given, prompt, lambda text: {"response": text}, end)

    async def _chat(self, request: Request) -> Response:
        given = await self._given(request)
        if isinstance(given, Response):
            return given
        messages = given.get("messages") or []
        if not all(isinstance(m, dict) and "role" in m for m in messages):
            return _error(400, "json: cannot unmarshal string into Go struct field ChatRequest.messages")
        prompt = "\n".join(str(message.get("content", "")) for message in messages)
        if not messages:
            empty = {"message": {"role": "assistant", "content": ""}, "done_reason": "load"}
            return _json({**_line(given), **empty, "done": True})

        def said(text: str) -> Json:
            return {"message": {"role": "assistant", "content": text}}

        return await self._answer(request, given, prompt, said, {})

    async def _given(self, request: Request) -> Json | Response:
        """The body of a request for an answer, or what is wrong with it."""
        try:
            given = await self.body(request)
        except ValueError:
            return _error(400, "invalid character 'm' looking for beginning of value")
        name = given.get("model") or ""
        if _tagged(name) not in self.models:
            return _error(404, f"model '{name}' not found")
        return dict(given)

    async def _answer(
        self, request: Request, given: Json, prompt: str, said: Callable[[str], Json], end: Json
    ) -> Response:
        words = words_for(prompt)
        breaks = fails_after(prompt)
        streams = given.get("stream", True)
        if breaks == 0 or (breaks is not None and not streams):
            return _error(500, _BROKEN)
        last = {"done": True, "done_reason": "stop", **end, **_timings(prompt, len(words))}
        if not streams:
            return _json({**_line(given), **said("".join(words)), **last})

        async def lines() -> AsyncIterator[bytes]:
            for i, word in enumerate(words):
                if i == breaks:
                    yield _ndjson({"error": _BROKEN})
                    return
                yield _ndjson({**_line(given), **said(word), "done": False})
                await beat()
            yield _ndjson({**_line(given), **said(""), **last})

        return _stream(self.watched(request.url.path, lines()))

    async def _pull(self, request: Request) -> Response:
        given = await self.body(request)
        name = _tagged(given.get("model") or given.get("name") or "")
        exists = name in self._pullable
        if not given.get("stream", True):
            if not exists:
                return _error(500, "pull model manifest: file does not exist")
            self._keep(name)
            return _json({"status": "success"})

        async def lines() -> AsyncIterator[bytes]:
            yield _ndjson({"status": "pulling manifest"})
            if not exists:
                yield _ndjson({"error": "pull model manifest: file does not exist"})
                return
            for status in _pulling(name):
                yield _ndjson(status)
                await beat()
            self._keep(name)
            yield _ndjson({"status": "success"})

        return _stream(self.watched(request.url.path, lines()))

    def _keep(self, name: str) -> None:
        self.models.add(name)
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / "models.json").write_text(json.dumps(sorted(self.models)))


def _tagged(name: str) -> str:
    return name if ":" in name else f"{name}:latest"


def _digest(name: str) -> str:
    return f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"


def _about(name: str) -> Json:
    return {
        "name": name,
        "model": name,
        "modified_at": _now(),
        "size": _SIZE_BYTES,
        "digest": _digest(name).removeprefix("sha256:"),
        "details": {
            "parent_model": "",
            "format": "gguf",
            "family": "llama",
            "families": ["llama"],
            "parameter_size": "7B",
            "quantization_level": "Q4_0",
        },
    }


def _pulling(name: str) -> Iterator[Json]:
    digest = _digest(name)
    layer = {"status": f"pulling {digest[7:19]}", "digest": digest, "total": _SIZE_BYTES}
    yield layer
    for part in (1, 2, 3, 4):
        yield {**layer, "completed": _SIZE_BYTES * part // 4}
    for status in ("verifying sha256 digest", "writing manifest"):
        yield {"status": status}


def _line(given: Json) -> Json:
    """How every line begins: with the name of the model as it was given."""
    return {"model": given["model"], "created_at": _now()}


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}123Z"


def _timings(prompt: str, count: int) -> Json:
    """Counts, and nanoseconds."""
    return {
        "total_duration": 5_043_500_667,
        "load_duration": 5_025_959,
        "prompt_eval_count": len(prompt.split()),
        "prompt_eval_duration": 325_953_000,
        "eval_count": count,
        "eval_duration": 4_709_213_000,
    }


def _ndjson(value: Json) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _json(value: Json, status: int = 200) -> Response:
    return JSONResponse(value, status, media_type="application/json; charset=utf-8")


def _error(status: int, message: str) -> Response:
    return _json({"error": message}, status)


def _stream(lines: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(lines, media_type="application/x-ndjson")


# The program


def program(folder: Path) -> Path:
    """Write a program named `ollama` to a folder that is for `PATH`."""
    path = folder / "ollama"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" "$@"\n')
    path.chmod(0o755)
    return path


def main(words: list[str]) -> int:
    """What the program does."""
    host, _, port = os.environ.get(_HOST, f"127.0.0.1:{_PORT}").partition(":")
    match words:
        case ["serve"]:
            folder = os.environ.get(_MODELS)
            try:
                Ollama(host=host, port=int(port or _PORT), folder=Path(folder) if folder else None).serve()
            except OSError:
                return _failed(f"listen tcp {host}:{port or _PORT}: bind: address already in use")
        case ["pull", name]:
            return _pull(f"http://{host}:{port or _PORT}", name)
        case ["--port", _]:
            Ollama(models=["llama2"], port=port_of(words)).serve()
        case _:
            return _failed(f'unknown command "{" ".join(words)}" for "ollama"')
    return 0


def _pull(url: str, name: str) -> int:
    import httpx2

    try:
        with httpx2.stream("POST", f"{url}/api/pull", json={"model": name}, timeout=30) as answer:
            for line in answer.iter_lines():
                told = json.loads(line)
                if "error" in told:
                    return _failed(told["error"])
                print(told["status"], file=sys.stderr)  # noqa: T201
    except httpx2.ConnectError:
        return _failed("could not connect to ollama server, run 'ollama serve' to start it")
    return 0


def _failed(message: str) -> int:
    print(f"Error: {message}", file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
