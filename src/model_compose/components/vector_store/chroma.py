"""How does Chroma keep vectors: in a folder, or on its server?"""

from __future__ import annotations

import contextlib
import math
from array import array
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from model_compose.components.vector_store.filter import Condition, is_number, unsupported
from model_compose.components.vector_store.store import (
    Blocking,
    Matching,
    Near,
    Place,
    Row,
    Wanted,
    address,
    batches,
    check_dimension,
    check_made,
    check_metric,
    exists,
    new_vectors,
    unknown,
    unreachable,
)
from model_compose.errors import InvalidInput, ModelComposeError

# The types of its own signatures are those of numpy's arrays, and of what it takes beside what we give.
ClientAPI = Any
Collection = Any

#: Candidates that the index looks at: recall@10 is 0.99 and more with 100,000 vectors of 384 numbers.
_EF_SEARCH: Final = 200
_EF_CONSTRUCTION: Final = 200
_NEIGHBOURS: Final = 32
_DEFAULT_TENANT: Final = "default_tenant"
_DEFAULT_DATABASE: Final = "default_database"


class ChromaStore(Blocking[ClientAPI]):
    """Keeps vectors with Chroma."""

    def open(self) -> ClientAPI:
        import chromadb
        from chromadb.config import Settings

        settings = Settings(anonymized_telemetry=False)
        if not self.config.served:
            return chromadb.PersistentClient(str(self.folder), settings=settings)
        url, token = urlsplit(address(self.config)), self.config.token
        client = chromadb.HttpClient(
            host=url.hostname or "localhost",
            port=url.port or (443 if url.scheme == "https" else self.config.server_port),
            ssl=url.scheme == "https",
            headers={} if token is None else {"Authorization": f"Bearer {token}", "X-Chroma-Token": token},
            settings=settings,
            tenant=self.config.tenant or _DEFAULT_TENANT,
            database=self.config.database or _DEFAULT_DATABASE,
        )
        for session in _sessions(client):
            session.timeout = (
                self.config.timeout
            )  # it has none of its own, and its threads would wait forever
        return client

    def shut(self, client: ClientAPI) -> None:
        sessions = _sessions(client)
        client.close()
        for session in sessions:  # which it leaves open
            session.close()

    def failed(self, error: Exception) -> ModelComposeError | None:
        import httpx
        from chromadb.errors import ChromaError, InternalError

        if isinstance(error, httpx.HTTPError | InternalError | ConnectionError):
            return unreachable(self.config, str(error) or type(error).__name__)
        if isinstance(error, ChromaError):
            return InvalidInput(f"chroma refuses it: {error}")
        if isinstance(error, ValueError):
            # Its client says so of everything, of a server that is not there, too.
            if "connect to" in str(error):
                return unreachable(self.config, str(error))
            return InvalidInput(f"chroma refuses it: {error}")
        return None

    def put(self, client: ClientAPI, place: Place, rows: list[Row]) -> None:
        first = rows[0].vector
        assert first is not None
        collection = self._made(client, place.collection)
        if collection is not None:
            self._check(collection, [row.vector for row in rows])
            there = _ids(collection, [row.id for row in rows])
            if there:
                raise exists([row.id for row in rows if row.id in there])
        else:
            _check_metadata(rows)
            collection = self._make(client, place.collection, len(first))
        self._add(client, collection, rows, place.batch_size)

    def change(self, client: ClientAPI, place: Place, rows: list[Row], insert: bool) -> int:
        collection = self._made(client, place.collection)
        if collection is None:
            first = next((row.vector for row in rows if row.vector is not None), None)
            if not insert or first is None:
                raise unknown(place.collection)
            collection = self._make(client, place.collection, len(first))
        self._check(collection, [row.vector for row in rows])
        old = collection.get(ids=[row.id for row in rows], include=["metadatas"])
        there = dict(zip(old["ids"], old["metadatas"] or [], strict=True))
        new = [row for row in rows if row.id not in there] if insert else []
        new_vectors(new)
        _check_metadata(rows)
        for row in rows:
            if row.id in there:
                _update(collection, row, dict(there[row.id] or {}))
        self._add(client, collection, new, place.batch_size)
        return len(there) + len(new)

    def remove(self, client: ClientAPI, place: Place, ids: list[str] | None, matching: Matching) -> int:
        collection = self._made(client, place.collection)
        if collection is None:
            raise unknown(place.collection)
        where = _where(matching)
        if where is _NOTHING:
            return 0
        found = collection.get(ids=ids, where=where, include=[])["ids"]
        for some in batches(found, 0, client.get_max_batch_size()):
            collection.delete(ids=list(some))
        return len(found)

    def find(self, client: ClientAPI, place: Place, wanted: Wanted) -> list[list[Near]]:
        collection = self._made(client, place.collection)
        if collection is None:
            raise unknown(place.collection)
        metric = self._check(collection, wanted.queries, "query")
        check_metric(wanted.metric, metric, "chroma")
        where = _where(wanted.filter)
        if where is _NOTHING:
            return [[] for _ in wanted.queries]
        found = collection.query(
            query_embeddings=[query.tolist() for query in wanted.queries],
            n_results=wanted.top_k,
            where=where,
            include=["metadatas", "documents", "distances", *(["embeddings"] if wanted.vectors else [])],
        )
        return [_near(found, i, metric, wanted.vectors) for i in range(len(wanted.queries))]

    def _made(self, client: ClientAPI, name: str) -> Collection | None:
        from chromadb.errors import NotFoundError

        with contextlib.suppress(NotFoundError):
            return client.get_collection(name, embedding_function=None)
        return None

    def _make(self, client: ClientAPI, name: str, length: int) -> Collection:
        index = {
            "space": self.config.metric,
            "ef_search": _EF_SEARCH,
            "ef_construction": _EF_CONSTRUCTION,
            "max_neighbors": _NEIGHBOURS,
        }
        dimension = self.config.dimension or length
        return client.create_collection(
            name,
            configuration={"hnsw": index},
            metadata={"dimension": dimension},
            embedding_function=None,
            get_or_create=True,
        )

    def _check(
        self, collection: Collection, vectors: Sequence[array[float] | None], field: str = "vector"
    ) -> str:
        """The collection's metric. Raises InvalidInput if vectors do not fit."""
        metric = str((collection.configuration_json.get("hnsw") or {}).get("space", "l2"))
        dimension = (collection.metadata or {}).get("dimension")
        if not isinstance(dimension, int):  # made by somebody else
            one = collection.get(limit=1, include=["embeddings"])["embeddings"]
            dimension = len(one[0]) if one is not None and len(one) else None
        if dimension is not None:
            check_made(self.config, collection.name, dimension, metric)
            check_dimension(vectors, dimension, collection.name, field)
        return metric

    def _add(self, client: ClientAPI, collection: Collection, rows: Sequence[Row], size: int) -> None:
        _check_metadata(rows)
        for some in batches(rows, size, client.get_max_batch_size()):
            collection.add(
                ids=[row.id for row in some],
                embeddings=[row.vector.tolist() for row in some if row.vector is not None],
                metadatas=[row.metadata or None for row in some],
                documents=[row.document for row in some],
            )


