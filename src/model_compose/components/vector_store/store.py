"""What must somebody who keeps vectors be able to do?"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Generic, TypeVar
from urllib.parse import urlsplit

import msgspec

from model_compose.components.vector_store.filter import Condition
from model_compose.components.vector_store.spec import Metric, VectorStoreConfig
from model_compose.errors import InvalidInput, ModelComposeError, NotFound, ServiceError, TimedOut

Value = TypeVar("Value")
Client = TypeVar("Client")
Matching = tuple[Condition, ...] | str
"""Conditions that all must hold, or what the file itself says in the store's own language."""

#: Calls of one component that are with a blocking library at once; the others wait.
THREADS: Final = 8
#: Characters of a server's own message.
_MOST_SAID: Final = 500


class Row(msgspec.Struct, frozen=True):
    """A vector (float32) with what belongs to it; None is what is not given."""

    id: str
    vector: array[float] | None
    metadata: dict[str, Any] | None
    document: str | None


class Near(msgspec.Struct, frozen=True):
    """Something that a store has found; `distance` is as `Hit` says."""

    id: str
    distance: float
    metadata: dict[str, Any]
    document: str | None = None
    vector: Sequence[float] | None = None


class Place(msgspec.Struct, frozen=True):
    """What a call is about; the last four are for milvus, and how a server is written to."""

    collection: str
    id_field: str = "id"
    vector_field: str = "vector"
    partition: str | None = None
    batch_size: int = 0


class Wanted(msgspec.Struct, frozen=True):
    """What a search is for; None as `metric` is that of the collection."""

    queries: list[array[float]]
    top_k: int
    metric: Metric | None
    filter: Matching
    vectors: bool


class Store(abc.ABC):
    """Who keeps the vectors of one component; used from one event loop.

    Raises InvalidInput, NotFound, and ServiceError when a server cannot be reached or fails.
    """

    def __init__(self, config: VectorStoreConfig, folder: Path) -> None:
        self.config = config
        self.folder = folder

    @abc.abstractmethod
    async def insert(self, place: Place, rows: list[Row]) -> None:
        """Add rows, all of which have a vector; InvalidInput if one is there already."""

    @abc.abstractmethod
    async def update(self, place: Place, rows: list[Row], *, insert: bool) -> int:
        """Change rows, and with `insert` add those that are not there; -> how many there were."""

    @abc.abstractmethod
    async def delete(self, place: Place, ids: list[str] | None, matching: Matching) -> int:
        """Remove what has one of the ids (None: any) and matches the filter; -> how many there were."""

    @abc.abstractmethod
    async def search(self, place: Place, wanted: Wanted) -> list[list[Near]]:
        """The nearest rows for each query, the nearest first."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Nothing more will come."""


class Blocking(Store, Generic[Client]):
    """A store whose library blocks: it works in a bounded number of threads.

    A thread cannot be ended: who is cancelled leaves at once, and what the library still does goes on
    until its own limit, in its place among the threads. Writers come one after the other, so that what
    they look up still holds when they write.
    """

    def __init__(self, config: VectorStoreConfig, folder: Path, *, one_at_a_time: bool = False) -> None:
        super().__init__(config, folder)
        self._threads = ThreadPoolExecutor(1 if one_at_a_time else THREADS, config.driver)
        self._opening = threading.Lock()
        self._writing = threading.Lock()
        self._client: Client | None = None

    @abc.abstractmethod
    def open(self) -> Client:
        """The library's client."""

    @abc.abstractmethod
    def shut(self, client: Client) -> None:
        """The end of it."""

    @abc.abstractmethod
    def failed(self, error: Exception) -> ModelComposeError | None:
        """What an error of the library means; None: it is none of its own."""

    @abc.abstractmethod
    def put(self, client: Client, place: Place, rows: list[Row]) -> None:
        """See `insert`."""

    @abc.abstractmethod
    def change(self, client: Client, place: Place, rows: list[Row], insert: bool) -> int:
        """See `update`."""

    @abc.abstractmethod
    def remove(self, client: Client, place: Place, ids: list[str] | None, matching: Matching) -> int:
        """See `delete`."""

    @abc.abstractmethod
    def find(self, client: Client, place: Place, wanted: Wanted) -> list[list[Near]]:
        """See `search`."""

    async def insert(self, place: Place, rows: list[Row]) -> None:
        await self._run(lambda client: self.put(client, place, rows), self._writing)

    async def update(self, place: Place, rows: list[Row], *, insert: bool) -> int:
        return await self._run(lambda client: self.change(client, place, rows, insert), self._writing)

    async def delete(self, place: Place, ids: list[str] | None, matching: Matching) -> int:
        return await self._run(lambda client: self.remove(client, place, ids, matching), self._writing)

    async def search(self, place: Place, wanted: Wanted) -> list[list[Near]]:
        return await self._run(lambda client: self.find(client, place, wanted))

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        client, self._client = self._client, None
        if client is not None:
            await asyncio.to_thread(self.shut, client)

    async def _run(
        self, work: Callable[[Client], Value], lock: contextlib.AbstractContextManager[Any] | None = None
    ) -> Value:
        def inside() -> Value:
            try:
                client = self._opened()
                with lock or contextlib.nullcontext():
                    return work(client)
            except ModelComposeError:
                raise
            except Exception as error:
                failed = self.failed(error)
                if failed is None:
                    raise
                raise failed from error

        limit = self.config.timeout if self.config.served else None
        try:
            async with asyncio.timeout(limit):
                return await asyncio.get_running_loop().run_in_executor(self._threads, inside)
        except TimeoutError:
            raise TimedOut(f"{self.config.driver} took longer than {limit:g} s (`timeout`)") from None

    def _opened(self) -> Client:
        with self._opening:
            if self._client is None:
                if not self.config.served:
                    self.folder.mkdir(parents=True, exist_ok=True)
                self._client = self.open()
            return self._client


