"""How does PostgreSQL keep vectors, with its extension `vector`?

A collection is a table with an HNSW index. A search with a filter looks at every row that matches, since
the index gives its nearest rows before the filter sees them, and could leave too few.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from model_compose.components.vector_store.filter import Condition
from model_compose.components.vector_store.spec import Metric, VectorStoreConfig
from model_compose.components.vector_store.store import (
    THREADS,
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
    new_vectors,
    unknown,
    unreachable,
)
from model_compose.errors import InvalidInput, ModelComposeError, ServiceError, TimedOut

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from psycopg_pool import AsyncConnectionPool

_OPERATORS: Final[dict[Metric, str]] = {"cosine": "<=>", "ip": "<#>", "l2": "<->"}
_CLASSES: Final[dict[Metric, str]] = {
    "cosine": "vector_cosine_ops",
    "ip": "vector_ip_ops",
    "l2": "vector_l2_ops",
}
#: What an index of the extension takes.
_MOST_INDEXED: Final = 2000
_MOST_DIMENSIONS: Final = 16_000
#: Candidates that the index looks at; the extension takes up to 1000.
_EF_SEARCH: Final = 200
_MOST_EF: Final = 1000
#: Of locks that this program takes on a database; any number will do.
_LOCK: Final = 0x6D6F6465
_MOST_NAME: Final = 63


class _Collection(msgspec.Struct, frozen=True):
    name: str
    dimension: int
    metric: Metric


class PgvectorStore(Store):
    """Keeps vectors in a database."""

    def __init__(self, config: VectorStoreConfig, folder: Path) -> None:
        super().__init__(config, folder)
        self._pool: AsyncConnectionPool | None = None

    async def insert(self, place: Place, rows: list[Row]) -> None:
        first = rows[0].vector
        assert first is not None
        async with self._transaction() as db:
            made = await self._found(db, place.collection) or await self._make(
                db, place.collection, len(first)
            )
            self._check(made, rows)
            there = await _there(db, made, rows)
            if there:
                raise exists([row.id for row in rows if row.id in there])
            await _add(db, made, rows)

    async def update(self, place: Place, rows: list[Row], *, insert: bool) -> int:
        async with self._transaction() as db:
            made = await self._found(db, place.collection)
            if made is None:
                first = next((row.vector for row in rows if row.vector is not None), None)
                if not insert or first is None:
                    raise unknown(place.collection)
                made = await self._make(db, place.collection, len(first))
            self._check(made, rows)
            there = await _there(db, made, rows)
            new = [row for row in rows if row.id not in there] if insert else []
            new_vectors(new)
            await _change(db, made, [row for row in rows if row.id in there])
            await _add(db, made, new)
            return len(there) + len(new)

    async def delete(self, place: Place, ids: list[str] | None, matching: Matching) -> int:
        from psycopg import sql

        async with self._transaction() as db:
            made = await self._found(db, place.collection)
            if made is None:
                raise unknown(place.collection)
            terms, values = _where(matching)
            if ids is not None:
                terms.append("id = any(%s)")
                values.append(ids)
            query = sql.SQL("delete from {} where {}").format(_table(made.name), _all(terms))
            return (await db.execute(query, values)).rowcount

    async def search(self, place: Place, wanted: Wanted) -> list[list[Near]]:
        async with self._transaction() as db:
            made = await self._found(db, place.collection)
            if made is None:
                raise unknown(place.collection)
            check_made(self.config, made.name, made.dimension, made.metric)
            check_dimension(wanted.queries, made.dimension, made.name, "query")
            check_metric(wanted.metric, made.metric, "pgvector")
            if wanted.filter or wanted.top_k > _MOST_EF:
                await db.execute("set local enable_indexscan = off")
            else:
                await db.execute(f"set local hnsw.ef_search = {max(_EF_SEARCH, wanted.top_k)}")
            return [await _nearest(db, made, query, wanted) for query in wanted.queries]

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close(timeout=1)

    # Connections

    @contextlib.asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction; what goes wrong undoes it, and so does cancelling it."""
        import asyncio

        import psycopg
        import psycopg_pool

        try:
            async with asyncio.timeout(self.config.timeout):
                pool = await self._opened()
                async with pool.connection(self.config.timeout) as db:
                    yield db
        except TimeoutError:
            raise TimedOut(f"PostgreSQL took longer than {self.config.timeout:g} s (`timeout`)") from None
        except (psycopg.Error, psycopg_pool.PoolTimeout) as error:
            raise self._failed(error) from error

    async def _opened(self) -> AsyncConnectionPool:
        if self._pool is None:
            import psycopg_pool

            config = self.config
            parts = {
                "host": config.host,
                "port": None if config.endpoint else config.server_port,
                "user": config.user,
                "password": config.password,
                "dbname": config.database,
            }
            self._pool = psycopg_pool.AsyncConnectionPool(
                config.endpoint or "",
                kwargs={name: value for name, value in parts.items() if value is not None},
                min_size=0,
                max_size=THREADS,
                timeout=config.timeout,
                reconnect_timeout=0,
                open=False,
            )
        await self._pool.open()
        return self._pool

    def _failed(self, error: Exception) -> ModelComposeError:
        import psycopg

        message = str(error).strip().partition("\n")[0]
        if isinstance(error, psycopg.errors.UniqueViolation):
            return InvalidInput("`vector_id`: one of them is there already", field="vector_id")
        if isinstance(error, psycopg.errors.UndefinedFile | psycopg.errors.FeatureNotSupported):
            hint = "install pgvector for this PostgreSQL"
            return ServiceError(f"PostgreSQL cannot keep vectors: {message}", hint=hint)
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            hint = "let an administrator run `create extension vector`, and grant what is missing"
            return ServiceError(f"PostgreSQL refuses it: {message}", hint=hint)
        if isinstance(error, psycopg.DataError):
            return InvalidInput(f"PostgreSQL refuses it: {message}")
        return unreachable(self.config, message)

    # Collections

    async def _found(self, db: AsyncConnection, name: str) -> _Collection | None:
        if not 0 < len(name.encode()) <= _MOST_NAME or "\0" in name:
            message = f"`collection` has 1 to {_MOST_NAME} bytes, and no null character"
            raise InvalidInput(message, field="collection")
        cursor = await db.execute(_DESCRIBE, [name])
        columns = {row[0]: row for row in await cursor.fetchall()}
        if not columns:
            return None
        if columns.keys() < {"id", "vector", "metadata", "document"} or columns["vector"][1] != "vector":
            message = f"the table `{name}` is no collection: it has other columns"
            raise InvalidInput(message, field="collection", hint="choose another name")
        _, _, dimension, metric = columns["vector"]
        return _Collection(name, dimension, metric)

    async def _make(self, db: AsyncConnection, name: str, length: int) -> _Collection:
        """A new table. Two that make it at once, make it one after the other."""
        from psycopg import sql

        dimension, metric = self.config.dimension or length, self.config.metric
        if dimension > _MOST_DIMENSIONS:
            raise InvalidInput(f"`vector` has {dimension} numbers, of which {_MOST_DIMENSIONS} are the most")
        await db.execute("select pg_advisory_xact_lock(%s)", [_LOCK])
        found = await self._found(db, name)
        if found is not None:
            return found
        await db.execute("create extension if not exists vector")
        table = _table(name)
        columns = "id text primary key, vector vector({}) not null, metadata jsonb not null, document text"
        await db.execute(sql.SQL("create table {} (" + columns + ")").format(table, sql.SQL(str(dimension))))
        await db.execute(sql.SQL("comment on column {}.vector is {}").format(table, sql.Literal(metric)))
        if dimension <= _MOST_INDEXED:
            query = "create index on {} using hnsw (vector {}) with (m = 16, ef_construction = 128)"
            await db.execute(sql.SQL(query).format(table, sql.SQL(_CLASSES[metric])))
        return _Collection(name, dimension, metric)

    def _check(self, made: _Collection, rows: list[Row]) -> None:
        check_made(self.config, made.name, made.dimension, made.metric)
        check_dimension([row.vector for row in rows], made.dimension, made.name, "vector")


