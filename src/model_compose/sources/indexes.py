"""Which package indexes is this machine configured to use?

The answer is that of pip and uv together, so that whoever can install packages here can also have
weights from them. pip: https://pip.pypa.io/en/stable/topics/configuration/, uv:
https://docs.astral.sh/uv/reference/environment/.
"""

from __future__ import annotations

import configparser
import contextlib
import netrc
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec

from model_compose.sources.spec import without_credentials

PYPI: Final = "https://pypi.org/simple"

# Later sections win: what `pip download` would read, and `pip install` where that says nothing.
_PIP_SECTIONS: Final = ("global", "install", "download")


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """A place that offers packages.

    url          of an index with a page per package; `file:` for a folder on this machine
    flat         it is one page (or folder) with the files of all packages, as pip's `find-links`
    credentials  user and password; never shown
    """

    url: str
    flat: bool = False
    credentials: tuple[str, str] | None = None

    @property
    def local(self) -> bool:
        """Whether it is a folder on this machine."""
        return self.url.startswith("file:")

    def __str__(self) -> str:
        return without_credentials(self.url)

    def __repr__(self) -> str:
        return f"Index({str(self)!r})"


class Indexes(msgspec.Struct, frozen=True):
    """Where to look, best place first, and the certificate authorities to trust (None: the usual)."""

    places: tuple[Index, ...]
    ca_file: Path | None = None


def configured_indexes(
    environ: Mapping[str, str],
    *,
    home: Path,
    only: str | None = None,
    etc: Path = Path("/etc"),
    prefix: Path = Path(sys.prefix),
) -> Indexes:
    """The places that pip and uv would use: local ones first, then uv's, then pip's.

    `only` is the address of one index to use instead, with the credentials and certificates of the
    machine all the same. Files that cannot be read are as good as absent, as for pip.
    """
    pip = _pip_options(environ, home, etc, prefix)
    uv = _uv_options(environ, home, etc)
    flat: list[str] = []
    urls: list[str] = []
    if only is not None:
        urls = [only]
    else:
        flat = [*uv.get("find-links", []), *pip.get("find-links", "").split()]
        if not is_true(pip.get("no-index", "")) and not uv.get("no-index"):
            defaults = [url for url in (uv.get("default-index"), pip.get("index-url")) if url]
            urls = [*uv.get("index", []), *(defaults or [PYPI]), *pip.get("extra-index-url", "").split()]
    logins = _netrc(environ, home)
    places = [_index(url, logins, flat=True) for url in flat] + [_index(url, logins) for url in urls]
    unique = dict.fromkeys(places)
    ca_file = pip.get("cert") or environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE")
    return Indexes(
        tuple(sorted(unique, key=lambda place: not place.local)),
        Path(ca_file).expanduser() if ca_file else None,
    )


def pip_for_uv(
    environ: Mapping[str, str], *, home: Path, etc: Path = Path("/etc"), prefix: Path = Path(sys.prefix)
) -> dict[str, str]:
    """Variables that have uv look where pip would, on a machine where only pip is configured."""
    if _uv_options(environ, home, etc):
        return {}
    pip = _pip_options(environ, home, etc, prefix)
    told = {
        "UV_DEFAULT_INDEX": pip.get("index-url"),
        "UV_INDEX": " ".join(pip.get("extra-index-url", "").split()),
        "UV_FIND_LINKS": ",".join(pip.get("find-links", "").split()),
        "UV_NO_INDEX": "1" if is_true(pip.get("no-index", "")) else None,
        "UV_INSECURE_HOST": " ".join(pip.get("trusted-host", "").split()),
        "SSL_CERT_FILE": environ.get("SSL_CERT_FILE") or pip.get("cert"),
    }
    given = {name: value for name, value in told.items() if value}
    # pip takes the best of all places; uv would be content with the first that has the package at all.
    return {**given, "UV_INDEX_STRATEGY": "unsafe-best-match"} if "UV_INDEX" in given else given


def _index(text: str, logins: netrc.netrc | None, *, flat: bool = False) -> Index:
    """The place at a URL or a path; credentials in a URL win over those of netrc."""
    url = text if "://" in text else Path(text).expanduser().absolute().as_uri()
    parts = urlsplit(url)
    credentials = None
    if parts.username is not None:
        credentials = (unquote(parts.username), unquote(parts.password or ""))
    elif logins is not None and parts.hostname and (login := logins.authenticators(parts.hostname)):
        credentials = (login[0], login[2] or "")
    bare = urlunsplit(
        (parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), parts.query, "")
    )
    return Index(url=bare, flat=flat, credentials=credentials)


