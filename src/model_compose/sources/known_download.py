"""How do known weights get onto this machine?"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from model_compose.errors import AccessDenied, Corrupt, SourceNotFound, SourceOffline
from model_compose.sources import known_files
from model_compose.sources.archive import Archive
from model_compose.sources.cache import Cache, Entry
from model_compose.sources.download import Http, Partial
from model_compose.sources.indexes import is_true
from model_compose.sources.known import KNOWN, KnownWeights
from model_compose.sources.progress import Progress, stop_if
from model_compose.sources.spec import KnownSource, LoadedSource

_CHUNK_BYTES = 1 << 20


def fetch(
    source: KnownSource,
    cache: Cache,
    *,
    offline: bool | None,
    progress: Progress,
    cancel: threading.Event,
    environ: Mapping[str, str],
) -> LoadedSource:
    """Bring the weights into the cache, unless another process does it first.

    `offline` None means: as `HF_HUB_OFFLINE` and `UV_OFFLINE` say. Raises SourceOffline, Corrupt or
    SourceError; where nothing could be had, the hint says where to put it.
    """
    name = source.name
    known = KNOWN[name]
    with cache.lock(known_files.key_of(name), cancel):
        if found := known_files.cached(source, cache):  # another process was faster
            return found
        path = known_files.archive(name, cache, environ)
        if path is not None:
            if (sha256 := known_files.sha256_of(path)) != known.sha256:
                raise _differs(f"`{path}` is not `{name}`", sha256, known, "move it away")
            return known_files.loaded(source, cache, _unpacked(name, path, cache, cancel))
        with _explained(name, cache, environ):
            if _is_offline(offline, environ):
                raise SourceOffline(f"`{name}` is not on this machine, and the network may not be used")
            partial = _downloaded(name, cache, progress, cancel)
        try:
            keep = _unpacked if known.members else _kept
            entry = keep(name, partial.path, cache, cancel)
        except Corrupt:
            partial.discard()
            raise
        partial.discard()
        return known_files.loaded(source, cache, entry)


def _is_offline(offline: bool | None, environ: Mapping[str, str]) -> bool:
    if offline is not None:
        return offline
    return any(is_true(environ.get(name, "")) for name in ("HF_HUB_OFFLINE", "UV_OFFLINE"))


def _downloaded(name: str, cache: Cache, progress: Progress, cancel: threading.Event) -> Partial:
    known = KNOWN[name]
    partial = Partial(cache.partial_path(f"{known.sha256}{Path(known.file).suffix}"))
    with Http(cancel=cancel) as http:
        # The licence is part of what is shown: whoever sees the download begin sees what it allows.
        http.download(
            known.url,
            partial,
            label=f"{name} ({known.host}, {known.licence})",
            progress=progress,
            size_bytes=known.size_bytes,
        )
    if (sha256 := known_files.sha256_of(partial.path)) != known.sha256:
        partial.discard()
        raise _differs(
            f"what `{known.host}` sent is not `{name}`",
            sha256,
            known,
            "nothing of it was kept; try again, and if it stays, something on the way changes downloads",
        )
    return partial


def _kept(name: str, path: Path, cache: Cache, cancel: threading.Event) -> Entry:
    """Put the file, which has been checked, into the cache."""
    known = KNOWN[name]

    def write(file: BinaryIO) -> str:
        with path.open("rb") as content:
            while chunk := content.read(_CHUNK_BYTES):
                stop_if(cancel)
                file.write(chunk)
        return known.sha256

    return cache.keep(
        known_files.key_of(name),
        origin=name,
        name=known.file,
        revision=known.sha256[:12],
        size_bytes=known.size_bytes,
        write=write,
    )


def _unpacked(name: str, path: Path, cache: Cache, cancel: threading.Event) -> Entry:
    """Unpack the archive, which has been checked, into the cache."""
    known = KNOWN[name]

    def fill(folder: Path) -> None:
        with Archive(path, known.file) as archive:
            found = archive.unpack_all(known_files.ENDING, folder, known.size_bytes, cancel)
        for member, sha256 in known.members.items():
            if found.get(member) != sha256:
                raise Corrupt(f"`{known.file}` does not hold the `{member}` that is known")

    return cache.keep_folder(
        known_files.key_of(name),
        origin=name,
        name=name,
        revision=known.sha256[:12],
        sha256=known.sha256,
        size_bytes=known.size_bytes,
        fill=fill,
    )


@contextlib.contextmanager
def _explained(name: str, cache: Cache, environ: Mapping[str, str]) -> Iterator[None]:
    """Say, when weights cannot be had from the network, how to get them here without."""
    known = KNOWN[name]
    path = known_files.folders(cache, environ)[0] / known.file
    put = f"fetch {known.url} where there is a network, and put it here as `{path}`"
    try:
        yield
    except (SourceOffline, SourceNotFound, AccessDenied) as error:
        hint = f"{error.hint}; or {put}" if error.hint else put
        raise type(error)(error.message, hint=hint) from error


def _differs(what: str, sha256: str, known: KnownWeights, hint: str) -> Corrupt:
    return Corrupt(f"{what}: its sha256 is `{sha256}`, not `{known.sha256}`", hint=hint)
