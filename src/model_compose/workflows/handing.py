"""How does a stream go from a job to who reads it?"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from model_compose.components.streams import Stream
from model_compose.config.expression import Scope, Template
from model_compose.config.values import to_text
from model_compose.errors import Cancelled, ModelComposeError
from model_compose.workflows.context import JobState


def said(error: BaseException) -> str:
    """What an error says, for those who look at a run."""
    known = isinstance(error, ModelComposeError)
    return str(error) if known else f"{type(error).__name__}: {error}"


async def begun(stream: Stream) -> Stream:
    """A stream whose first pieces are there: until then it can be tried again."""
    reader = stream.reader()
    try:
        first = await anext(reader, None)
    except BaseException:
        await stream.aclose()
        raise

    async def pieces() -> AsyncIterator[list[Any]]:
        if first is not None:
            yield first
            async for some in reader:
                yield some

    return Stream(pieces(), close=stream.aclose, whole=stream.whole, items=stream.items)


def noted(stream: Stream, source: Stream | None, end: Callable[[JobState, str | None], None]) -> Stream:
    """A stream that tells how it ends, once, and is closed with the one that it is made from."""
    over = False

    def note(state: JobState, error: str | None = None) -> None:
        nonlocal over
        if not over:
            over = True
            end(state, error)

    async def pieces() -> AsyncIterator[list[Any]]:
        try:
            async for some in stream.reader():
                yield some
        except Exception as error:
            if not isinstance(error, Cancelled):
                note("failed", said(error))
            raise
        note("completed")

    async def close() -> None:
        await stream.aclose()
        if source is not None:
            await source.aclose()
        note("cancelled")

    return Stream(pieces(), close=close, whole=stream.whole, items=stream.items)


def spliced(template: Template, job: str, stream: Stream, scope: Scope) -> Stream:
    """A text in the middle of which the output of a job stands, while that is still being made."""
    texts = ["", ""]
    behind = 0
    for part in template.parts:
        if isinstance(part, str):
            texts[behind] += part
        elif part.key == "jobs" and part.path[:1] == (job,):
            behind = 1
        else:
            texts[behind] += to_text(part.render(scope), part.field)

    async def pieces() -> AsyncIterator[list[Any]]:
        if texts[0]:
            yield [texts[0]]
        async for some in stream.reader():
            yield [to_text(piece, job) for piece in some]
        if texts[1]:
            yield [texts[1]]

    return Stream(pieces(), close=stream.aclose)
