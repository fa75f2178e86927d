"""How are vectors kept without a server? In one SQLite file, whose scan by sqlite-vec is exact.

A collection has a table of rows, one of vectors, and one with every field of the metadata by value, so
that a filter is a look-up in an index. One thread writes; several read at the same time what was written
before they began (WAL). What is acknowledged is on the disk.
"""

# ruff: noqa: S608 what is written into SQL is the number of a table; everything else is bound

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from model_compose.components.vector_store.filter import Condition, is_number
from model_compose.components.vector_store.spec import Metric, VectorStoreConfig
from model_compose.components.vector_store.store import (
    Matching,
    Near,
    Place,
    Row,
    Store,
    Wanted,
    check_dimension,
    check_made,
    check_metric,
    exists,
    not_insertable,
    unknown,
)
from model_compose.errors import InvalidInput, ServiceError

if TYPE_CHECKING:
    import apsw

Value = TypeVar("Value")

_FILE: Final = "vectors.db"
_READERS: Final = min(4, os.cpu_count() or 1)
#: What sqlite-vec takes; see `vec0_create` in its source.
_MOST_DIMENSIONS: Final = 8192
_LARGEST: Final = 2**63
_BUSY_S: Final = 0.005

_COLLECTIONS: Final = """create table if not exists collections (
    number integer primary key, name text not null unique, dimension integer not null, metric text not null
)"""
_ROWS: Final = """create table rows_{n} (
    number integer primary key, id text not null unique, metadata text not null, document text
)"""
_FIELDS: Final = """create table fields_{n} (
    field text not null, kind text not null, value not null, number integer not null,
    primary key (field, kind, value, number)
) without rowid"""
_FIELDS_BY_NUMBER: Final = "create index fields_{n}_by_number on fields_{n} (number)"
_VECTORS: Final = (
    "create virtual table vectors_{n} using vec0(vector float[{dimension}] distance_metric={metric})"
)
#: sqlite-vec has no inner product: it is the cosine times both lengths.
_VECTORS_IP: Final = (
    "create table vectors_{n} (rowid integer primary key, vector blob not null, length real not null)"
)


class _Collection(msgspec.Struct, frozen=True):
    number: int
    name: str
    dimension: int
    metric: Metric


