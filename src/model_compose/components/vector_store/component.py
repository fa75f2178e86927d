"""How does a call to a vector store become an insert, an update, a delete or a search?"""

from __future__ import annotations

import asyncio
from array import array
from typing import Any, Final

from msgspec.structs import replace

from model_compose.components.contract import CallContext, Setting, Stateless
from model_compose.components.requests import request_of, values_of
from model_compose.components.streams import rendered
from model_compose.components.vector_store import rows
from model_compose.components.vector_store.filter import conditions
from model_compose.components.vector_store.spec import (
    Changed,
    Delete,
    Hit,
    Insert,
    Inserted,
    Metric,
    Search,
    Update,
    VectorStoreConfig,
)
from model_compose.components.vector_store.store import Matching, Near, Place, Row, Store, Wanted
from model_compose.config.expression import Scope
from model_compose.config.schema import Action
from model_compose.errors import InvalidInput, NotFound, TimedOut
from model_compose.runtime.host import named

_STORES: Final = {
    "sqlite": "model_compose.components.vector_store.sqlite:SqliteStore",
    "chroma": "model_compose.components.vector_store.chroma:ChromaStore",
    "pgvector": "model_compose.components.vector_store.pgvector:PgvectorStore",
    "qdrant": "model_compose.components.vector_store.qdrant:QdrantStore",
    "milvus": "model_compose.components.vector_store.milvus:MilvusStore",
}
_VECTORS: Final = ("vector", "query")
#: Checking this many numbers takes less than a millisecond, and less than handing them to a thread.
_FEW: Final = 4096


class VectorStore(Stateless):
    """A store, which is opened by the first call."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        config: VectorStoreConfig = setting.declared.config
        self._config = config
        self._store: Store = named(_STORES[config.driver])(config, setting.folder / config.folder)

    async def close(self) -> None:
        await self._store.close()

    async def call(self, action: Action, scope: Scope, context: CallContext, *, streaming: bool) -> Any:
        """Do what an action says; -> its output."""
        try:
            async with asyncio.timeout(action.timeout):
                result = await self._done(action, scope, context)
        except TimeoutError:
            raise TimedOut("the action's `timeout` ran out") from None
        return await rendered(action.output, result, scope)

    async def _done(self, action: Action, scope: Scope, context: CallContext) -> Any:
        values = values_of(action, scope)
        # Vectors are long: they are checked one by one, and not by who checks everything else.
        given = {name: values[name] for name in _VECTORS if name in values}
        checked: dict[str, Any] = {name: [] for name, value in given.items() if isinstance(value, list)}
        request = request_of({**values, **checked}, action.spec.request)
        # What the file says in the store's own words is no data of a client.
        own = isinstance(action.values.get("filter"), str)
        context.admitted = True
        match request:
            case Insert():
                return await self._insert(request, given["vector"])
            case Update():
                return await self._update(request, given.get("vector"))
            case Delete():
                return await self._delete(request, own)
            case Search():
                return await self._search(request, given["query"], own)

    async def _insert(self, request: Insert, given: Any) -> Inserted:
        def made() -> list[Row]:
            return rows.to_insert(request, *rows.vectors(given, "vector", self._config.metric))

        found = await _off_the_loop(made, given)
        self._check_dimension([row.vector for row in found], "vector")
        await self._store.insert(_place(request), found)
        return Inserted(affected_rows=len(found), ids=[row.id for row in found])

    async def _update(self, request: Update, given: Any) -> Changed:
        def made() -> list[Row]:
            if given is None:
                return rows.to_update(request, None, False)
            return rows.to_update(request, *rows.vectors(given, "vector", self._config.metric))

        found = await _off_the_loop(made, given)
        self._check_dimension([row.vector for row in found], "vector")
        changed = await self._store.update(_place(request), found, insert=request.insert_if_not_exist)
        return Changed(affected_rows=changed)

    async def _delete(self, request: Delete, own: bool) -> Changed:
        ids = None if request.vector_id is None else rows.ids(request.vector_id)
        conditions = _filter(request.filter, own)
        if ids is None and not conditions:
            hint = "an id, a list of ids, or a filter"
            raise InvalidInput("`vector_id` and `filter` are missing: what is to be deleted?", hint=hint)
        try:
            return Changed(affected_rows=await self._store.delete(_place(request), ids, conditions))
        except NotFound:
            return Changed(affected_rows=0)  # before the first insert there is nothing to delete

    async def _search(self, request: Search, given: Any, own: bool) -> Any:
        metric: Metric = request.metric_type or self._config.metric
        queries, many = await _off_the_loop(lambda: rows.vectors(given, "query", metric), given)
        self._check_dimension(queries, "query")
        matching = _filter(request.filter, own)
        wanted = Wanted(queries, request.top_k, request.metric_type, matching, request.include_vectors)
        found = await self._store.search(_place(request), wanted)
        hits = [[_hit(near, metric, request.output_fields) for near in each] for each in found]
        return hits if many else hits[0]

    def _check_dimension(self, found: list[array[float] | None] | list[array[float]], field: str) -> None:
        wanted = self._config.dimension
        for each in found:
            if wanted is not None and each is not None and len(each) != wanted:
                raise InvalidInput(
                    f"`{field}` has {len(each)} numbers, and `dimension` is {wanted}", field=field
                )


async def _off_the_loop(work: Any, given: Any) -> Any:
    """What `work` gives; in a thread if there is much to look at."""
    if not isinstance(given, list) or sum(len(e) if isinstance(e, list) else 1 for e in given) <= _FEW:
        return work()
    return await asyncio.to_thread(work)


def _place(request: Insert | Update | Delete | Search) -> Place:
    if not request.collection:
        hint = "name it at the component, in the action or in the input"
        raise InvalidInput("`collection` is missing", field="collection", hint=hint)
    place = Place(request.collection, request.id_field, request.vector_field)
    if isinstance(request, Insert):
        place = replace(place, partition=request.partition)
    if isinstance(request, Insert | Update):
        place = replace(place, batch_size=request.batch_size)
    return place


def _filter(given: Any, own: bool) -> Matching:
    if given is None:
        return ()
    if isinstance(given, str):
        if own:
            return given
        raise InvalidInput(
            "`filter` is neither a map nor a list", field="filter", hint="such as `{lang: en}`"
        )
    return conditions(given)


def _hit(near: Near, metric: Metric, fields: list[str] | None) -> Hit:
    return Hit(
        id=near.id,
        score=-near.distance if metric == "ip" else 1 / (1 + max(near.distance, 0.0)),
        distance=near.distance,
        metadata=rows.chosen(near.metadata, fields),
        document=near.document,
        vector=None if near.vector is None else list(near.vector),
    )
