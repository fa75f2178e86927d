"""How do weights come from the Hugging Face hub?

Through the hub's own library, which knows its storage (Xet), mirrors, tokens and cache. Around it stand
what it does not do: choosing files, checking hashes, one error per mistake with a way out, one download
when several processes ask, and stopping.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from model_compose.about import COMMAND, __version__
from model_compose.errors import AccessDenied, Corrupt, SourceError, SourceOffline
from model_compose.sources.cache import Cache
from model_compose.sources.disk import full_disk_explained, require_room
from model_compose.sources.hub_cache import HubFolder
from model_compose.sources.hub_errors import explained, not_in_cache
from model_compose.sources.hub_files import choose
from model_compose.sources.progress import Progress, stop_if
from model_compose.sources.spec import HubSource, LoadedSource, without_credentials

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_TIMEOUT_S: Final = 20.0
_WAITS_S: Final = (0.5, 1.0, 2.0)


class _File(msgspec.Struct, frozen=True):
    """What the hub announces of a file: large ones have a sha256, small ones git's sha1."""

    size_bytes: int
    sha256: str | None
    git_sha1: str | None


class _Commit(msgspec.Struct, frozen=True):
    """A repository at one commit."""

    id: str
    files: dict[str, _File]


def fetch(
    source: HubSource,
    folder: HubFolder,
    locks: Cache,
    *,
    offline: bool | None,
    refresh: bool,
    progress: Progress,
    cancel: threading.Event,
) -> LoadedSource:
    """What a source asks for, from the cache or the hub; with `refresh`, the hub is asked for news.

    `offline` None means: as `HF_HUB_OFFLINE` says. Raises SourceNotFound, AccessDenied, SourceOffline,
    Corrupt or SourceError.
    """
    reason = _why_offline(source, offline)
    if (reason or not refresh) and (loaded := folder.find(source)):
        return loaded
    if reason:
        raise not_in_cache(source, reason)
    folder.cache_dir.mkdir(parents=True, exist_ok=True)
    with locks.lock(f"hub {folder.cache_dir} {source.repository}", cancel):
        # Another process may have been faster.
        if not refresh and (loaded := folder.find(source)):
            return loaded
        hub = _Hub(source, cancel)
        commit = hub.commit()
        sizes = {name: file.size_bytes for name, file in commit.files.items()}
        selection = choose(sizes, source.filename, source.repository)
        total_bytes = sum(sizes[name] for name in selection.files)
        missing = [name for name in selection.files if not folder.has(commit.id, name, sizes[name])]
        missing_bytes = sum(sizes[name] for name in missing)
        require_room(folder.cache_dir, missing_bytes, str(source))
        if missing:
            progress.start(str(source), total_bytes, total_bytes - missing_bytes)
            try:
                with full_disk_explained(folder.cache_dir, missing_bytes, str(source)):
                    for name in missing:
                        hub.download(commit, name, folder, progress)
            finally:
                progress.finish()
        folder.record(source.revision, commit.id, sizes)
        return folder.loaded(source, commit.id, selection)


def _why_offline(source: HubSource, offline: bool | None) -> str | None:
    """What forbids the network; None if nothing does."""
    from huggingface_hub import constants

    if source.local_files_only:
        return "`local_files_only` is set"
    if offline is None and constants.is_offline_mode():
        return "`HF_HUB_OFFLINE` is set"
    return "the network may not be used" if offline else None


