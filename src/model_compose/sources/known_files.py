"""Where on this machine do known weights lie?

In a folder of the user's, which is looked at first, or in our cache. Apart from `known_download.py`, so that
starting from what is here loads nothing that could use a network.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from model_compose.errors import Corrupt
from model_compose.sources.cache import Cache, Entry, size_of
from model_compose.sources.known import KNOWN, KnownWeights
from model_compose.sources.spec import KnownSource, LoadedSource, format_of

#: Folders of the user's, separated as in `PATH`.
FOLDERS: Final = "MODEL_COMPOSE_MODELS"

#: The only files of an archive that are unpacked, and the only ones that count in a folder.
ENDING: Final = ".onnx"


def find(source: KnownSource, cache: Cache, environ: Mapping[str, str]) -> LoadedSource | None:
    """What would be loaded, as it lies there; None where it must be downloaded or unpacked first."""
    path = _placed(source.name, cache, environ)
    return _loaded(source, path, None) if path else cached(source, cache)


def checked(source: KnownSource, cache: Cache, environ: Mapping[str, str]) -> LoadedSource | None:
    """The same, but what lies in a folder of the user's must be exactly what the name stands for.

    Raises Corrupt.
    """
    path = _placed(source.name, cache, environ)
    if path is None:
        return cached(source, cache)
    if difference := _difference(path, KNOWN[source.name]):
        raise Corrupt(
            f"`{path}` is not `{source.name}`: {difference}",
            hint=f"move it away, or write `model: {path}` to use it as it is",
        )
    return _loaded(source, path, None)


def cached(source: KnownSource, cache: Cache) -> LoadedSource | None:
    """What our cache holds of it."""
    entry = cache.find(key_of(source.name))
    return loaded(source, cache, entry) if entry else None


def loaded(source: KnownSource, cache: Cache, entry: Entry) -> LoadedSource:
    """What a source gives, once it is in our cache."""
    return _loaded(source, cache.path_of(entry), entry.revision)


def key_of(name: str) -> str:
    """What the cache calls it."""
    return f"known {name} {KNOWN[name].sha256}"


def folders(cache: Cache, environ: Mapping[str, str]) -> list[Path]:
    """Where the user may put weights: the folders that he chose, else one in our cache."""
    # Not `Path.expanduser()`, which raises where nobody has a home.
    chosen = [os.path.expanduser(each) for each in environ.get(FOLDERS, "").split(os.pathsep) if each]  # noqa: PTH111
    return [Path(each).absolute() for each in chosen] or [cache.root / "models"]


def archive(name: str, cache: Cache, environ: Mapping[str, str]) -> Path | None:
    """The archive of a pack, if it lies in a folder of the user's."""
    known = KNOWN[name]
    paths = (folder / known.file for folder in folders(cache, environ) if known.members)
    return next((path for path in paths if path.is_file()), None)


def sha256_of(path: Path) -> str:
    """Of what a file holds."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _placed(name: str, cache: Cache, environ: Mapping[str, str]) -> Path | None:
    """The file, or the folder of an unpacked archive, that the user or another program has put here."""
    known = KNOWN[name]
    if not known.members:
        paths = (folder / known.file for folder in folders(cache, environ))
        return next((path for path in paths if path.is_file()), None)
    places = folders(cache, environ)
    if known.home is not None:
        places.append(Path(os.path.expanduser(known.home)))  # noqa: PTH111
    # A folder without a single such file is one that a download has left behind.
    return next((place / name for place in places if any((place / name).glob(f"*{ENDING}"))), None)


def _difference(path: Path, known: KnownWeights) -> str | None:
    """What is wrong with the user's files; None if they are what the name stands for."""
    for name, sha256 in known.members.items() or [("", known.sha256)]:
        of = f" of `{name}`" if name else ""
        if not (path / name).is_file():
            return f"it has no `{name}`"
        if (found := sha256_of(path / name)) != sha256:
            return f"the sha256{of} is `{found}`, not `{sha256}`"
    return None


def _loaded(source: KnownSource, path: Path, revision: str | None) -> LoadedSource:
    return LoadedSource(
        path=str(path),
        format=format_of(source),
        revision=revision,
        origin=source.name,
        size_bytes=size_of(path) or 0,
    )
