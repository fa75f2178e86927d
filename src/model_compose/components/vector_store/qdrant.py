"""How does Qdrant keep vectors: in a folder by its client, or on its server?"""

from __future__ import annotations

import uuid
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from model_compose.components.vector_store.filter import Condition, is_number, unsupported
from model_compose.components.vector_store.spec import VectorStoreConfig
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
from model_compose.errors import InvalidInput, ModelComposeError, ServiceError

if TYPE_CHECKING:
    from qdrant_client import QdrantClient, models

#: Qdrant's ids are UUIDs or numbers: ours are kept beside the vector, and made into one.
_IDS: Final = uuid.UUID("5f0c1c39-7a0b-4c3b-9d53-6a1d3f3f5a0e")
#: Candidates that the index of a server looks at.
_EF: Final = 256
_METRICS: Final = {"cosine": "Cosine", "ip": "Dot", "l2": "Euclid"}
_OURS: Final = {name: ours for ours, name in _METRICS.items()}


class QdrantStore(Blocking["QdrantClient"]):
    """Keeps vectors with Qdrant."""

    def __init__(self, config: VectorStoreConfig, folder: Path) -> None:
        super().__init__(config, folder, one_at_a_time=not config.served)

    def open(self) -> QdrantClient:
        from qdrant_client import QdrantClient

        if not self.config.served:
            # It wants one thread at a time, and checks that it is always the same one.
            return QdrantClient(path=str(self.folder), force_disable_check_same_thread=True)
        return QdrantClient(
            url=address(self.config),
            headers=None if self.config.token is None else {"api-key": self.config.token},
            timeout=max(1, round(self.config.timeout)),
            check_compatibility=False,  # asks the server before anybody wants something of it
        )

    def shut(self, client: QdrantClient) -> None:
        client.close()

    def failed(self, error: Exception) -> ModelComposeError | None:
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        if isinstance(error, UnexpectedResponse):
            said = error.content.decode(errors="replace")
            if error.status_code in (400, 422):
                return InvalidInput(f"qdrant refuses it: {said[:500]}")
            return unreachable(self.config, f"status {error.status_code}: {said}")
        if isinstance(error, ResponseHandlingException | QdrantException):
            return unreachable(self.config, str(error))
        if isinstance(error, RuntimeError) and "already accessed" in str(error):
            hint = "end the other process, or use a server"
            return ServiceError(f"another process uses `{self.folder}`", hint=hint)
        return None

    def put(self, client: QdrantClient, place: Place, rows: list[Row]) -> None:
        first = rows[0].vector
        assert first is not None
        if client.collection_exists(place.collection):
            self._check(client, place.collection, [row.vector for row in rows])
            there = _there(client, place.collection, rows)
            if there:
                raise exists([row.id for row in rows if row.id in there])
        else:
            self._make(client, place.collection, len(first))
        _add(client, place, rows)

    def change(self, client: QdrantClient, place: Place, rows: list[Row], insert: bool) -> int:
        from qdrant_client import models

        name = place.collection
        if not client.collection_exists(name):
            first = next((row.vector for row in rows if row.vector is not None), None)
            if not insert or first is None:
                raise unknown(name)
            self._make(client, name, len(first))
        self._check(client, name, [row.vector for row in rows])
        there = _there(client, name, rows)
        new = [row for row in rows if row.id not in there] if insert else []
        new_vectors(new)
        for row in rows:
            if row.id not in there:
                continue
            if row.vector is not None:
                point = models.PointVectors(id=_point(row.id), vector=row.vector.tolist())
                client.update_vectors(name, points=[point])
            payload = _payload(row)
            if len(payload) > 1:  # keys that are not named stay
                client.set_payload(name, payload=payload, points=[_point(row.id)], wait=True)
        _add(client, place, new)
        return len(there) + len(new)

    def remove(self, client: QdrantClient, place: Place, ids: list[str] | None, matching: Matching) -> int:
        from qdrant_client import models

        name = place.collection
        if not client.collection_exists(name):
            raise unknown(name)
        chosen = _filter(matching) or models.Filter()
        if ids is not None:
            one_of = models.HasIdCondition(has_id=[_point(each) for each in ids])
            chosen = models.Filter(must=[one_of, chosen])
        count = client.count(name, count_filter=chosen, exact=True).count
        client.delete(name, points_selector=models.FilterSelector(filter=chosen), wait=True)
        return count

    def find(self, client: QdrantClient, place: Place, wanted: Wanted) -> list[list[Near]]:
        from qdrant_client import models

        name = place.collection
        if not client.collection_exists(name):
            raise unknown(name)
        metric = self._check(client, name, wanted.queries, "query")
        check_metric(wanted.metric, metric, "qdrant")
        params = None  # without a server there is no index
        if self.config.served:
            params = models.SearchParams(hnsw_ef=max(_EF, wanted.top_k))
        requests = [
            models.QueryRequest(
                query=query.tolist(),
                filter=_filter(wanted.filter),
                limit=wanted.top_k,
                params=params,
                with_payload=True,
                with_vector=wanted.vectors,
            )
            for query in wanted.queries
        ]
        found = client.query_batch_points(name, requests=requests)
        return [[_near(point, metric, wanted.vectors) for point in each.points] for each in found]

    def _make(self, client: QdrantClient, name: str, length: int) -> None:
        from qdrant_client import models

        size = self.config.dimension or length
        distance = models.Distance(_METRICS[self.config.metric])
        client.create_collection(name, vectors_config=models.VectorParams(size=size, distance=distance))

    def _check(
        self,
        client: QdrantClient,
        name: str,
        vectors: Sequence[array[float] | None],
        field: str = "vector",
    ) -> str:
        """The collection's metric. Raises InvalidInput if vectors do not fit."""
        made = client.get_collection(name).config.params.vectors
        if made is None or isinstance(made, dict):
            message = f"the collection `{name}` has vectors with names, which is not supported"
            raise InvalidInput(message, field="collection")
        metric = _OURS.get(made.distance.value, made.distance.value)
        check_made(self.config, name, made.size, metric)
        check_dimension(vectors, made.size, name, field)
        return metric