class _Hub:
    """The hub as one source sees it."""

    def __init__(self, source: HubSource, cancel: threading.Event) -> None:
        self._source = source
        self._cancel = cancel
        self._token = _token(source)
        self._api = _api(source, self._token)
        self._shown = without_credentials(self._api.endpoint)

    def commit(self) -> _Commit:
        """The commit that the revision is now, and its files."""
        for wait_s in (*_WAITS_S, None):
            stop_if(self._cancel)
            try:
                with self._explained():
                    info = self._api.model_info(
                        self._source.repository,
                        revision=self._source.revision,
                        files_metadata=True,
                        timeout=_TIMEOUT_S,
                    )
                break
            except SourceOffline:
                if wait_s is None:
                    raise
                self._cancel.wait(wait_s)
        if info.sha is None or any(file.size is None for file in info.siblings or ()):
            raise SourceError(f"`{self._shown}` does not say enough of `{self._source.repository}`")
        return _Commit(
            info.sha,
            {
                file.rfilename: _File(file.size or 0, file.lfs.sha256 if file.lfs else None, file.blob_id)
                for file in info.siblings or ()
                if not {"", ".."}.intersection(file.rfilename.split("/"))
            },
        )

    def download(self, commit: _Commit, name: str, folder: HubFolder, progress: Progress) -> None:
        """Fetch one file into the cache and check it."""
        from huggingface_hub import hf_hub_download

        with self._explained():
            hf_hub_download(
                self._source.repository,
                name,
                revision=commit.id,
                cache_dir=folder.cache_dir,
                endpoint=self._api.endpoint,
                token=self._api.token,
                tqdm_class=_bar(progress, self._cancel),
                library_name=COMMAND,
                library_version=__version__,
            )
        stop_if(self._cancel)
        if not _is_as_announced(folder.path_of(commit.id, name), commit.files[name]):
            folder.forget(commit.id, name)
            raise Corrupt(
                f"`{name}` of `{self._source.repository}` is not the file that the hub announces",
                hint="it was removed; try again, and if it stays, something on the way changes files",
            )

    def _explained(self) -> AbstractContextManager[None]:
        return explained(
            self._source, hub=self._shown, with_token=self._token is not None, revisions=self._revisions
        )

    def _revisions(self) -> list[str]:
        """The branches and tags there are; none if the hub does not tell."""
        import httpx2
        from huggingface_hub import get_session

        with contextlib.suppress(httpx2.HTTPError, ValueError, KeyError):
            # Not `HfApi.list_repo_refs`, which waits for ever.
            refs = get_session().get(
                f"{self._api.endpoint}/api/models/{self._source.repository}/refs",
                headers={"Authorization": f"Bearer {self._token}"} if self._token else {},
                timeout=_TIMEOUT_S,
            )
            found = refs.raise_for_status().json()
            return [ref["name"] for ref in (*found["branches"], *found["tags"])]
        return []


def _token(source: HubSource) -> str | None:
    """The token to send. That of the environment is for the hub of the environment, not for any other."""
    from huggingface_hub import constants, get_token

    implicit = source.endpoint is None and not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN
    token = (source.token or "").strip() or (get_token() if implicit else None)
    if token is not None and not (token.isascii() and token.isprintable()):
        # The library's complaint about this would show the token.
        raise AccessDenied(
            "the token for the hub has characters that no token has",
            hint="copy it again, without line breaks",
        )
    return token


def _api(source: HubSource, token: str | None) -> HfApi:
    from huggingface_hub import HfApi, constants

    # 10 MB, the library's own, is long to wait on a slow line: for progress, and for a wish to stop.
    constants.DOWNLOAD_CHUNK_SIZE = 1 << 20
    # Unless the user says otherwise, the library asks and reports nothing beside the download itself.
    if "HF_HUB_DISABLE_TELEMETRY" not in os.environ:
        constants.HF_HUB_DISABLE_TELEMETRY = True
    # The library writes to the terminal by itself. What it has to say belongs in the program's log.
    logging.getLogger("huggingface_hub").handlers = [logging.NullHandler()]
    endpoint = source.endpoint.rstrip("/") if source.endpoint else None
    return HfApi(endpoint=endpoint, token=token or False, library_name=COMMAND, library_version=__version__)


def _is_as_announced(path: Path, announced: _File) -> bool:
    if path.stat().st_size != announced.size_bytes:
        return False
    if announced.sha256 is not None:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == announced.sha256
    if announced.git_sha1 is not None:
        content = path.read_bytes()
        return (
            hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
            == announced.git_sha1
        )
    return True


def _bar(progress: Progress, cancel: threading.Event) -> Any:
    """A class that looks like tqdm to the library, and tells our progress instead of drawing."""

    class Bar:
        total: int | None = None

        def __init__(self, *_args: object, **_options: object) -> None:
            pass

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, n: float | None = 1) -> None:
            """Called between chunks, which makes it the place to stop."""
            stop_if(cancel)
            progress.advance(int(n or 0))

        def update_transfer(self, n: float | None = 1) -> None:
            """Bytes on the wire, where they differ from those of the file."""

        def set_postfix_str(self, *_args: object, **_options: object) -> None:
            pass

        def set_transfer_postfix_str(self, *_args: object, **_options: object) -> None:
            pass

        def close(self) -> None:
            pass

    return Bar
