"""What is `type: vector-store`?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec

from model_compose.components.vector_store.filter import conditions
from model_compose.config.expression import Template
from model_compose.config.quantities import DURATION
from model_compose.config.spec import (
    ActionSpec,
    Catalog,
    ComponentSpec,
    Needs,
    Positive,
    PositiveFloat,
    Remarks,
    Report,
    doc,
)
from model_compose.errors import InvalidInput
from model_compose.types import Result

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Metric = Literal["cosine", "ip", "l2"]
Driver = Literal["sqlite", "chroma", "pgvector", "qdrant", "milvus"]
Vector = list[float | list[float]]
Ids = str | int | list[str | int]
Filter = str | dict[str, Any] | list[dict[str, Any]]

#: More than this of one search is a copy of the collection.
MOST_RESULTS: Final = 4096

_FOLDERS: Final[Mapping[str, str]] = {"sqlite": "./vectors"}
_EXTRAS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "sqlite": (("apsw", "sqlite_vec"), "vector"),
    "chroma": (("chromadb",), "chroma"),
    "pgvector": (("psycopg", "psycopg_pool"), "pgvector"),
    "qdrant": (("qdrant_client",), "qdrant"),
    "milvus": (("pymilvus",), "milvus"),
}
_LOCAL: Final = ("sqlite", "chroma", "qdrant", "milvus")
_PORTS: Final[Mapping[str, int]] = {"chroma": 8000, "pgvector": 5432, "qdrant": 6333, "milvus": 19530}
_SERVER: Final = ("endpoint", "host", "port", "protocol", "user", "password", "database", "tenant", "token")
#: Which of the keys about a server a driver has.
_HAS: Final[Mapping[str, frozenset[str]]] = {
    "sqlite": frozenset(),
    "chroma": frozenset(("endpoint", "host", "port", "protocol", "tenant", "database", "token")),
    "pgvector": frozenset(("endpoint", "host", "port", "user", "password", "database")),
    "qdrant": frozenset(("endpoint", "host", "port", "protocol", "token")),
    "milvus": frozenset(("endpoint", "host", "port", "protocol", "user", "password", "database", "token")),
}
#: Drivers that have a language of their own for filters, in which a file may write one.
NATIVE_FILTERS: Final = ("milvus",)
_MILVUS_ONLY: Final = ("id_field", "vector_field", "partition")
_ONE_TRANSACTION: Final = ("sqlite", "pgvector")


class VectorStoreConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Vectors with what belongs to them, to be searched by nearness."""

    driver: Annotated[
        Driver, doc("who keeps the vectors; the default needs no server", later={"faiss": "sqlite"})
    ] = "sqlite"
    collection: Annotated[
        str | None, doc("where the vectors lie, for actions that do not say; made by the first insert")
    ] = None
    storage_dir: Annotated[
        str | None,
        doc("folder of a store without a server; default `./vectors`, of other drivers `./<driver>`"),
    ] = None
    mode: Annotated[
        Literal["local", "server"] | None,
        doc("in a folder, or a server; default: a server if the file says which"),
    ] = None
    endpoint: Annotated[str | None, doc("URL of a server, in place of `host`, `port` and `protocol`")] = None
    host: Annotated[str | None, doc("host of a server")] = None
    port: Annotated[Port | None, doc("port of a server; default: the usual one")] = None
    protocol: Annotated[Literal["http", "https"] | None, doc("how a server is spoken to; default `http`")] = (
        None
    )
    user: Annotated[str | None, doc("user on a server")] = None
    password: Annotated[str | None, doc("the user's password")] = None
    database: Annotated[str | None, doc("database on a server")] = None
    tenant: Annotated[str | None, doc("tenant on a server")] = None
    token: Annotated[str | None, doc("key for a server", aliases=("api_key",))] = None
    timeout: Annotated[
        PositiveFloat, doc("most time that a server may take for one answer", quantity=DURATION)
    ] = 30.0
    dimension: Annotated[
        Positive | None, doc("numbers in each vector; default: those of the first one that is inserted")
    ] = None
    metric: Annotated[
        Metric,
        doc("what near means: the angle, the inner product or the distance; fixed by the first insert"),
    ] = "cosine"

    @property
    def served(self) -> bool:
        """Whether there is a server."""
        if self.driver == "pgvector":
            return True
        return self.mode == "server" or self.endpoint is not None or self.host is not None

    @property
    def folder(self) -> str:
        """Where a store without a server keeps what it has, as the file says it."""
        return self.storage_dir or _FOLDERS.get(self.driver, f"./{self.driver}")

    @property
    def server_port(self) -> int:
        """The port of the server, where there is no `endpoint`."""
        return self.port or _PORTS[self.driver]


