"""How does Milvus keep vectors: in a folder by milvus-lite, or on its server?"""

from __future__ import annotations

import json
import logging
import math
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from model_compose.components.vector_store.filter import Condition, unsupported
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

if TYPE_CHECKING:
    from pymilvus import MilvusClient

_FILE: Final = "milvus.db"
#: Milvus counts bytes, of which a character has up to four.
_MOST_ID: Final = 2048
_MOST_DOCUMENT: Final = 65_535
#: Candidates that the index of milvus-lite looks at: with its own 64, recall@10 is less than 0.99 with
#: 100,000 vectors of 384 numbers.
_EF_SEARCH: Final = 256
#: What one query gives at most.
_PAGE: Final = 16_384


class MilvusStore(Blocking["MilvusClient"]):
    """Keeps vectors with Milvus."""

    def open(self) -> MilvusClient:
        from pymilvus import MilvusClient

        # They write every error with its trace to stderr, beside raising it.
        for name in ("pymilvus", "milvus_lite"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        for name in list(logging.root.manager.loggerDict):
            if name.startswith(("pymilvus.", "milvus_lite.")):
                logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        if not self.config.served:
            return MilvusClient(str(self.folder / _FILE))
        config = self.config
        return MilvusClient(
            uri=address(config),
            user=config.user or "",
            password=config.password or "",
            db_name=config.database or "",
            token=config.token or "",
            timeout=config.timeout,
        )

    def shut(self, client: MilvusClient) -> None:
        client.close()

    def failed(self, error: Exception) -> ModelComposeError | None:
        import grpc
        from pymilvus.exceptions import (
            ConnectError,
            DataNotMatchException,
            MilvusException,
            MilvusUnavailableException,
            ParamError,
        )

        if isinstance(error, DataNotMatchException | ParamError):
            return InvalidInput(f"milvus refuses it: {error.message[:500]}")
        if isinstance(error, ConnectError | MilvusUnavailableException):
            return unreachable(self.config, error.message)
        if isinstance(error, MilvusException):
            if error.code in _REFUSED:
                return InvalidInput(f"milvus refuses it: {error.message[:500]}")
            return unreachable(self.config, error.message)
        if isinstance(error, grpc.RpcError):
            return unreachable(self.config, type(error).__name__)
        return None

    def put(self, client: MilvusClient, place: Place, rows: list[Row]) -> None:
        first = rows[0].vector
        assert first is not None
        if client.has_collection(place.collection):
            self._check(client, place, [row.vector for row in rows])
            there = _there(client, place, rows)
            if there:
                raise exists([row.id for row in rows if row.id in there])
        else:
            self._make(client, place, len(first))
        _add(client, place, rows)

    def change(self, client: MilvusClient, place: Place, rows: list[Row], insert: bool) -> int:
        if not client.has_collection(place.collection):
            first = next((row.vector for row in rows if row.vector is not None), None)
            if not insert or first is None:
                raise unknown(place.collection)
            self._make(client, place, len(first))
        self._check(client, place, [row.vector for row in rows])
        there = _there(client, place, rows)
        new = [row for row in rows if row.id not in there] if insert else []
        new_vectors(new)
        for row in rows:
            if row.id in there:
                client.upsert(place.collection, [_entity(place, row)], partial_update=True)
        _add(client, place, new)
        return len(there) + len(new)

    def remove(self, client: MilvusClient, place: Place, ids: list[str] | None, matching: Matching) -> int:
        if not client.has_collection(place.collection):
            raise unknown(place.collection)
        terms = [] if ids is None else [_one_of(place.id_field, ids)]
        terms += [f"({term})" for term in _terms(matching)]
        count = 0
        while found := client.query(
            place.collection, filter=" and ".join(terms), output_fields=[place.id_field], limit=_PAGE
        ):
            client.delete(place.collection, ids=[each[place.id_field] for each in found])
            count += len(found)
        return count

    def find(self, client: MilvusClient, place: Place, wanted: Wanted) -> list[list[Near]]:
        if not client.has_collection(place.collection):
            raise unknown(place.collection)
        metric = self._check(client, place, wanted.queries, "query")
        check_metric(wanted.metric, metric, "milvus")
        fields = ["metadata", "document", *([place.vector_field] if wanted.vectors else [])]
        found = client.search(
            place.collection,
            [query.tolist() for query in wanted.queries],
            anns_field=place.vector_field,
            filter=" and ".join(f"({term})" for term in _terms(wanted.filter)),
            limit=wanted.top_k,
            output_fields=fields,
            # A server has its own idea of how far AUTOINDEX looks.
            search_params={} if self.config.served else {"params": {"ef": max(_EF_SEARCH, wanted.top_k)}},
        )
        return [[_near(hit, place, metric, wanted.vectors) for hit in each] for each in found]

    def _make(self, client: MilvusClient, place: Place, length: int) -> None:
        from pymilvus import DataType

        schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(place.id_field, DataType.VARCHAR, is_primary=True, max_length=_MOST_ID)
        schema.add_field(place.vector_field, DataType.FLOAT_VECTOR, dim=self.config.dimension or length)
        schema.add_field("metadata", DataType.JSON)
        schema.add_field("document", DataType.VARCHAR, max_length=_MOST_DOCUMENT, nullable=True)
        index = client.prepare_index_params()
        index.add_index(place.vector_field, index_type="AUTOINDEX", metric_type=self.config.metric.upper())
        client.create_collection(
            place.collection, schema=schema, index_params=index, consistency_level="Strong"
        )

    def _check(
        self,
        client: MilvusClient,
        place: Place,
        vectors: Sequence[array[float] | None],
        field: str = "vector",
    ) -> str:
        """The collection's metric. Raises InvalidInput if it is of another form, or vectors do not fit."""
        from pymilvus import DataType

        name = place.collection
        fields = {each["name"]: each for each in client.describe_collection(name)["fields"]}
        wanted = {
            place.id_field: DataType.VARCHAR,
            place.vector_field: DataType.FLOAT_VECTOR,
            "metadata": DataType.JSON,
            "document": DataType.VARCHAR,
        }
        for key, kind in wanted.items():
            if key not in fields or fields[key]["type"] != kind:
                message = f"the collection `{name}` has no field `{key}` of type {kind.name}"
                raise InvalidInput(
                    message, field="collection", hint="the first insert makes a collection that fits"
                )
        metric = str(client.describe_index(name, place.vector_field)["metric_type"]).lower()
        dimension = int(fields[place.vector_field]["params"]["dim"])
        check_made(self.config, name, dimension, metric)
        check_dimension(vectors, dimension, name, field)
        return metric


#: Codes of requests that are wrong. Source: pymilvus/exceptions.py, and milvus-lite's adapter
_REFUSED: Final = (6, 1100)


def _there(client: MilvusClient, place: Place, rows: Sequence[Row]) -> set[str]:
    """Those ids that are there."""
    found: set[str] = set()
    for some in batches([row.id for row in rows], 0, _PAGE):
        expression = _one_of(place.id_field, some)
        got = client.query(place.collection, filter=expression, output_fields=[place.id_field])
        found.update(each[place.id_field] for each in got)
    return found


def _add(client: MilvusClient, place: Place, rows: Sequence[Row]) -> None:
    options = {} if place.partition is None else {"partition_name": place.partition}
    if place.partition is not None and not client.has_partition(place.collection, place.partition):
        client.create_partition(place.collection, place.partition)
    for some in batches(rows, place.batch_size):
        entities = [{"metadata": {}, "document": None, **_entity(place, row)} for row in some]
        client.insert(place.collection, entities, **options)


def _entity(place: Place, row: Row) -> dict[str, Any]:
    """A row as Milvus takes it, without what is not given."""
    if row.document is not None and len(row.document.encode()) > _MOST_DOCUMENT:
        message = f"`document` of `{row.id}` is longer than {_MOST_DOCUMENT} bytes"
        raise InvalidInput(message, field="document", hint="driver `milvus` takes no more: split it")
    values = {
        place.id_field: row.id,
        place.vector_field: None if row.vector is None else row.vector.tolist(),
        "metadata": row.metadata,
        "document": row.document,
    }
    return {name: value for name, value in values.items() if value is not None}


def _near(hit: Any, place: Place, metric: str, vectors: bool) -> Near:
    given, entity = float(hit["distance"]), hit["entity"]
    # Milvus has the square of the distance; of the others it has what is higher for what is nearer.
    distance = math.sqrt(max(given, 0.0)) if metric == "l2" else 1 - given if metric == "cosine" else -given
    vector = [float(x) for x in entity[place.vector_field]] if vectors else None
    return Near(
        str(hit[place.id_field]), distance, dict(entity["metadata"] or {}), entity["document"], vector
    )


_NAMES: Final = {"eq": "==", "neq": "!=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def _terms(matching: Matching) -> list[str]:
    """A filter as expressions."""
    return [matching] if isinstance(matching, str) else [_term(each) for each in matching]


def _term(each: Condition) -> str:
    name = f"metadata[{_literal(each.field)}]"
    if each.operator == "exists":
        return f"exists {name}" if each.value else f"not exists {name}"
    if each.operator == "in":
        return " or ".join(f"{name} == {_literal(one)}" for one in each.value) or f"{_NOTHING}"
    if each.operator in ("neq", "not-in"):
        values = each.value if each.operator == "not-in" else [each.value]
        differs = " and ".join(f"{name} != {_literal(one)}" for one in values) or _ANYTHING
        return f"not exists {name} or ({differs})"
    if each.operator == "starts-with":
        if set(each.value) & set("%_\\"):
            raise unsupported("milvus", each)  # it has no agreed way to write these letters
        return f"{name} like {_literal(each.value + '%')}"
    return f"{name} {_NAMES[each.operator]} {_literal(each.value)}"


_ANYTHING: Final = 'metadata["0"] == 0 or not (metadata["0"] == 0) or not exists metadata["0"]'
_NOTHING: Final = 'exists metadata["0"] and not exists metadata["0"]'


def _one_of(field: str, ids: Sequence[str]) -> str:
    return f"{field} in [{', '.join(map(_literal, ids))}]"


def _literal(value: Any) -> str:
    """A value as it stands in an expression.

    milvus-lite has no bound parameters. What JSON writes is what the language reads, with the letters as
    they are, and but for control characters, which have no escape that it knows.
    """
    if isinstance(value, str) and any(ord(letter) < 32 and letter not in "\n\r\t" for letter in value):
        raise InvalidInput("`filter`: driver `milvus` has no control characters in texts", field="filter")
    return json.dumps(value, ensure_ascii=False)