def _pip_options(environ: Mapping[str, str], home: Path, etc: Path, prefix: Path) -> dict[str, str]:
    options: dict[str, str] = {}
    for path in _pip_files(environ, home, etc, prefix):
        parser = configparser.RawConfigParser()
        with contextlib.suppress(OSError, UnicodeDecodeError, configparser.Error):
            parser.read_string(path.read_text(encoding="utf-8"))
            for section in _PIP_SECTIONS:
                if parser.has_section(section):
                    options |= {_pip_name(name): value for name, value in parser.items(section)}
    for name, value in environ.items():
        if name.startswith("PIP_") and value:
            options[_pip_name(name.removeprefix("PIP_"))] = value
    return options


def _pip_files(environ: Mapping[str, str], home: Path, etc: Path, prefix: Path) -> Iterator[Path]:
    """pip's configuration files; later ones win."""
    explicit = environ.get("PIP_CONFIG_FILE")
    if explicit == os.devnull:
        return
    config_home = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    for folder in reversed((environ.get("XDG_CONFIG_DIRS") or str(etc / "xdg")).split(os.pathsep)):
        yield Path(folder) / "pip" / "pip.conf"
    if sys.platform == "darwin":
        yield Path("/Library/Application Support/pip/pip.conf")
    yield etc / "pip.conf"
    if explicit is None or not Path(explicit).exists():
        yield home / ".pip" / "pip.conf"
        yield config_home / "pip" / "pip.conf"
        if sys.platform == "darwin":
            yield home / "Library" / "Application Support" / "pip" / "pip.conf"
    yield Path(environ.get("VIRTUAL_ENV") or prefix) / "pip.conf"
    if explicit is not None:
        yield Path(explicit)


def _pip_name(name: str) -> str:
    return name.lower().replace("_", "-").removeprefix("--")


def _uv_options(environ: Mapping[str, str], home: Path, etc: Path) -> dict[str, Any]:
    """`default-index` (text), `index` and `find-links` (lists of URLs), `no-index` of uv's settings."""
    options: dict[str, Any] = {}
    for path in _uv_files(environ, home, etc):
        with contextlib.suppress(OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
            options |= _uv_file_options(tomllib.loads(path.read_text(encoding="utf-8")))
    extra = [*environ.get("UV_INDEX", "").split(), *environ.get("UV_EXTRA_INDEX_URL", "").split()]
    if extra:
        options["index"] = [*map(_nameless, extra), *options.get("index", [])]
    if default := environ.get("UV_DEFAULT_INDEX") or environ.get("UV_INDEX_URL"):
        options["default-index"] = _nameless(default)
    if links := environ.get("UV_FIND_LINKS"):
        options["find-links"] = links.split(",")
    if "UV_NO_INDEX" in environ:
        options["no-index"] = is_true(environ["UV_NO_INDEX"])
    return options


def _nameless(entry: str) -> str:
    """The URL of an entry that may be written `name=url`; a URL has no `=` before its scheme."""
    return entry.partition("=")[2] if "=" in entry.partition("://")[0] else entry


def _uv_files(environ: Mapping[str, str], home: Path, etc: Path) -> Iterator[Path]:
    if is_true(environ.get("UV_NO_CONFIG", "")):
        return
    if explicit := environ.get("UV_CONFIG_FILE"):
        yield Path(explicit)
        return
    yield etc / "uv" / "uv.toml"
    yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "uv" / "uv.toml"


def _uv_file_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    declared = [entry for entry in settings.get("index", []) if isinstance(entry, dict) and "url" in entry]
    extra = [entry["url"] for entry in declared if not entry.get("default")]
    extra += settings.get("extra-index-url", [])
    default = next((entry["url"] for entry in declared if entry.get("default")), settings.get("index-url"))
    if extra:
        options["index"] = extra
    if default:
        options["default-index"] = default
    for name in ("find-links", "no-index"):
        if name in settings:
            options[name] = settings[name]
    return options


def _netrc(environ: Mapping[str, str], home: Path) -> netrc.netrc | None:
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc(environ.get("NETRC") or home / ".netrc")
    return None


def is_true(text: str) -> bool:
    """Whether a variable or option says yes, as pip and uv read it."""
    return text.strip().lower() in ("1", "true", "yes", "on", "y", "t")