class SqliteStore(Store):
    """Keeps vectors in a file."""

    def __init__(self, config: VectorStoreConfig, folder: Path) -> None:
        super().__init__(config, folder)
        path = folder / _FILE
        self._writer = _Connections(path, 1, config.timeout)
        self._readers = _Connections(path, _READERS, config.timeout)

    async def insert(self, place: Place, rows: list[Row]) -> None:
        await self._writer.run(lambda db: self._insert(db, place.collection, rows))

    async def update(self, place: Place, rows: list[Row], *, insert: bool) -> int:
        return await self._writer.run(lambda db: self._update(db, place.collection, rows, insert))

    async def delete(self, place: Place, ids: list[str] | None, matching: Matching) -> int:
        assert not isinstance(matching, str)
        return await self._writer.run(lambda db: self._delete(db, place.collection, ids, matching))

    async def search(self, place: Place, wanted: Wanted) -> list[list[Near]]:
        return await self._readers.run(lambda db: self._search(db, place.collection, wanted))

    async def close(self) -> None:
        await asyncio.to_thread(self._readers.close)
        await asyncio.to_thread(self._writer.close)

    # Everything below runs in a thread that has a connection.

    def _insert(self, db: apsw.Connection, name: str, rows: list[Row]) -> None:
        first = rows[0].vector
        assert first is not None
        with _transaction(db):
            made = _collection(db, name) or self._make(db, name, len(first))
            self._check(made, rows)
            there = _numbers(db, made, [row.id for row in rows])
            if there:
                raise exists(list(there))
            _add(db, made, rows)

    def _update(self, db: apsw.Connection, name: str, rows: list[Row], insert: bool) -> int:
        with _transaction(db):
            made = _collection(db, name)
            if made is None:
                first = next((row.vector for row in rows if row.vector is not None), None)
                if not insert or first is None:
                    raise unknown(name)
                made = self._make(db, name, len(first))
            self._check(made, rows)
            there = _numbers(db, made, [row.id for row in rows])
            new = [row for row in rows if row.id not in there] if insert else []
            for row in new:
                if row.vector is None:
                    raise not_insertable(row.id)
            _add(db, made, new)
            for row in rows:
                if row.id in there:
                    _change(db, made, there[row.id], row)
            return len(there) + len(new)

    def _delete(
        self, db: apsw.Connection, name: str, ids: list[str] | None, conditions: tuple[Condition, ...]
    ) -> int:
        with _transaction(db):
            made = _collection(db, name)
            if made is None:
                raise unknown(name)
            matching, values = _matching(made, conditions)
            if ids is not None:
                matching.append(
                    f"select number from rows_{made.number} where id in (select value from json_each(?))"
                )
                values.append(json.dumps(ids))
            query = " intersect ".join(f"select number from ({each})" for each in matching)
            numbers = [(number,) for (number,) in db.execute(query, values)]
            for table, key in (("rows", "number"), ("fields", "number"), ("vectors", "rowid")):
                db.executemany(f"delete from {table}_{made.number} where {key} = ?", numbers)
            return len(numbers)

    def _search(self, db: apsw.Connection, name: str, wanted: Wanted) -> list[list[Near]]:
        with _transaction(db, "deferred"):
            made = _collection(db, name)
            if made is None:
                raise unknown(name)
            check_made(self.config, name, made.dimension, made.metric)
            check_metric(wanted.metric, made.metric, "sqlite")
            check_dimension(wanted.queries, made.dimension, name, "query")
            return [list(_nearest(db, made, query, wanted)) for query in wanted.queries]

    def _make(self, db: apsw.Connection, name: str, length: int) -> _Collection:
        dimension, metric = self.config.dimension or length, self.config.metric
        if dimension > _MOST_DIMENSIONS:
            raise InvalidInput(f"`vector` has {dimension} numbers, of which {_MOST_DIMENSIONS} are the most")
        db.execute(_COLLECTIONS)
        added = db.execute(
            "insert into collections (name, dimension, metric) values (?, ?, ?) returning number",
            (name, dimension, metric),
        )
        number = next(iter(added))[0]
        for table in (_ROWS, _FIELDS, _FIELDS_BY_NUMBER, _VECTORS_IP if metric == "ip" else _VECTORS):
            db.execute(table.format(n=number, dimension=dimension, metric=metric))
        return _Collection(number, name, dimension, metric)

    def _check(self, made: _Collection, rows: list[Row]) -> None:
        check_made(self.config, made.name, made.dimension, made.metric)
        check_dimension([row.vector for row in rows], made.dimension, made.name, "vector")


def _collection(db: apsw.Connection, name: str) -> _Collection | None:
    if not list(db.execute("select 1 from sqlite_schema where name = 'collections'")):
        return None
    found = db.execute("select number, name, dimension, metric from collections where name = ?", (name,))
    return next((_Collection(*each) for each in found), None)


def _numbers(db: apsw.Connection, made: _Collection, ids: Sequence[str]) -> dict[str, int]:
    """The numbers of those rows that are there."""
    query = f"select id, number from rows_{made.number} where id in (select value from json_each(?))"
    return dict(db.execute(query, (json.dumps(ids),)))


def _add(db: apsw.Connection, made: _Collection, rows: Sequence[Row]) -> None:
    n = made.number
    first = next(iter(db.execute(f"select coalesce(max(number), 0) + 1 from rows_{n}")))[0]
    numbered = list(enumerate(rows, first))
    db.executemany(
        f"insert into rows_{n} values (?, ?, ?, ?)",
        ((number, row.id, json.dumps(row.metadata or {}), row.document) for number, row in numbered),
    )
    for number, row in numbered:
        assert row.vector is not None
        _put_vector(db, made, number, row.vector)
        _put_fields(db, made, number, row.metadata or {})


