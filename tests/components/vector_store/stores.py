"""How do tests get a component of each driver that runs here?"""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from tests.compose.apps import project_of

from model_compose.components.contract import CallContext, Setting
from model_compose.components.vector_store.component import VectorStore
from model_compose.config.expression import Scope
from model_compose.config.schema import Component
from model_compose.types import plain

#: Those who need no server.
LOCAL = ("sqlite", "chroma", "qdrant", "milvus")

FILE = """
workflow: {jobs: [{component: store, action: search}]}
component:
  id: store
  type: vector-store
"""


class Context:
    """The run that a call belongs to, of which a store wants nothing."""

    admitted = False


class Client:
    """Calls the actions of a component, by default the four of one that says nothing of actions."""

    def __init__(self, store: VectorStore, declared: Component) -> None:
        self.store = store
        self._declared = declared

    async def call(self, name: str, given: dict[str, Any]) -> Any:
        context = cast(CallContext, Context())
        scope = Scope({"input": given})
        return plain(await self.store.call(self._declared.action(name), scope, context, streaming=False))

    async def insert(self, **given: Any) -> Any:
        return await self.call("insert", given)

    async def update(self, **given: Any) -> Any:
        return await self.call("update", given)

    async def search(self, **given: Any) -> Any:
        return await self.call("search", given)

    async def delete(self, **given: Any) -> Any:
        return await self.call("delete", given)

    async def ids(self, **given: Any) -> list[str]:
        """What a search finds, in order."""
        return [hit["id"] for hit in await self.search(**{"query": [1.0, 0.0, 0.0], **given})]


def setting_of(declared: Component, folder: Path) -> Setting:
    """What a component is made from; a store wants no more of it."""
    return cast(Setting, SimpleNamespace(declared=declared, folder=folder))


@contextlib.asynccontextmanager
async def store_of(keys: str, folder: Path) -> AsyncIterator[Client]:
    """A component with these keys, until the end of the block."""
    project = project_of(FILE + textwrap.indent(keys, "  "), folder)
    declared = project.components["store"]
    store = VectorStore(setting_of(declared, project.folder))
    try:
        yield Client(store, declared)
    finally:
        await store.close()