class _Named(msgspec.Struct, frozen=True, kw_only=True):
    """What every action takes."""

    collection: Annotated[str | None, doc("where the vectors lie, unless the component says it")] = None
    id_field: Annotated[str, doc("milvus: the field with the ids")] = "id"
    vector_field: Annotated[str, doc("milvus: the field with the vectors")] = "vector"


class Insert(_Named, frozen=True, kw_only=True):
    """Vectors to add, with what belongs to them."""

    vector: Annotated[Vector, doc("a vector, or a list of them")]
    vector_id: Annotated[Ids | None, doc("an id, or one for each vector; made up where there is none")] = None
    metadata: Annotated[
        dict[str, Any] | list[dict[str, Any] | None] | None,
        doc("a map of what a filter may ask for, or one for each vector"),
    ] = None
    document: Annotated[
        str | list[str | None] | None, doc("the text that a vector stands for, or one for each vector")
    ] = None
    partition: Annotated[str | None, doc("milvus: the partition to put them into")] = None
    batch_size: Annotated[int, doc("most vectors in one request to a server; 0 is all", ge=0)] = 0


class Update(_Named, frozen=True, kw_only=True):
    """What is to be changed of vectors that are there; what is not given stays."""

    vector_id: Annotated[Ids, doc("an id, or a list of them")]
    vector: Annotated[Vector | None, doc("the new vector, or one for each id")] = None
    metadata: Annotated[
        dict[str, Any] | list[dict[str, Any] | None] | None,
        doc("the new metadata, in place of the old, or one for each id"),
    ] = None
    document: Annotated[str | list[str | None] | None, doc("the new text, or one for each id")] = None
    insert_if_not_exist: Annotated[bool, doc("add what is not there yet, which takes a vector")] = True
    batch_size: Annotated[int, doc("most vectors in one request to a server; 0 is all", ge=0)] = 0


class Delete(_Named, frozen=True, kw_only=True):
    """What is to be removed: what has one of the ids and matches the filter."""

    vector_id: Annotated[Ids | None, doc("an id, or a list of them")] = None
    filter: Annotated[Filter | None, doc("which ones, by their metadata")] = None


class Search(_Named, frozen=True, kw_only=True):
    """What is near to a vector."""

    query: Annotated[Vector, doc("a vector, or a list of them for a list of results", aliases=("vector",))]
    top_k: Annotated[int, doc("most results for each vector", ge=1, le=MOST_RESULTS)] = 10
    metric_type: Annotated[
        Metric | None, doc("what near means, where that is not what the collection was made for")
    ] = None
    filter: Annotated[Filter | None, doc("only what matches, by its metadata")] = None
    output_fields: Annotated[list[str] | None, doc("which fields of the metadata to give; default: all")] = (
        None
    )
    include_vectors: Annotated[bool, doc("give the vectors, too")] = False


class Changed(Result, frozen=True, kw_only=True):
    """What an update or a delete did."""

    affected_rows: int


class Inserted(Changed, frozen=True, kw_only=True):
    """What an insert did."""

    ids: list[str]


class Hit(Result, frozen=True, kw_only=True, omit_defaults=True):
    """Something near.

    score     higher is nearer: 1/(1 + distance), and with `ip` the inner product itself
    distance  lower is nearer: 1 - cosine, the Euclidean distance, or with `ip` the negative product
    """

    id: str
    score: float
    distance: float
    metadata: dict[str, Any]
    document: str | None = None
    vector: list[float] | None = None


_METHODS: Final[Mapping[str, tuple[type[_Named], str | None, Any]]] = {
    "insert": (Insert, "vector", Inserted),
    "update": (Update, None, Changed),
    "search": (Search, "query", list[Hit]),
    "delete": (Delete, None, Changed),
}