def _sessions(client: ClientAPI) -> list[Any]:
    """The HTTP clients of a client of a server: one for vectors, and one for tenants and databases."""
    servers = [getattr(each, "_server", None) for each in (client, getattr(client, "_admin_client", None))]
    return [session for each in servers if (session := getattr(each, "_session", None)) is not None]


def _ids(collection: Collection, ids: list[str]) -> set[str]:
    return set(collection.get(ids=ids, include=[])["ids"])


def _update(collection: Collection, row: Row, old: dict[str, Any]) -> None:
    """Chroma merges metadata: what is to go must be named."""
    metadata = None
    if row.metadata is not None and (row.metadata or old):
        metadata = {**dict.fromkeys(old), **row.metadata}
    collection.update(
        ids=row.id,
        embeddings=None if row.vector is None else [row.vector.tolist()],
        metadatas=None if metadata is None else [metadata],
        documents=None if row.document is None else [row.document],
    )


def _check_metadata(rows: Sequence[Row]) -> None:
    for row in rows:
        for field, value in (row.metadata or {}).items():
            if not isinstance(value, str | int | float):
                message = f"`metadata.{field}` is neither a text, a number, nor true or false"
                raise InvalidInput(
                    message, field=f"metadata.{field}", hint="driver `chroma` keeps nothing else"
                )


def _near(found: Any, i: int, metric: str, vectors: bool) -> list[Near]:
    rows = zip(
        found["ids"][i], found["distances"][i], found["metadatas"][i], found["documents"][i], strict=True
    )
    return [
        Near(
            name,
            _distance(distance, metric),
            dict(metadata or {}),
            document,
            [float(x) for x in found["embeddings"][i][j]] if vectors else None,
        )
        for j, (name, distance, metadata, document) in enumerate(rows)
    ]


def _distance(given: float, metric: str) -> float:
    """Chroma has the square of the distance, and 1 - the inner product."""
    if metric == "l2":
        return math.sqrt(max(given, 0.0))
    return given - 1 if metric == "ip" else given


#: Of a filter that nothing can match, which Chroma cannot be told.
_NOTHING: Final[dict[str, Any]] = {"": None}
_NAMES: Final = {"eq": "$eq", "neq": "$ne", "gt": "$gt", "gte": "$gte", "lt": "$lt", "lte": "$lte"}


def _where(matching: Matching) -> dict[str, Any] | None:
    """A filter in Chroma's words; None if there is none."""
    assert not isinstance(matching, str)
    found = []
    for each in matching:
        if each.operator == "in" and not each.value:
            return _NOTHING
        if each.operator == "not-in" and not each.value:
            continue
        found.append(_condition(each))
    if len(found) > 1:
        return {"$and": found}
    return found[0] if found else None


def _condition(each: Condition) -> dict[str, Any]:
    field, value = each.field, each.value
    if each.operator in _NAMES:
        if each.operator not in ("eq", "neq") and not is_number(value):
            raise unsupported("chroma", each)
        return {field: {_NAMES[each.operator]: value}}
    if each.operator in ("in", "not-in"):
        # Its own lists hold values of one type only.
        name, together = ("$eq", "$or") if each.operator == "in" else ("$ne", "$and")
        found = [{field: {name: one}} for one in value]
        return {together: found} if len(found) > 1 else found[0]
    raise unsupported("chroma", each)