#: The columns of a table in the schema where ours go: name, type, dimension, and what we said of it.
_DESCRIBE: Final = """
    select attname, typname, atttypmod, col_description(attrelid, attnum)
    from pg_attribute join pg_type on pg_type.oid = atttypid
    where attrelid = to_regclass(quote_ident(%s)) and attnum > 0 and not attisdropped
"""


def _table(name: str) -> Any:
    from psycopg import sql

    return sql.Identifier(name)


def _all(terms: Sequence[str]) -> Any:
    from psycopg import sql

    return sql.SQL(" and ".join(terms) or "true")


def _text(vector: Sequence[float] | None) -> str | None:
    return None if vector is None else f"[{','.join(map(repr, vector))}]"


async def _there(db: AsyncConnection, made: _Collection, rows: Sequence[Row]) -> set[str]:
    """Those ids that are there; nobody else changes them meanwhile."""
    from psycopg import sql

    query = sql.SQL("select id from {} where id = any(%s) for update").format(_table(made.name))
    cursor = await db.execute(query, [[row.id for row in rows]])
    return {row[0] for row in await cursor.fetchall()}


async def _add(db: AsyncConnection, made: _Collection, rows: Sequence[Row]) -> None:
    from psycopg import sql
    from psycopg.types.json import Jsonb

    if not rows:
        return
    query = sql.SQL("insert into {} values (%s, %s::vector, %s, %s)").format(_table(made.name))
    values = [(row.id, _text(row.vector), Jsonb(row.metadata or {}), row.document) for row in rows]
    async with db.cursor() as cursor:
        await cursor.executemany(query, values)