def _point(name: str) -> str:
    return str(uuid.uuid5(_IDS, name))


def _there(client: QdrantClient, name: str, rows: Sequence[Row]) -> set[str]:
    """Those ids that are there."""
    found = client.retrieve(name, ids=[_point(row.id) for row in rows], with_payload=["id"])
    return {str((each.payload or {}).get("id")) for each in found}


def _add(client: QdrantClient, place: Place, rows: Sequence[Row]) -> None:
    from qdrant_client import models

    for some in batches(rows, place.batch_size):
        points = [
            models.PointStruct(id=_point(row.id), vector=row.vector.tolist(), payload=_payload(row))
            for row in some
            if row.vector is not None
        ]
        client.upsert(place.collection, points=points, wait=True)


def _payload(row: Row) -> dict[str, Any]:
    values = {"id": row.id, "metadata": row.metadata, "document": row.document}
    return {name: value for name, value in values.items() if value is not None}


def _near(point: models.ScoredPoint, metric: str, vectors: bool) -> Near:
    payload = point.payload or {}
    distance = {"cosine": 1 - point.score, "ip": -point.score}.get(metric, point.score)
    vector = [float(x) for x in point.vector or []] if vectors else None  # type: ignore[arg-type]
    name = str(payload.get("id", point.id))
    return Near(name, distance, payload.get("metadata") or {}, payload.get("document"), vector)


def _filter(matching: Matching) -> models.Filter | None:
    """A filter in Qdrant's words."""
    from qdrant_client import models

    assert not isinstance(matching, str)
    must: list[Any] = []
    must_not: list[Any] = []
    for each in matching:
        if '"' in each.field:
            raise InvalidInput(f"`filter`: driver `qdrant` has no field `{each.field}`", field="filter")
        key = f'metadata."{each.field}"'
        if each.operator == "exists":
            empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
            (must_not if each.value else must).append(empty)
        elif each.operator in ("eq", "neq"):
            (must if each.operator == "eq" else must_not).append(_equal(key, each.value))
        elif each.operator in ("in", "not-in"):
            # A list of conditions of which none can hold has to be said so.
            any_of = models.Filter(should=[_equal(key, one) for one in each.value])
            if not each.value:
                any_of = models.Filter(must=[models.HasIdCondition(has_id=[])])
            (must if each.operator == "in" else must_not).append(any_of)
        else:
            must.append(_order(key, each))
    return models.Filter(must=must, must_not=must_not) if must or must_not else None


def _equal(key: str, value: Any) -> models.FieldCondition:
    """Numbers as a range: a match of 2019 would not be one of 2019.0."""
    from qdrant_client import models

    if is_number(value):
        return models.FieldCondition(key=key, range=models.Range(gte=value, lte=value))
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


def _order(key: str, each: Condition) -> models.FieldCondition:
    from qdrant_client import models

    if each.operator == "starts-with" or not is_number(each.value):
        raise unsupported("qdrant", each)
    return models.FieldCondition(key=key, range=models.Range(**{each.operator: each.value}))
