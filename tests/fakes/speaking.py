"""How does a fake of a model server run: inside a test, on a free port, and as a program of its own?"""

from __future__ import annotations

import argparse
import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

_ANSWER: Final = "The sky is blue because short waves are scattered the most , said the toy ."
_WORDS: Final = _ANSWER.split()


def words_for(prompt: str) -> list[str]:
    """What every fake answers, in the pieces in which it streams: the prompt counts, so that tests see it.

    A prompt with `fail after N` breaks the answer there; `fail at once` never gets one.
    """
    length = 4 + len(prompt) % (len(_WORDS) - 4)
    return [word if i == 0 else f" {word}" for i, word in enumerate(_WORDS[:length])]


def fails_after(prompt: str) -> int | None:
    """After how many pieces the answer breaks, if it does."""
    if "fail at once" in prompt:
        return 0
    _, found, rest = prompt.partition("fail after ")
    return int(rest.split()[0]) if found else None


class Speaking:
    """A server on a port of 127.0.0.1, alive inside a `with` statement.

    bodies  what was sent to it, as JSON, with the path
    gone    paths of requests whose callers went away before the end
    """

    def __init__(self, *, port: int = 0, host: str = "127.0.0.1") -> None:
        self.bodies: list[tuple[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.gone: list[str] = []
        self._address = (host, port)

    def routes(self) -> list[Route]:
        raise NotImplementedError

    @property
    def port(self) -> int:
        port: int = self._socket.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def body(self, request: Request) -> Any:
        """The body of a request, which is noted. Raises ValueError where it is not JSON."""
        self.headers.append(dict(request.headers))
        given = await request.json()
        self.bodies.append((request.url.path, given))
        return given

    async def watched(self, path: str, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Pieces of a body, with a note if nobody wants the rest."""
        ended = False
        try:
            async for piece in pieces:
                yield piece
            ended = True
        finally:
            if not ended:
                self.gone.append(path)

    def __enter__(self) -> Self:
        self._listen()
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()
        self._socket.close()

    def serve(self) -> None:
        """Serve until a signal comes."""
        self._listen()
        self._server.run(sockets=[self._socket])

    def _listen(self) -> None:
        self._socket = socket.create_server(self._address, reuse_port=False)
        app = Starlette(routes=self.routes())
        self._server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", lifespan="off", ws="none", timeout_graceful_shutdown=1)
        )


async def beat() -> None:
    """Let others run between two pieces, so that each leaves by itself."""
    await asyncio.sleep(0.001)


def port_of(words: Sequence[str] | None = None) -> int:
    """The port that a command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    port: int = parser.parse_args(words).port
    return port