async def _change(db: AsyncConnection, made: _Collection, rows: Sequence[Row]) -> None:
    from psycopg import sql
    from psycopg.types.json import Jsonb

    query = sql.SQL(
        "update {} set vector = coalesce(%s::vector, vector), metadata = coalesce(%s, metadata), "
        "document = coalesce(%s, document) where id = %s"
    ).format(_table(made.name))
    for row in rows:
        metadata = None if row.metadata is None else Jsonb(row.metadata)
        await db.execute(query, [_text(row.vector), metadata, row.document, row.id])


async def _nearest(db: AsyncConnection, made: _Collection, query: array[float], wanted: Wanted) -> list[Near]:
    from psycopg import sql

    terms, values = _where(wanted.filter)
    distance = sql.SQL("vector {} %s::vector").format(sql.SQL(_OPERATORS[made.metric]))
    vector = sql.SQL("vector::real[]" if wanted.vectors else "null")
    query_of = "select {0}, id, metadata, document, {1} from {2} where {3} order by {0} limit %s"
    statement = sql.SQL(query_of).format(distance, vector, _table(made.name), _all(terms))
    text = _text(query)
    cursor = await db.execute(statement, [text, *values, text, wanted.top_k])
    return [Near(row[1], row[0], *row[2:]) for row in await cursor.fetchall()]


_NAMES: Final = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def _where(matching: Matching) -> tuple[list[str], list[Any]]:
    """SQL for each condition, and what is bound in it."""
    assert not isinstance(matching, str)
    terms: list[str] = []
    values: list[Any] = []
    for each in matching:
        term, bound = _term(each)
        terms.append(term)
        values += bound
    return terms, values


def _term(each: Condition) -> tuple[str, list[Any]]:
    """One condition. Numbers are compared as numbers, and what is of another kind is not equal."""
    from psycopg.types.json import Jsonb

    field, value = each.field, each.value
    if each.operator == "eq":
        return "metadata -> %s = %s", [field, Jsonb(value)]
    if each.operator == "neq":
        return "metadata -> %s is distinct from %s", [field, Jsonb(value)]
    if each.operator in _NAMES:
        kind = "string" if isinstance(value, str) else "number"
        term = f"(jsonb_typeof(metadata -> %s) = '{kind}' and metadata -> %s {_NAMES[each.operator]} %s)"
        return term, [field, field, Jsonb(value)]
    if each.operator in ("in", "not-in"):
        one_of = "coalesce(metadata -> %s = any(%s::jsonb[]), false)"
        return ("" if each.operator == "in" else "not ") + one_of, [field, [Jsonb(one) for one in value]]
    if each.operator == "starts-with":
        term = "(jsonb_typeof(metadata -> %s) = 'string' and starts_with(metadata ->> %s, %s))"
        return term, [field, field, value]
    return f"{'' if value else 'not '}jsonb_exists(metadata, %s)", [field]
