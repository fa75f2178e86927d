"""What has been downloaded, where does it lie, and who may change it now?

The cache for everything but the Hugging Face hub, which keeps its own. Layout of the folder:

    index/<sha256 of the key>.json   one `Entry`: which content answers a key
    files/<sha256>/<name>            the content, under the name that it had; a folder where it was an archive
    partial/                         what is on its way, or was when a process died
    locks/                           one file per lock; empty, and harmless to remove when nothing runs

A key is text that says exactly what was asked for. Files appear in one step, when they are whole and
checked; readers need no lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import filelock
import msgspec

from model_compose.errors import Cancelled, SourceError
from model_compose.sources.disk import full_disk_explained, require_room

_LOCK_POLL_S = 0.1


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One file in the cache, or one folder with the files of an archive.

    key         what was asked for, exactly
    origin      the same for people
    name        the file's name, without a folder
    sha256      of the content, or of the archive that it came in; 64 hexadecimal digits
    size_bytes  of all files together
    revision    version that it belongs to
    """

    key: str
    origin: str
    name: str
    sha256: str
    size_bytes: int
    revision: str


class Cache(msgspec.Struct, frozen=True):
    """The cache in the folder `root`, which is made, for this user only, when something is put in."""

    root: Path

    @classmethod
    def of_machine(cls, environ: Mapping[str, str]) -> Cache:
        """The cache that `MODEL_COMPOSE_CACHE`, `XDG_CACHE_HOME` or the home folder names.

        Raises SourceError when there is no home folder to keep it in.
        """
        chosen = environ.get("MODEL_COMPOSE_CACHE")
        folder = (
            Path(chosen) if chosen else Path(environ.get("XDG_CACHE_HOME") or "~/.cache", "model-compose")
        )
        try:
            return cls(folder.expanduser().absolute())
        except RuntimeError:
            raise SourceError(
                f"there is no home folder for `{folder}`",
                hint="set `MODEL_COMPOSE_CACHE` to a folder that downloads may be kept in",
            ) from None

    def find(self, key: str) -> Entry | None:
        """The entry for a key, if its file is really there; counts as a use of it."""
        path = self._index_path(key)
        try:
            entry = msgspec.json.decode(path.read_bytes(), type=Entry)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        file = self.path_of(entry)
        if entry.key != key or size_of(file) != entry.size_bytes:
            return None
        with contextlib.suppress(OSError):  # a cache that is mounted read-only serves all the same
            os.utime(path)
        return entry

    def entries(self) -> list[tuple[Entry, float]]:
        """All entries with the time of their last use, in seconds since 1970; the oldest use first."""
        found = []
        for path in (self.root / "index").glob("*.json"):
            with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError):
                found.append((msgspec.json.decode(path.read_bytes(), type=Entry), path.stat().st_mtime))
        return sorted(found, key=lambda pair: (pair[1], pair[0].key))

    def path_of(self, entry: Entry) -> Path:
        """Where an entry's file lies."""
        return self.root / "files" / entry.sha256 / entry.name

    def partial_path(self, name: str) -> Path:
        """Where something lies while it is on its way. `name` must be a plain file name."""
        folder = self._folder("partial")
        return folder / name

    def partials(self) -> list[Path]:
        """All files that are on their way, or were when a process died."""
        return sorted(path for path in (self.root / "partial").glob("*") if path.suffix != ".etag")

    @contextlib.contextmanager
    def lock(self, name: str, cancel: threading.Event) -> Iterator[None]:
        """Keep other processes and threads away from what `name` stands for. Waits until it can."""
        held = filelock.FileLock(self._folder("locks") / f"{_digest(name)}.lock")
        while True:
            if cancel.is_set():
                raise Cancelled("the download was cancelled")
            with contextlib.suppress(filelock.Timeout):
                held.acquire(timeout=_LOCK_POLL_S)
                break
        try:
            yield
        finally:
            held.release()

    def keep(
        self,
        key: str,
        *,
        origin: str,
        name: str,
        revision: str,
        size_bytes: int,
        write: Callable[[BinaryIO], str],
    ) -> Entry:
        """Put in the file that `write` writes; it returns the sha256 of what it wrote.

        The caller holds the lock of the key. When `write` fails, nothing of it stays.
        """
        draft = self.partial_path(f"{_digest(key)}.file")
        try:
            with full_disk_explained(draft.parent, size_bytes, name):
                require_room(draft.parent, size_bytes, name)
                with draft.open("wb") as file:
                    sha256 = write(file)
                    file.flush()
                    os.fsync(file.fileno())
                entry = Entry(
                    key=key,
                    origin=origin,
                    name=name,
                    sha256=sha256,
                    size_bytes=draft.stat().st_size,
                    revision=revision,
                )
                folder = self._folder("files", sha256)
                draft.replace(folder / name)
                self._write_index(entry)
        finally:
            draft.unlink(missing_ok=True)
        return entry

    def keep_folder(
        self,
        key: str,
        *,
        origin: str,
        name: str,
        revision: str,
        sha256: str,
        size_bytes: int,
        fill: Callable[[Path], None],
    ) -> Entry:
        """Put in a folder that `fill` writes plain files into; they came in an archive with `sha256`.

        size_bytes  what they need at least
        The caller holds the lock of the key. When `fill` fails, nothing of it stays.
        """
        draft = self.partial_path(f"{_digest(key)}.folder")
        shutil.rmtree(draft, ignore_errors=True)  # of a process that died
        try:
            with full_disk_explained(draft.parent, size_bytes, name):
                require_room(draft.parent, size_bytes, name)
                draft.mkdir()
                fill(draft)
                entry = Entry(
                    key=key,
                    origin=origin,
                    name=name,
                    sha256=sha256,
                    size_bytes=size_of(draft) or 0,
                    revision=revision,
                )
                folder = self._folder("files", sha256)
                shutil.rmtree(folder / name, ignore_errors=True)  # damaged: nobody would be here otherwise
                draft.replace(folder / name)
                self._write_index(entry)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return entry

    def remove(self, entry: Entry) -> int:
        """Remove an entry, and its file unless another entry has the same; bytes that became free."""
        with self.lock(entry.key, threading.Event()):
            self._index_path(entry.key).unlink(missing_ok=True)
            if any(other.sha256 == entry.sha256 for other, _ in self.entries()):
                return 0
            shutil.rmtree(self.root / "files" / entry.sha256, ignore_errors=True)
            return entry.size_bytes

    def _write_index(self, entry: Entry) -> None:
        path = self._folder("index") / self._index_path(entry.key).name
        draft = path.with_suffix(".tmp")
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(entry)))
        draft.replace(path)

    def _index_path(self, key: str) -> Path:
        return self.root / "index" / f"{_digest(key)}.json"

    def _folder(self, *names: str) -> Path:
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = self.root.joinpath(*names)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def size_of(path: Path) -> int | None:
    """Bytes of a file, or of the files in a folder; None if there is neither."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
