"""What does the Hugging Face hub's own cache hold?

Read directly, so that starting from the cache needs neither the network nor the hub's library. Layout:
https://huggingface.co/docs/huggingface_hub/guides/manage-cache. To it we add one file per commit,
`model-compose/<commit>.json`, which lists all files of the repository: only with it can one tell a
folder that is complete from one that is not. Where it is missing because other programs filled the
cache, what lies there is judged by itself.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Final

import msgspec

from model_compose.errors import SourceNotFound
from model_compose.sources.hub_files import Selection, choose
from model_compose.sources.local import absolute
from model_compose.sources.spec import HubSource, LoadedSource

_HEXADECIMAL: Final = frozenset("0123456789abcdef")


class _Listing(msgspec.Struct):
    """All files of a repository at one commit: path to size in bytes."""

    files: dict[str, int]


class HubFolder:
    """The part of a cache folder that belongs to one repository."""

    def __init__(self, cache_dir: Path, repository: str) -> None:
        self.cache_dir = cache_dir
        self._folder = cache_dir / f"models--{repository.replace('/', '--')}"

    def commit_of(self, revision: str | None) -> str | None:
        """The commit that a branch, tag or commit was when it was last looked up; None if never."""
        if revision is not None and len(revision) == 40 and _HEXADECIMAL.issuperset(revision):
            return revision
        ref = self._folder / "refs" / (revision or "main")
        return ref.read_text().strip() if ref.is_file() else None

    def path_of(self, commit: str, name: str = "") -> Path:
        """Where a file of a commit lies, or would; without a name, the folder."""
        return self._folder / "snapshots" / commit / name

    def has(self, commit: str, name: str, size_bytes: int | None) -> bool:
        """Whether a file is there, in its size if that is known."""
        path = self.path_of(commit, name)
        return path.is_file() and (size_bytes is None or path.stat().st_size == size_bytes)

    def find(self, source: HubSource) -> LoadedSource | None:
        """What a source asks for, if all of it is there."""
        commit = self.commit_of(source.revision)
        if commit is None or not self.path_of(commit).is_dir():
            return None
        sizes = self._listing(commit)
        try:
            selection = choose(sizes, source.filename, source.repository)
        except SourceNotFound:
            return None
        if not all(self.has(commit, name, sizes[name]) for name in selection.files):
            return None
        return self.loaded(source, commit, selection)

    def loaded(self, source: HubSource, commit: str, selection: Selection) -> LoadedSource:
        """What a source gives, once its files are here."""
        return LoadedSource(
            path=str(self.path_of(commit, selection.main or "")),
            format=selection.format,
            revision=commit,
            origin=str(source),
            size_bytes=sum(self.path_of(commit, name).stat().st_size for name in selection.files),
        )

    def record(self, revision: str | None, commit: str, sizes: dict[str, int]) -> None:
        """Remember which commit a revision is, and its files; to be called when those wanted are here."""
        self._write(self._listing_path(commit), msgspec.json.encode(_Listing(sizes)))
        if revision != commit:
            self._write(self._folder / "refs" / (revision or "main"), commit.encode())

    def forget(self, commit: str, name: str) -> None:
        """Remove one file: its name in the snapshot, and the content that this leads to."""
        path = self.path_of(commit, name)
        hops = [path, path.resolve()]
        if path.is_symlink():
            hops.append(path.parent / path.readlink())
        for hop in hops:
            if hop.parent.resolve().is_relative_to(self.cache_dir.resolve()):
                hop.unlink(missing_ok=True)

    def _listing(self, commit: str) -> dict[str, int]:
        try:
            return msgspec.json.decode(self._listing_path(commit).read_bytes(), type=_Listing).files
        except (FileNotFoundError, msgspec.MsgspecError):
            snapshot = self.path_of(commit)
            files = (path for path in snapshot.rglob("*") if path.is_file())
            return {path.relative_to(snapshot).as_posix(): path.stat().st_size for path in files}

    def _listing_path(self, commit: str) -> Path:
        return self._folder / "model-compose" / f"{commit}.json"

    def _write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        draft.write_bytes(content)
        draft.replace(path)


def folder_of(source: HubSource, base_dir: Path) -> HubFolder:
    """The folder of the cache that a source uses: its own `cache_dir`, else the hub's."""
    if source.cache_dir is not None:
        return HubFolder(absolute(source.cache_dir, base_dir), source.repository)
    return HubFolder(default_cache_dir(), source.repository)


def default_cache_dir() -> Path:
    """The hub's own cache, as `HF_HUB_CACHE` and `HF_HOME` have it."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).absolute()
