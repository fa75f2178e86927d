"""Does our cache have the file that a source wants out of a wheel?

Apart from `pypi.py`, so that starting from the cache loads nothing that could use a network.
"""

from __future__ import annotations

from model_compose.sources.cache import Cache, Entry
from model_compose.sources.spec import LoadedSource, PypiSource, format_of, pinned, without_credentials


def find(source: PypiSource, cache: Cache) -> LoadedSource | None:
    """The file, if it is there."""
    entry = cache.find(key_of(source))
    return loaded(source, cache, entry) if entry else None


def key_of(source: PypiSource) -> str:
    """What the cache calls it. Without an index of its own, one version is the same wherever it is from."""
    name, version = pinned(source.package) or (source.package, "")
    name = name.lower().replace("_", "-").replace(".", "-")
    index = f" from {without_credentials(source.index)}" if source.index else ""
    return f"pypi {name}=={version} {source.filename}{index}"


def loaded(source: PypiSource, cache: Cache, entry: Entry) -> LoadedSource:
    """What a source gives, once its file is here."""
    return LoadedSource(
        path=str(cache.path_of(entry)),
        format=format_of(source),
        revision=entry.revision,
        origin=str(source),
        size_bytes=entry.size_bytes,
    )