def batches(rows: Sequence[Value], size: int, most: int | None = None) -> Iterator[Sequence[Value]]:
    """Rows in parts of `size` (0: all), and of at most `most`."""
    step = min(size or len(rows) or 1, most or len(rows) or 1)
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def address(config: VectorStoreConfig) -> str:
    """The URL of a server."""
    return config.endpoint or f"{config.protocol or 'http'}://{config.host}:{config.server_port}"


def unreachable(config: VectorStoreConfig, why: str) -> ServiceError:
    """The error for a server that does not answer, or that answers with an error."""
    place = f"{config.host}:{config.server_port}"
    if config.endpoint is not None:
        parts = urlsplit(config.endpoint)  # it may have a password in it
        place = parts.hostname or "its endpoint"
    where = f" at `{place}`" if config.served else ""
    return ServiceError(f"{config.driver}{where} failed: {why[:_MOST_SAID]}", hint="is it there, and ready?")


def new_vectors(rows: Sequence[Row]) -> None:
    """Raise InvalidInput for a row to insert that has no vector."""
    for row in rows:
        if row.vector is None:
            raise not_insertable(row.id)


def unknown(collection: str) -> NotFound:
    """The error for a collection that is not there."""
    return NotFound(f"there is no collection `{collection}`", hint="the first insert makes it")


def exists(ids: Sequence[str]) -> InvalidInput:
    """The error for an insert of what is there."""
    return InvalidInput(
        f"`vector_id`: `{ids[0]}` is there already", field="vector_id", hint="`update` changes what is there"
    )


def not_insertable(name: str) -> InvalidInput:
    """The error for an update of what is not there, without a vector to insert."""
    hint = "give a `vector` to insert it, or write `insert_if_not_exist: false`"
    return InvalidInput(f"`vector_id`: there is no `{name}`", field="vector_id", hint=hint)


def check_dimension(rows: Sequence[array[float] | None], dimension: int, collection: str, field: str) -> None:
    """Raise InvalidInput for a vector of another length than those of its collection."""
    for vector in rows:
        if vector is not None and len(vector) != dimension:
            message = f"`{field}` has {len(vector)} numbers, and those of `{collection}` have {dimension}"
            raise InvalidInput(message, field=field, hint="is it from the same model?")


def check_made(config: VectorStoreConfig, collection: str, dimension: int, metric: str) -> None:
    """Raise InvalidInput when a collection was made for something else than the file says now."""
    for key, said, made in (("dimension", config.dimension, dimension), ("metric", config.metric, metric)):
        if said is not None and said != made:
            message = f"the collection `{collection}` has `{key}: {made}`, and the file says `{said}`"
            raise InvalidInput(
                message, field="collection", hint="change the file, or take another collection"
            )


def check_metric(wanted: Metric | None, made_for: str, driver: str) -> None:
    """Raise InvalidInput when a store is asked for another metric than its index has."""
    if wanted is not None and wanted != made_for:
        message = f"`metric_type`: the collection is for `{made_for}`"
        raise InvalidInput(message, field="metric_type", hint=f"driver `{driver}` has one metric for each")
