"""How does a call to a `text-splitter` take a text that is there, or one that is still coming?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from model_compose.components.contract import CallContext, Setting, Stateless
from model_compose.components.deadlines import Deadline
from model_compose.components.places import Place, Places
from model_compose.components.requests import request_of, values_of
from model_compose.components.streams import Stream, rendered
from model_compose.components.text_splitter.spec import SEPARATORS, Split
from model_compose.components.text_splitter.splitting import (
    ByParagraph,
    BySentence,
    BySize,
    ByWord,
    Splitter,
)
from model_compose.config.expression import Scope
from model_compose.config.schema import Action
from model_compose.errors import InvalidInput
from model_compose.types import plain

#: Characters that are split on the event loop: about a millisecond.
_AT_ONCE: Final = 4096
#: Characters that are split before somebody gets what they made.
_PART: Final = 1 << 18


class TextSplitter(Stateless):
    """Splits texts; the chunks of a stream come as soon as they are complete."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._places = Places(self.name, setting.declared.max_concurrent_count)

    async def call(self, action: Action, scope: Scope, context: CallContext, *, streaming: bool) -> Any:
        """A list of chunks for a text, a list of lists for a list, a `Stream` of chunks for a stream."""
        deadline = Deadline(action.timeout)
        values = values_of(action, scope)
        text = values.get("text")
        try:
            request = request_of({**values, "text": ""} if isinstance(text, Stream | list) else values, Split)
            texts = _texts(text) if isinstance(text, list) else []
            async with deadline:
                place = await self._places.take(context)
        except BaseException:
            if isinstance(text, Stream):
                await text.aclose()
            raise
        if isinstance(text, list):
            try:
                async with deadline:
                    result = [await _all(each, request) for each in texts]
            finally:
                place.leave()
            return await rendered(action.output, result, scope)
        chunks = _chunks(text if isinstance(text, Stream) else request.text, request, place, deadline)
        if not (isinstance(text, Stream) or action.streaming):
            return await rendered(action.output, await chunks.collect(), scope)
        return await rendered(action.output, chunks, scope)


def _texts(items: list[Any]) -> list[str]:
    return [_text(item, f"text[{index}]") for index, item in enumerate(items)]


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"`{field}`: expected text, found `{type(value).__name__}`", field=field)
    return value


def _splitter(request: Split) -> Splitter:
    size, overlap = request.size, request.chunk_overlap
    if request.by == "sentence":
        return BySentence(size, overlap)
    if request.by == "paragraph":
        return ByParagraph(size, overlap)
    if request.by == "word":
        return ByWord(size, overlap)
    assert size is not None
    separators = () if request.by == "character" else request.separators
    return BySize(size, overlap, SEPARATORS if separators is None else tuple(separators))


async def _all(text: str, request: Split) -> list[str]:
    splitter = _splitter(request)
    if len(text) <= _AT_ONCE:
        return splitter.feed(text) + splitter.finish()
    return await asyncio.to_thread(lambda: splitter.feed(text) + splitter.finish())


def _chunks(text: Stream | str, request: Split, place: Place, deadline: Deadline) -> Stream:
    """The chunks of a text, in lists of those that are complete at once."""
    splitter = _splitter(request)

    async def pieces() -> AsyncIterator[list[Any]]:
        try:
            reader = _parts(text)
            while True:
                async with deadline:
                    part = await anext(reader, None)
                    done = splitter.finish() if part is None else await _fed(splitter, part)
                if done:
                    yield done
                if part is None:
                    return
        finally:
            await close()

    async def close() -> None:
        try:
            if isinstance(text, Stream):
                await text.aclose()
        finally:
            place.leave()

    return Stream(pieces(), close=close, items=True)


async def _parts(text: Stream | str) -> AsyncIterator[str]:
    if isinstance(text, str):
        for start in range(0, len(text), _PART):
            yield text[start : start + _PART]
        return
    async for pieces in text.reader():
        yield "".join([_text(plain(piece), "text") for piece in pieces])


async def _fed(splitter: Splitter, part: str) -> list[str]:
    return splitter.feed(part) if len(part) <= _AT_ONCE else await asyncio.to_thread(splitter.feed, part)
