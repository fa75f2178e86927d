"""`type: filter`: which items of a list go on?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from msgspec import UNSET

from model_compose.components.streams import Stream
from model_compose.config.expression import Scope, render
from model_compose.config.schema import Filter
from model_compose.config.template import ForEach
from model_compose.types import plain
from model_compose.workflows.jobs.contract import Done, Setting
from model_compose.workflows.jobs.items import items_of

#: Items that are looked at in one go; then others have their turn.
_AT_ONCE: Final = 200


async def run(work: Filter, setting: Setting) -> Done:
    """The input, or the items that `where` admits."""
    scope = setting.scope
    if not isinstance(work.items, ForEach):
        constant = work.items is not None
        return Done(work.items if constant else _value(work, scope))
    found = render(work.items.input, scope)
    if isinstance(found, Stream) and found.items:
        return Done(Stream(_admitted(work.items, found, scope), close=found.aclose, items=True))
    if isinstance(found, Stream):
        found = await found.collect()
    kept = []
    for index, item in enumerate(items_of(found, setting.id)):
        if work.items.item_scope(scope, index, item) is not None:
            kept.append(item)
        if index % _AT_ONCE == _AT_ONCE - 1:
            await asyncio.sleep(0)
    return Done(kept)


def _value(work: Filter, scope: Scope) -> Any:
    return scope.values["input"] if work.input is UNSET else render(work.input, scope)


async def _admitted(tree: ForEach, stream: Stream, scope: Scope) -> AsyncIterator[list[Any]]:
    index = 0
    async for items in stream.reader():
        kept = []
        for item in items:
            if tree.item_scope(scope, index, plain(item)) is not None:
                kept.append(item)
            index += 1
        if kept:
            yield kept