def _change(db: apsw.Connection, made: _Collection, number: int, row: Row) -> None:
    n = made.number
    if row.metadata is not None:
        db.execute(f"update rows_{n} set metadata = ? where number = ?", (json.dumps(row.metadata), number))
        db.execute(f"delete from fields_{n} where number = ?", (number,))
        _put_fields(db, made, number, row.metadata)
    if row.document is not None:
        db.execute(f"update rows_{n} set document = ? where number = ?", (row.document, number))
    if row.vector is not None:
        db.execute(f"delete from vectors_{n} where rowid = ?", (number,))
        _put_vector(db, made, number, row.vector)


def _put_vector(db: apsw.Connection, made: _Collection, number: int, vector: array[float]) -> None:
    if made.metric == "ip":
        length = sum(x * x for x in vector) ** 0.5
        db.execute(f"insert into vectors_{made.number} values (?, ?, ?)", (number, vector.tobytes(), length))
    else:
        query = f"insert into vectors_{made.number} (rowid, vector) values (?, ?)"
        db.execute(query, (number, vector.tobytes()))


def _put_fields(db: apsw.Connection, made: _Collection, number: int, metadata: dict[str, Any]) -> None:
    values = [(field, *_kind(value), number) for field, value in metadata.items()]
    db.executemany(f"insert into fields_{made.number} values (?, ?, ?, ?)", values)


def _kind(value: Any) -> tuple[str, Any]:
    """How a value stands in the index: what is of another kind is not equal. Lists and maps only exist."""
    if isinstance(value, str):
        return "text", value
    if is_number(value):
        return "number", float(value) if isinstance(value, int) and abs(value) >= _LARGEST else value
    return ("truth", int(value)) if isinstance(value, bool) else ("other", 0)


def _nearest(db: apsw.Connection, made: _Collection, query: array[float], wanted: Wanted) -> Iterator[Near]:
    n, matching = made.number, ""
    conditions: list[str] = []
    values: list[Any] = []
    if wanted.filter:
        assert not isinstance(wanted.filter, str)
        conditions, values = _matching(made, wanted.filter)
        together = " intersect ".join(f"select number from ({each})" for each in conditions)
        matching = f" and rowid in ({together})"
    if made.metric == "ip":
        length = sum(x * x for x in query) ** 0.5
        near = (
            "select rowid, coalesce(1 - vec_distance_cosine(vector, ?), 0) * length * -? as distance "
            f"from vectors_{n} where true{matching} order by distance limit ?"
        )
        bound = [query.tobytes(), length, *values, wanted.top_k]
    else:
        near = f"select rowid, distance from vectors_{n} where vector match ? and k = ?{matching}"
        bound = [query.tobytes(), wanted.top_k, *values]
    found = list(db.execute(near, bound))
    columns = "id, metadata, document" + (", vector" if wanted.vectors else "")
    source = f"rows_{n}" + (f" join vectors_{n} on rowid = number" if wanted.vectors else "")
    for number, distance in found:
        row = next(iter(db.execute(f"select {columns} from {source} where number = ?", (number,))))
        vector = array("f", row[3]).tolist() if wanted.vectors else None
        yield Near(row[0], distance, json.loads(row[1]), row[2], vector)


def _matching(made: _Collection, conditions: tuple[Condition, ...]) -> tuple[list[str], list[Any]]:
    """Queries for the numbers of the rows for which each condition holds, and what is bound in them."""
    queries: list[str] = []
    values: list[Any] = []
    for each in conditions:
        query, bound = _query(made.number, each)
        queries.append(query)
        values += bound
    return queries, values


