"""Where do asynchronous runs wait for a restart of the service?

In one SQLite file in the state folder. Runs that somebody waits for never touch the disk. All access
happens on one thread of its own, off the event loop.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from model_compose.errors import InvalidInput, ServiceError
from model_compose.types import Blob, for_json, mapped
from model_compose.workflows.context import JobState

RunState = Literal["pending", "processing", "completed", "failed", "cancelled"]

T = TypeVar("T")


class JobTiming(msgspec.Struct, omit_defaults=True):
    """The state of a job, when it began and ended, and how often it was tried.

    error  why it failed, also where the run went on
    """

    state: JobState
    started: float | None = None
    finished: float | None = None
    attempts: int = 1
    error: str | None = None


class RunRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run as it is stored and as the API shows it. Times are in seconds since 1970.

    owner  the name of the key that its caller had
    """

    task_id: str
    workflow_id: str
    status: RunState
    output: Any = None
    error: str | None = None
    error_type: str | None = None
    hint: str | None = None
    jobs: dict[str, JobTiming] | None = None
    usage: dict[str, int] | None = None
    finish_reason: str | None = None
    owner: str | None = None
    created: float = 0.0
    started: float | None = None
    finished: float | None = None

    def for_json(self) -> RunRecord:
        """It with data URIs in the places of files."""
        return msgspec.structs.replace(self, output=for_json(self.output))


class StoredRun(msgspec.Struct, frozen=True):
    """A record with the input that would be needed to run it again."""

    record: RunRecord
    input: Any


_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    finished REAL,
    record BLOB NOT NULL,
    input BLOB NOT NULL
) STRICT
"""

# Inputs may hold bytes; records are what the API shows, and JSON has integers of any size.
_inputs = msgspec.msgpack.Encoder()
_records = msgspec.json.Decoder(RunRecord)


class _Files(msgspec.Struct, frozen=True, array_like=True, tag="files"):
    """Something encoded where each file stands as a text that names it, and those files."""

    encoded: bytes
    files: dict[str, Blob]


_files = msgspec.msgpack.Decoder(_Files)
#: What an encoded `_Files` begins with: an array of three, and its tag. JSON and our inputs never do.
_FILES_BEGIN = msgspec.msgpack.encode(_Files(b"", {}))[:7]


def packed(record: RunRecord, encoded: bytes | None = None) -> bytes:
    """A record in the form that `unpacked` reads: JSON, with the files of its output beside it.

    encoded  its JSON, if that was made and has no files in it
    """
    output, files = _apart(record.output)
    if not files:
        return encoded or msgspec.json.encode(record)
    bare = msgspec.json.encode(msgspec.structs.replace(record, output=output))
    return msgspec.msgpack.encode(_Files(bare, files))


def unpacked(content: bytes) -> RunRecord:
    """What `packed` gave. Raises msgspec.MsgspecError for anything else."""
    if not content.startswith(_FILES_BEGIN):
        return _records.decode(content)
    found = _files.decode(content)
    record = _records.decode(found.encoded)
    return msgspec.structs.replace(record, output=_together(record.output, found.files))


def _packed_input(value: Any) -> bytes:
    bare, files = _apart(value)
    content = _inputs.encode(bare)
    return msgspec.msgpack.encode(_Files(content, files)) if files else content


def _unpacked_input(content: bytes) -> Any:
    if not content.startswith(_FILES_BEGIN):
        return msgspec.msgpack.decode(content)
    found = _files.decode(content)
    return _together(msgspec.msgpack.decode(found.encoded), found.files)


def _apart(value: Any) -> tuple[Any, dict[str, Blob]]:
    """A value with a name in the place of each file, and the files by name; nobody can guess the names."""
    files: dict[str, Blob] = {}

    def name(each: Any) -> Any:
        if not isinstance(each, Blob):
            return each
        key = secrets.token_hex(16)
        files[key] = each
        return key

    return mapped(value, name), files


def _together(value: Any, files: dict[str, Blob]) -> Any:
    return mapped(value, lambda each: files.get(each, each) if isinstance(each, str) else each)


class RunStore:
    """The stored runs of one service. All of it raises ServiceError where the file does not work."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, "store")
        self._connection: sqlite3.Connection | None = None

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, work)

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._connection is None:
                self._connection = self._opened()
            return work(self._connection)
        except (sqlite3.Error, msgspec.MsgspecError) as error:
            hint = "a full disk can be emptied; a file that is broken can be moved away, without its runs"
            raise ServiceError(f"stored runs cannot be used: `{self._path}`: {error}", hint=hint) from error

    def _opened(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")  # what was acknowledged survives a power cut
            connection.execute(_SCHEMA)
            self._path.chmod(0o600)
        except BaseException:
            connection.close()
            raise
        return connection

    async def add(self, run: StoredRun) -> None:
        """Store a new run; it is safe when this returns. Raises InvalidInput for an integer too large."""
        try:
            given = _packed_input(run.input)
        except OverflowError as error:
            raise InvalidInput("an integer of the input has more than 64 bits", field="input") from error
        record = packed(run.record)
        row = (run.record.task_id, run.record.status, None, record, given)
        await self._do(lambda db: db.execute("INSERT INTO runs VALUES (?, ?, ?, ?, ?)", row))

    async def update(self, record: RunRecord) -> None:
        """Store a new state of a run; the input of one that has ended is forgotten."""
        sql = "UPDATE runs SET status = ?, finished = ?, record = ? WHERE id = ?"
        row = (record.status, record.finished, packed(record), record.task_id)

        def work(db: sqlite3.Connection) -> None:
            db.execute(sql, row)
            if record.finished is not None:
                db.execute("UPDATE runs SET input = x'' WHERE id = ?", (record.task_id,))

        await self._do(work)

    async def get(self, task_id: str) -> RunRecord | None:
        """A run by its id."""
        sql = "SELECT record FROM runs WHERE id = ?"

        def work(db: sqlite3.Connection) -> RunRecord | None:
            row = db.execute(sql, (task_id,)).fetchone()
            return unpacked(row[0]) if row else None

        return await self._do(work)

    async def unfinished(self) -> list[StoredRun]:
        """Runs that a service before us left behind, oldest first."""
        sql = "SELECT record, input FROM runs WHERE finished IS NULL ORDER BY id"

        def work(db: sqlite3.Connection) -> list[StoredRun]:
            rows = db.execute(sql).fetchall()
            return [StoredRun(unpacked(record), _unpacked_input(given)) for record, given in rows]

        return await self._do(work)

    async def expire(self, before: float) -> int:
        """Forget runs that finished before this time; -> how many."""
        sql = "DELETE FROM runs WHERE finished < ?"
        return await self._do(lambda db: db.execute(sql, (before,)).rowcount)

    async def close(self) -> None:
        """Write everything down."""

        def work(db: sqlite3.Connection) -> None:
            db.close()

        if self._connection is not None:
            await self._do(work)
        self._thread.shutdown()
