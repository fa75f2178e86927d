"""What does a package index offer of one package?

The simple API: https://packaging.python.org/en/latest/specifications/simple-repository-api/, in JSON or
HTML, from a server or from a folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.request import url2pathname

import msgspec
from packaging.utils import canonicalize_name

from model_compose.errors import SourceError, SourceNotFound
from model_compose.sources.download import Http
from model_compose.sources.indexes import Index

_ACCEPT: Final = (
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
)

_HEXADECIMAL: Final = frozenset("0123456789abcdef")


class Link(msgspec.Struct, frozen=True):
    """One file that an index offers. `sha256` and `size_bytes` are None where the index does not say."""

    filename: str
    url: str
    sha256: str | None = None
    size_bytes: int | None = None

    @property
    def local_path(self) -> Path | None:
        """Where the file lies, if it is on this machine already."""
        return local_path(self.url) if self.url.startswith("file:") else None


class _JsonFile(msgspec.Struct):
    filename: str
    url: str
    hashes: dict[str, str] = {}
    size: int | None = None


class _JsonPage(msgspec.Struct):
    files: list[_JsonFile]


def offered(index: Index, package: str, http: Http) -> list[Link]:
    """All files that the index has for a package; empty if it does not know the package.

    A flat index gives the files of other packages too. Raises SourceOffline, AccessDenied or SourceError.
    """
    if index.local:
        return _in_folder(index, package)
    address = index.url if index.flat else f"{index.url}/{canonicalize_name(package)}/"
    try:
        page = http.page(address, accept=_ACCEPT, auth=index.credentials)
    except SourceNotFound:
        return []
    if "json" in page.content_type:
        links = _parse_json(page.body, page.url, str(index))
    else:
        links = _parse_html(page.body.decode("utf-8", "replace"), page.url)
    # A server has no say in which files of this machine are read.
    return [link for link in links if urlsplit(link.url).scheme in ("http", "https")]


def local_path(url: str) -> Path:
    """The path that a `file:` URL names."""
    return Path(url2pathname(urlsplit(url).path))


def _in_folder(index: Index, package: str) -> list[Link]:
    place = local_path(index.url)
    if not index.flat:
        place /= canonicalize_name(package)
    page = place if place.is_file() else place / "index.html"
    if page.is_file():
        return _parse_html(page.read_text(encoding="utf-8", errors="replace"), page.as_uri())
    if not place.is_dir():
        return []
    return [Link(path.name, path.as_uri()) for path in sorted(place.iterdir()) if path.is_file()]


def _parse_json(body: bytes, url: str, index: str) -> list[Link]:
    try:
        page = msgspec.json.decode(body, type=_JsonPage)
    except msgspec.MsgspecError as error:
        raise SourceError(f"`{index}` does not answer as a package index does: {error}") from error
    return [
        Link(file.filename, urljoin(url, file.url), _sha256(file.hashes.get("sha256", "")), file.size)
        for file in page.files
    ]


def _parse_html(text: str, url: str) -> list[Link]:
    parser = _Anchors()
    parser.feed(text)
    base = urljoin(url, parser.base)
    return [_link(urljoin(base, href)) for href in parser.hrefs]


def _link(href: str) -> Link:
    url, fragment = urldefrag(href)
    algorithm, _, digest = fragment.partition("=")
    name = unquote(urlsplit(url).path.rpartition("/")[2])
    return Link(name, url, _sha256(digest) if algorithm == "sha256" else None)


def _sha256(text: str) -> str | None:
    """The digest, if it is one: it will be part of a path."""
    text = text.lower()
    return text if len(text) == 64 and _HEXADECIMAL.issuperset(text) else None


class _Anchors(HTMLParser):
    """The targets of all anchors, and of `<base>`."""

    def __init__(self) -> None:
        super().__init__()
        self.base = ""
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: Iterable[tuple[str, str | None]]) -> None:
        href = dict(attrs).get("href")
        if href and tag == "a":
            self.hrefs.append(href)
        elif href and tag == "base" and not self.base:
            self.base = href
