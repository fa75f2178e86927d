"""A Text Generation Inference for tests: the HTTP protocol of its router.

    with Tgi() as tgi:
        httpx2.post(f"{tgi.url}/generate", json={"inputs": "Why?"})

`/generate_stream` sends an event for each token, the last one with the whole text; an error in the middle is
an event too. `python -m tests.fakes.tgi --port N` serves.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

if __name__ == "__main__":  # as a program it finds its neighbours by itself
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fakes.speaking import Speaking, beat, fails_after, port_of, words_for

_MAX_INPUT_TOKENS: Final = 64
_MAX_TOTAL_TOKENS: Final = 1024
_DEFAULT_NEW_TOKENS: Final = 100
_BROKEN: Final = "Request failed during generation: Server error: CUDA out of memory"

Json = dict[str, Any]


class Tgi(Speaking):
    """The server. `busy` answers 429, as when more wait than may."""

    def __init__(self, *, busy: bool = False, port: int = 0, host: str = "127.0.0.1") -> None:
        super().__init__(port=port, host=host)
        self.busy = busy

    def routes(self) -> list[Route]:
        return [
            Route("/info", self._info),
            Route("/health", self._health),
            Route("/generate", self._generate, methods=["POST"]),
            Route("/generate_stream", self._generate_stream, methods=["POST"]),
        ]

    async def _info(self, request: Request) -> Response:
        return JSONResponse(
            {
                "model_id": "toys/toy-7b",
                "model_sha": "fe8a4ea1ffedaf415f4da2f062534de366a451e6",
                "model_pipeline_tag": "text-generation",
                "max_concurrent_requests": 128,
                "max_best_of": 2,
                "max_stop_sequences": 4,
                "max_input_tokens": _MAX_INPUT_TOKENS,
                "max_total_tokens": _MAX_TOTAL_TOKENS,
                "validation_workers": 2,
                "max_client_batch_size": 4,
                "router": "text-generation-router",
                "version": "3.3.6",
                "sha": None,
                "docker_label": None,
            }
        )

    async def _health(self, request: Request) -> Response:
        return Response(status_code=200)

    async def _generate(self, request: Request) -> Response:
        given = await self._given(request)
        if isinstance(given, Response):
            return given
        words, breaks = _words(given), fails_after(given["inputs"])
        if breaks is not None:
            return _error(424, _BROKEN, "generation")
        answer: Json = {"generated_text": "".join(words)}
        if _parameters(given).get("details"):
            answer["details"] = _details(given, words) | {
                "prefill": [],
                "tokens": [_token(i, word) for i, word in enumerate(words)],
            }
        return JSONResponse(answer, headers=_headers(words))

    async def _generate_stream(self, request: Request) -> Response:
        given = await self._given(request)
        if isinstance(given, Response):
            return given
        words, breaks = _words(given), fails_after(given["inputs"])

        async def events() -> AsyncIterator[bytes]:
            for i, word in enumerate(words):
                if i == breaks:
                    yield _event({"error": _BROKEN, "error_type": "generation"})
                    return
                last = i == len(words) - 1
                yield _event(
                    {
                        "index": i + 1,
                        "token": _token(i, word),
                        "generated_text": "".join(words) if last else None,
                        "details": _details(given, words) if last else None,
                    }
                )
                await beat()

        return StreamingResponse(
            self.watched(request.url.path, events()),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", "x-compute-type": "cpu"},
        )

    async def _given(self, request: Request) -> Json | Response:
        """The body of a request, or what is wrong with it."""
        if not request.headers.get("content-type", "").startswith("application/json"):
            return PlainTextResponse("Expected request with `Content-Type: application/json`", 415)
        try:
            given = await self.body(request)
        except ValueError as error:
            return PlainTextResponse(f"Failed to parse the request body as JSON: {error}", 400)
        if not isinstance(given, dict) or not isinstance(given.get("inputs"), str):
            return PlainTextResponse(
                "Failed to deserialize the JSON body into the target type: missing field `inputs`", 422
            )
        if self.busy:
            return _error(429, "Model is overloaded", "overloaded")
        wrong = _mistake(given["inputs"], _parameters(given))
        return given if wrong is None else _error(422, f"Input validation error: {wrong}", "validation")


def _parameters(given: Json) -> Json:
    return given.get("parameters") or {}


def _mistake(inputs: str, parameters: Json) -> str | None:
    """What the router finds wrong before it asks the model."""
    tokens = len(inputs.split())
    if not inputs:
        return "`inputs` cannot be empty"
    if tokens > _MAX_INPUT_TOKENS:
        return f"`inputs` must have less than {_MAX_INPUT_TOKENS} tokens. Given: {tokens}"
    if not parameters.get("temperature", 1.0) > 0:
        return "`temperature` must be strictly positive"
    if not 0 < parameters.get("top_p", 0.5) < 1:
        return "`top_p` must be > 0.0 and < 1.0"
    if parameters.get("max_new_tokens", 1) <= 0:
        return "`max_new_tokens` must be strictly positive"
    return None


def _words(given: Json) -> list[str]:
    most = _parameters(given).get("max_new_tokens", _DEFAULT_NEW_TOKENS)
    return words_for(given["inputs"])[:most]


def _token(i: int, text: str) -> Json:
    return {"id": 100 + i, "text": text, "logprob": -0.5 - i / 16, "special": False}


def _details(given: Json, words: list[str]) -> Json:
    cut = len(words) < len(words_for(given["inputs"]))
    return {
        "finish_reason": "length" if cut else "eos_token",
        "generated_tokens": len(words),
        "input_length": len(given["inputs"].split()),
        "seed": None,
    }


def _headers(words: list[str]) -> dict[str, str]:
    return {"x-compute-type": "cpu", "x-generated-tokens": str(len(words))}


def _event(value: Json) -> bytes:
    return b"data:" + json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


def _error(status: int, message: str, kind: str) -> Response:
    return JSONResponse({"error": message, "error_type": kind}, status)


if __name__ == "__main__":
    Tgi(port=port_of()).serve()
