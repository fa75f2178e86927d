"""How does what a client sends become an image or a file, and what may it name?

A client sends a file as an upload, as a data URI, as base64, or as the URL of one. A URL is fetched only
from public addresses, each hop checked, and connected to the very address that was checked. A file of
this machine is read only where the file says `;path`, from folders that it lists.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import ipaddress
import mimetypes
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

from model_compose.config.network import is_loopback
from model_compose.config.schema import Project
from model_compose.config.values import MEDIA_TYPES, Converter, Type, shown
from model_compose.errors import InvalidInput
from model_compose.types import Blob

if TYPE_CHECKING:
    import ssl

    import httpx2

_UNKNOWN: Final = "application/octet-stream"
_WEB: Final = ("http://", "https://")
_MOST_REDIRECTS: Final = 5
_FETCH_TIMEOUT_S: Final = 30.0
#: At once, over all callers: what is being fetched is not in any queue yet.
_MOST_FETCHES: Final = 8


class Media:
    """Reads files for the components of one project.

    roots  folders that `;path` may reach into
    hosts  hosts whose addresses may be private
    limit  most bytes of a file
    """

    def __init__(self, roots: Sequence[Path], hosts: Sequence[str], limit: int) -> None:
        self._roots = [root.resolve() for root in roots]
        self._hosts = frozenset(host.lower() for host in hosts)
        self._limit = limit
        self._fetching = asyncio.Semaphore(_MOST_FETCHES)

    @classmethod
    def of(cls, project: Project) -> Media:
        """What the controller of a project allows."""
        controller = project.controller
        roots = [project.folder / Path(root).expanduser() for root in controller.file_roots]
        return cls(roots, controller.fetch_hosts, controller.max_body)

    @property
    def converters(self) -> Mapping[str, Converter]:
        """What `as image` and the like do to a value; a URL stays one until a component needs the file."""
        return dict.fromkeys(MEDIA_TYPES, self._convert)

    def _convert(self, value: Any, wanted: Type, field: str) -> Any:
        if isinstance(value, bytes):
            return Blob(_media_type(wanted), value)
        if not isinstance(value, str):
            if isinstance(value, Blob):
                return value
            raise InvalidInput(f"`{field}`: {shown(value)} is no file", field=field, hint=_HINT)
        if wanted.format == "path":
            return self._read(value, field)
        if wanted.format == "url" and not _is_url(value):
            raise InvalidInput(f"`{field}`: {shown(value)} is no http(s) URL", field=field)
        if _is_url(value):
            return value
        return _decoded(value, _media_type(wanted), field)

    async def files(self, value: Any, kind: str, field: str) -> Blob | list[Blob]:
        """The file that a value stands for, or those of a list; `kind` is one of MEDIA_TYPES.

        What the URLs of a list lead to is as large together as a body may be. Raises InvalidInput.
        """
        if not isinstance(value, list):
            return await self._file(value, kind, field, self._limit)
        found: list[Blob] = []
        left = self._limit
        for i, each in enumerate(value):
            blob = await self._file(each, kind, f"{field}[{i}]", left)
            left -= len(blob.data) if isinstance(each, str) and _is_url(each) else 0
            found.append(blob)
        return found

    async def _file(self, value: Any, kind: str, field: str, limit: int) -> Blob:
        found = self._convert(value, Type(kind), field)
        if isinstance(found, Blob):
            return found
        async with self._fetching:
            return await self._fetch(found, field, limit)

    def _read(self, name: str, field: str) -> Blob:
        """A file of this machine, in one of the roots. Whether others exist is not told."""
        refused = InvalidInput(
            f"`{field}`: {shown(name)} is no file in a folder of `controller.file_roots`", field=field
        )
        if "\0" in name:
            raise refused
        for root in self._roots:
            path = (root / name).resolve()
            if not path.is_relative_to(root) or not path.is_file():
                continue
            if path.stat().st_size > self._limit:
                raise self._too_large(field)
            return Blob(mimetypes.guess_type(path.name)[0] or _UNKNOWN, path.read_bytes(), path.name)
        raise refused

    def _too_large(self, field: str) -> InvalidInput:
        return InvalidInput(
            f"`{field}`: the file is larger than {self._limit} bytes",
            field=field,
            hint="raise `controller.max_body`",
        )

    async def _fetch(self, url: str, field: str, limit: int) -> Blob:
        """The file at a URL."""
        import httpx2

        try:
            tls = await asyncio.to_thread(_tls)
            async with (
                asyncio.timeout(_FETCH_TIMEOUT_S),
                httpx2.AsyncClient(trust_env=False, timeout=_FETCH_TIMEOUT_S, verify=tls) as client,
            ):
                for _ in range(_MOST_REDIRECTS + 1):
                    found = await self._get(client, url, field, limit)
                    if isinstance(found, Blob):
                        return found
                    url = found
        except TimeoutError:
            raise _unreachable(url, f"no answer within {_FETCH_TIMEOUT_S:.0f} s", field) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise _unreachable(url, str(error) or type(error).__name__, field) from error
        raise _unreachable(url, f"more than {_MOST_REDIRECTS} redirects", field)

    async def _get(self, client: httpx2.AsyncClient, url: str, field: str, limit: int) -> Blob | str:
        """The file at a URL, or where it redirects to."""
        at = urlsplit(url)
        host, address = await self._checked(url, field)
        authority = f"[{address}]" if ":" in address else address
        request = client.build_request(
            "GET",
            at._replace(netloc=f"{authority}:{at.port}" if at.port else authority, fragment="").geturl(),
            headers={"host": at.netloc, "accept-encoding": "identity"},
            extensions={"sni_hostname": host},
        )
        response = await client.send(request, stream=True)
        try:
            if response.is_redirect:
                return urljoin(url, response.headers["location"])
            if not response.is_success:
                raise _unreachable(url, f"the server answers {response.status_code}", field)
            if response.headers.get("content-encoding", "identity") != "identity":
                raise _unreachable(url, "the server compresses what it sends", field)
            body = bytearray()
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > limit:
                    raise self._too_large(field)
        finally:
            await response.aclose()
        kind = response.headers.get("content-type", _UNKNOWN).partition(";")[0].strip()
        return Blob(kind, bytes(body), Path(at.path).name or None)

    async def _checked(self, url: str, field: str) -> tuple[str, str]:
        """The host of a URL, and an address of it that may be asked. Raises InvalidInput."""
        try:
            at = urlsplit(url)
            host, port = at.hostname or "", at.port
        except ValueError as error:
            raise _unreachable(url, str(error), field) from None
        if at.scheme not in ("http", "https") or not host or at.username or at.password:
            raise _unreachable(url, "it is no http(s) URL without credentials", field)
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port or (443 if at.scheme == "https" else 80), type=socket.SOCK_STREAM
        )
        addresses = [str(each[4][0]) for each in found]
        if host not in self._hosts and not all(map(_is_public, addresses)):
            raise InvalidInput(
                f"`{field}`: `{host}` has no public address",
                field=field,
                hint="send the file itself; the owner of this service may list the host in "
                "`controller.fetch_hosts`",
            )
        return host, addresses[0]


_HINT: Final = "send an upload, a data URI, base64, or an http(s) URL"


@functools.cache
def _tls() -> ssl.SSLContext:
    """The certificates that this machine trusts. Blocks, for some 70 ms the first time."""
    import httpx2

    return httpx2.create_ssl_context(trust_env=False)


def _is_url(text: str) -> bool:
    return text[:8].lower().startswith(_WEB)  # not all of it: a picture is a million characters


def _is_public(address: str) -> bool:
    if is_loopback(address):
        return False
    found = ipaddress.ip_address(address.partition("%")[0])
    inner = None
    if isinstance(found, ipaddress.IPv6Address):
        # Addresses that stand for one of IPv4, by mapping, 6to4 or NAT64.
        nat64 = found in ipaddress.ip_network("64:ff9b::/96")
        inner = found.ipv4_mapped or found.sixtofour
        inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF) if nat64 else inner
    return (inner or found).is_global and not (inner or found).is_multicast


def _unreachable(url: str, why: str, field: str) -> InvalidInput:
    at = url.partition("?")[0]
    return InvalidInput(f"`{field}`: {shown(at)} cannot be fetched: {why}", field=field)


def _media_type(wanted: Type) -> str:
    """`image/png` of `as image/png`; what the bytes really are, nobody has looked at yet."""
    return f"{wanted.name}/{wanted.subtype}" if wanted.subtype else _UNKNOWN


def _decoded(text: str, media_type: str, field: str) -> Blob:
    """A file that is written as a data URI or as base64."""
    if text[: len("data:")].lower() != "data:":
        return Blob(media_type, _base64(text, field))
    head, comma, content = text[len("data:") :].partition(",")
    if not comma:
        raise InvalidInput(f"`{field}`: a data URI without a comma", field=field, hint=_HINT)
    kind = head.partition(";")[0].strip().lower() or "text/plain"
    if head.lower().rstrip().endswith(";base64"):
        return Blob(kind, _base64(content, field))
    return Blob(kind, unquote_to_bytes(content))


def _base64_in(text: str) -> bytes:
    """What is written in a text without line breaks; nothing if that is no base64."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _base64(text: str, field: str) -> bytes:
    found = _base64_in(text) or _base64_in("".join(text.split()))
    if not found:
        raise InvalidInput(
            f"`{field}`: {shown(text)} is neither a data URI, base64, nor an http(s) URL",
            field=field,
            hint=_HINT,
        )
    return found