def _action(config: VectorStoreConfig, catalog: Catalog, report: Report) -> ActionSpec:
    _check_place(config, report)
    refuses = {}
    if config.driver != "milvus":
        refuses.update(dict.fromkeys(_MILVUS_ONLY, f"driver `{config.driver}` has none to choose"))
    if config.driver in _ONE_TRANSACTION:
        refuses["batch_size"] = f"driver `{config.driver}` writes all or nothing"
    collection = config.collection
    variants = {
        name: ActionSpec(
            request,
            main=main,
            result=result,
            refuses=refuses,
            given={} if collection is None else {"collection": collection},
            # Where the file says which collection, no client chooses another one.
            fixed=(*_MILVUS_ONLY, "batch_size", *(() if collection is None else ("collection",))),
            check=_check(config.driver),
        )
        for name, (request, main, result) in _METHODS.items()
    }
    return ActionSpec(_Nothing, by="method", variants=variants)


class _Nothing(msgspec.Struct, frozen=True):
    """Each method has its own keys."""


def _check_place(config: VectorStoreConfig, report: Report) -> None:
    """Note keys that say where the vectors are and do not go together."""
    if any(report.wrong(key) for key in ("driver", "mode")):
        return
    has, driver = _HAS[config.driver], config.driver
    given = [key for key in _SERVER if getattr(config, key) is not None]
    for key in given:
        if key not in has:
            hint = f"it has {', '.join(f'`{k}`' for k in _SERVER if k in has) or 'no server'}"
            report.error(f"driver `{driver}` has no `{key}`", key, hint=hint)
    if config.mode == "server" and driver == "sqlite":
        report.error("driver `sqlite` has no server", "mode")
    elif config.mode == "local" and (driver == "pgvector" or (given and config.served)):
        report.error(f"`mode: local` has no server, and {_what(config, given)}", "mode")
    if config.served and config.storage_dir is not None:
        report.error("`storage_dir` is of no use with a server", "storage_dir", hint="leave one of them out")
    if config.endpoint is not None:
        for key in ("host", "port", "protocol"):
            if getattr(config, key) is not None:
                report.error(f"`endpoint` says what `{key}` says", key, hint="keep one of them")
    elif config.served and driver != "sqlite" and config.host is None and not report.wrong("host"):
        what = "PostgreSQL" if driver == "pgvector" else "the server"
        report.error(f"`host` or `endpoint` is missing: where is {what}?", hint="such as `host: localhost`")
    if not config.served:
        for key in (k for k in given if k in has and k not in ("endpoint", "host")):
            report.error(
                f"`{key}` belongs to a server, and none is named", key, hint="add `host` or `endpoint`"
            )


def _what(config: VectorStoreConfig, given: list[str]) -> str:
    return f"`{given[0]}` names one" if given else f"driver `{config.driver}` is nothing else"


def _check(driver: str) -> Callable[[Mapping[str, Any], Remarks], None]:
    """What is wrong with a filter can be told when the file is read, if it is a constant."""

    def check(values: Mapping[str, Any], remarks: Remarks) -> None:
        if "collection" not in values:
            remarks.error("`collection` is missing", hint="name it here, or at the component for all actions")
        tree = values.get("filter")
        if isinstance(tree, str):
            if driver not in NATIVE_FILTERS:
                hint = "write a map, such as `filter: {lang: en}`"
                remarks.error(f"driver `{driver}` has no filters that are text", "filter", hint=hint)
        elif isinstance(tree, dict | list):
            try:
                conditions(tree)
            except InvalidInput as wrong:
                remarks.error(wrong.message, "filter", hint=wrong.hint)
        elif isinstance(tree, Template):
            hint = 'write a map, such as `filter: {lang: "${input.lang}"}`'
            remarks.error(
                "a filter that is text has no `${...}`: what comes in could change it", "filter", hint=hint
            )

    return check


def _needs(config: VectorStoreConfig) -> Needs:
    modules, extra = _EXTRAS[config.driver]
    if config.driver == "milvus" and not config.served:
        modules = (*modules, "milvus_lite")
    return Needs(modules, extra)


SPEC = ComponentSpec(
    name="vector-store",
    summary="Vectors with what belongs to them, to be searched by nearness.",
    config=VectorStoreConfig,
    action=_action,
    implementation="model_compose.components.vector_store.component:VectorStore",
    needs=_needs,
    requests=(Insert, Update, Search, Delete),
)