_COMPARED: Final = {"eq": "=", "neq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def _query(n: int, condition: Condition) -> tuple[str, list[Any]]:
    """The numbers of the rows for which a condition holds."""
    field, operator, value = condition.field, condition.operator, condition.value
    of_field = f"select number from fields_{n} where field = ?"
    bound: list[Any] = [field]
    if operator in _COMPARED:
        query = f"{of_field} and kind = ? and value {_COMPARED[operator]} ?"
        bound += _kind(value)
    elif operator in ("in", "not-in"):
        pairs = "select json_extract(value, '$[0]'), json_extract(value, '$[1]') from json_each(?)"
        query = f"{of_field} and (kind, value) in ({pairs})"
        bound.append(json.dumps([_kind(each) for each in value]))
    elif operator == "starts-with":
        query = f"{of_field} and kind = 'text' and value >= ? and substr(value, 1, length(?)) = ?"
        bound += [value, value, value]
    else:
        query = of_field
    if operator in ("neq", "not-in") or (operator == "exists" and not value):
        query = f"select number from rows_{n} except {query}"
    return query, bound


class _Job:
    """What a thread does with a connection, so that it can be told to stop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: apsw.Connection | None = None
        self._unwanted = False

    def begin(self, connection: apsw.Connection) -> bool:
        with self._lock:
            self._connection = connection
            return not self._unwanted

    def end(self) -> None:
        with self._lock:
            self._connection = None

    def stop(self) -> None:
        with self._lock:
            self._unwanted = True
            if self._connection is not None:
                self._connection.interrupt()


class _Connections:
    """Threads, each with a connection to one file, which is made when somebody first writes."""

    def __init__(self, path: Path, count: int, timeout_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(count, "sqlite")
        self._free: list[apsw.Connection] = []
        self._jobs: set[_Job] = set()

    async def run(self, work: Callable[[apsw.Connection], Value]) -> Value:
        """What `work` gives; cancelling it rolls back what it did."""
        job = _Job()
        self._jobs.add(job)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._do, job, work)
        except asyncio.CancelledError:
            job.stop()
            raise
        finally:
            self._jobs.discard(job)

    def _do(self, job: _Job, work: Callable[[apsw.Connection], Value]) -> Value:
        import apsw

        try:
            connection = self._free.pop() if self._free else self._open()
            try:
                if not job.begin(connection):
                    raise asyncio.CancelledError
                return work(connection)
            finally:
                job.end()
                self._free.append(connection)
        except apsw.Error as error:
            raise ServiceError(
                f"the vectors in `{self._path}` cannot be used: {error}", hint=_hint(error)
            ) from error
        except OSError as error:
            raise ServiceError(f"`{self._path.parent}` cannot be used: {error.strerror}") from error

    def _open(self) -> apsw.Connection:
        import apsw
        import sqlite_vec

        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = apsw.Connection(str(self._path))
        connection.set_busy_timeout(int(self._timeout_s * 1000))
        connection.enable_load_extension(True)
        connection.load_extension(sqlite_vec.loadable_path())
        connection.enable_load_extension(False)
        self._write_ahead(connection)
        connection.execute("pragma synchronous = full")
        return connection

    def _write_ahead(self, connection: apsw.Connection) -> None:
        """SQLite does not wait for its busy timeout where two connections to a new file ask for this."""
        import apsw

        until = time.monotonic() + self._timeout_s
        while True:
            try:
                connection.execute("pragma journal_mode = wal")
            except apsw.BusyError:
                if time.monotonic() > until:
                    raise
                time.sleep(_BUSY_S)
            else:
                return

    def close(self) -> None:
        """Stop what runs, and close the file."""
        for job in list(self._jobs):
            job.stop()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for connection in self._free:
            connection.close()
        self._free.clear()


def _hint(error: apsw.Error) -> str | None:
    import apsw

    if isinstance(error, apsw.BusyError):
        return "another process writes to it: wait, or raise `timeout`"
    if isinstance(error, apsw.NotADBError | apsw.CorruptError):
        return "restore it from a copy, or choose another `storage_dir`"
    return None


class _transaction:  # noqa: N801
    """All or nothing; a reader sees one state throughout."""

    def __init__(self, db: apsw.Connection, kind: str = "immediate") -> None:
        self._db, self._kind = db, kind

    def __enter__(self) -> None:
        self._db.execute(f"begin {self._kind}")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if not self._db.in_transaction:  # an interrupt may have rolled it back
            return
        self._db.execute("commit" if kind is None else "rollback")
