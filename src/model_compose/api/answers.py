"""How does the output of a run go out: as events, as a file, as JSON?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from starlette.types import Send

from model_compose.api import sse
from model_compose.api.asgi import Headers, end_events, respond, respond_events, respond_json
from model_compose.api.status import error_body
from model_compose.components.streams import Stream
from model_compose.compose.run import Run, usage_map
from model_compose.types import Blob, for_json, plain

_SHOWN: Final = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})


def task_headers(run: Run) -> Headers:
    """By which name a run can be asked for."""
    return [(b"x-task-id", run.id.encode())]


async def collected(run: Run, stream: Stream) -> Any:
    """The output of a run that streams it, when it is complete."""
    async for _ in run.follow(stream):
        pass
    return run.output


async def respond_output(send: Send, output: Any, headers: Headers = ()) -> None:
    """The output as the whole body: a file as its bytes, anything else as JSON."""
    value = plain(output)
    if isinstance(value, Blob):
        await respond_file(send, value, headers)
    else:
        await respond_json(send, for_json(value), headers=headers)


async def respond_file(send: Send, blob: Blob, headers: Headers = ()) -> None:
    """A browser shows pictures and saves everything else: what a client sent must not run as a page."""
    kind = blob.media_type if blob.media_type in _SHOWN else "application/octet-stream"
    name = f"; filename*=UTF-8''{quote(blob.name, safe='')}" if blob.name else ""
    disposition = ("inline" if blob.media_type in _SHOWN else "attachment") + name
    about = [(b"x-content-type-options", b"nosniff"), (b"content-disposition", disposition.encode())]
    await respond(send, HTTPStatus.OK, blob.data, kind.encode(), [*headers, *about])


async def respond_stream(send: Send, run: Run, stream: Stream) -> None:
    """The events of an output that is still being made."""
    try:
        await respond_events(send, _frames(run, stream), task_headers(run))
    except asyncio.CancelledError:
        if run.reason is None:
            raise
        # The run was cancelled while the client was slow to read.
        await end_events(send, error_event(run.reason))


async def _frames(run: Run, stream: Stream) -> AsyncGenerator[bytes]:
    pieces = run.follow(stream)
    try:
        async for some in pieces:
            frame = sse.data(some)
            if frame:
                yield frame
    except asyncio.CancelledError:
        if run.reason is None:
            raise
        yield error_event(run.reason)
    except Exception as error:  # noqa: BLE001  it is the last thing that the client hears
        yield error_event(error)
    else:
        yield end_event(run)
    finally:
        await pieces.aclose()


async def only(frame: bytes) -> AsyncGenerator[bytes]:
    """Events that are there already."""
    yield frame


def error_event(error: BaseException) -> bytes:
    """The last event of a run that has failed."""
    return sse.event("error", error_body(error))


def end_event(run: Run) -> bytes:
    """The last event of a run that has ended well."""
    end: dict[str, Any] = {"task_id": run.id, "status": run.status}
    if run.usage is not None:
        end["usage"] = usage_map(run.usage)
    if run.finish_reason is not None:
        end["finish_reason"] = run.finish_reason
    return sse.event("end", end)
