"""How do the pages talk to the service? By its HTTP API, as whoever looks at them.

Each call brings the key that the browser sent, so that a run belongs to who started it, and a page shows
what its reader may see.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final
from urllib.parse import quote

import httpx2
import msgspec

from model_compose.errors import BadRequest, ErrorInfo, ModelComposeError, ServiceError, revive

log = logging.getLogger(__name__)

#: What says who asks.
CREDENTIALS: Final = ("authorization", "x-api-key")

_ANSWER_S: Final = 60.0


class Event(msgspec.Struct, frozen=True):
    """Something that happened in a run: `started`, `job`, `progress`, `chunk`, or `end` at last."""

    name: str
    data: Any


class Gateway:
    """A client of the service.

    socket  the Unix socket where it answers
    base    path in front of the API's routes
    """

    def __init__(self, socket: str, base: str) -> None:
        self._base = base.rstrip("/")
        self._client = httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(uds=socket, verify=False),  # certificates take 70 ms to read
            base_url="http://127.0.0.1",
            timeout=httpx2.Timeout(_ANSWER_S, pool=None),
            trust_env=False,
        )

    async def workflows(self, caller: Mapping[str, str]) -> list[dict[str, Any]]:
        """What there is to run, and what each takes."""
        listed = await self._get(f"{self._base}/workflows?include_schema=true", caller)
        return list(listed)

    async def components(self, caller: Mapping[str, str]) -> list[dict[str, Any]]:
        """Models and everything else of the file, and how they are."""
        return list(await self._get(f"{self._base}/components", caller))

    async def metrics(self, caller: Mapping[str, str]) -> str:
        """What the service measures, as Prometheus reads it."""
        response = await self._client.get("/metrics", headers=caller)
        _check(response.status_code, response.content)
        return response.text

    async def run(self, workflow: str, given: Any, caller: Mapping[str, str]) -> AsyncGenerator[Event]:
        """Run a workflow; `started` has its id, `end` what became of it.

        Closing it cancels the run. Raises ModelComposeError if it is not taken.
        """
        body = {"workflow_id": workflow, "input": given, "wait_for_completion": False}
        content = msgspec.json.encode(body)
        headers = {**caller, "content-type": "application/json"}
        answer = await self._client.post(f"{self._base}/workflows/runs", content=content, headers=headers)
        task = _check(answer.status_code, answer.content)["task_id"]
        ended = False
        try:
            yield Event("started", task)
            async for event in self._events(task, caller):
                ended = ended or event.name == "end"
                yield event
        finally:
            if not ended:
                await self.cancel(task, caller)

    async def cancel(self, task: str, caller: Mapping[str, str]) -> None:
        """End a run, if it has not ended."""
        await self._client.post(f"{self._base}/tasks/{quote(task)}/cancel", headers=caller)

    async def close(self) -> None:
        """Make no more calls."""
        await self._client.aclose()

    async def _events(self, task: str, caller: Mapping[str, str]) -> AsyncGenerator[Event]:
        path = f"{self._base}/tasks/{quote(task)}/events"
        timeout = httpx2.Timeout(_ANSWER_S, read=None, pool=None)  # a run may be silent for long
        async with self._client.stream("GET", path, headers=caller, timeout=timeout) as response:
            if response.status_code != httpx2.codes.OK:
                _check(response.status_code, await response.aread())
            rest = b""
            async for piece in response.aiter_bytes():
                *whole, rest = (rest + piece).split(b"\n\n")
                for text in whole:
                    yield _event(text)

    async def _get(self, path: str, caller: Mapping[str, str]) -> Any:
        response = await self._client.get(path, headers=caller)
        return _check(response.status_code, response.content)


def caller_of(headers: Any) -> dict[str, str]:
    """What a request says of who sends it, for the calls that it leads to."""
    return {name: headers[name] for name in CREDENTIALS if headers.get(name)}


def explained(error: Exception) -> ModelComposeError:
    """An error as a page tells it. What is nobody's but ours is in the log."""
    if isinstance(error, ModelComposeError):
        return error
    if isinstance(error, httpx2.HTTPError):
        return ServiceError(f"the service does not answer: {type(error).__name__}")
    log.error("a page", exc_info=error)
    return ModelComposeError("internal error", hint="`model-compose logs` tells more")


def failure(record: Mapping[str, Any]) -> ModelComposeError:
    """Why a run that has ended has no output."""
    code, said = record.get("error_type"), record.get("error")
    return revive(ErrorInfo(code or ModelComposeError.code, said or "failed", record.get("hint")))


def _event(text: bytes) -> Event:
    fields = dict(line.split(b": ", 1) for line in text.split(b"\n") if b": " in line)
    return Event(fields[b"event"].decode(), msgspec.json.decode(fields[b"data"]))


def _check(status: int, body: bytes) -> Any:
    """The value of an answer. Raises what the service says instead."""
    try:
        value = msgspec.json.decode(body) if not 200 <= status < 300 or body[:1] in b"[{" else None
    except msgspec.DecodeError as error:
        raise ServiceError(f"the service answered with status {status}, and no JSON") from error
    if 200 <= status < 300:
        return value
    told = value if isinstance(value, dict) else {}
    data = {key: each for key, each in told.items() if key not in ("detail", "type", "hint")}
    raise revive(ErrorInfo(told.get("type", ""), str(told.get("detail", status)), told.get("hint"), data))


def from_json(text: str, name: str) -> Any:
    """A value that somebody wrote into a field. Raises BadRequest."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadRequest(f"`{name}` is not JSON: {error}") from error
