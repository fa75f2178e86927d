"""How does a file come over HTTP so that a broken connection costs only what had not arrived?

Only GET, so trying again is always safe. Not for the Hugging Face hub, whose own library does this.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import httpx2
import msgspec

from model_compose.about import COMMAND, __version__
from model_compose.errors import AccessDenied, Corrupt, SourceError, SourceNotFound, SourceOffline
from model_compose.sources.disk import full_disk_explained, require_room
from model_compose.sources.progress import Progress, stop_if
from model_compose.sources.spec import without_credentials

T = TypeVar("T")

_BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_OF_A_PART: Final = (HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
_TIMEOUT: Final = httpx2.Timeout(30.0, connect=10.0)
_LONGEST_WAIT_S: Final = 30.0

Auth = tuple[str, str]


class Retry(msgspec.Struct, frozen=True):
    """How often to try again in a row without a single new byte, and how long to wait in between.

    The wait doubles each time; a server's `Retry-After` may lengthen it, up to half a minute.
    """

    attempts: int = 5
    first_wait_s: float = 0.5


class Page(msgspec.Struct, frozen=True):
    """A document that was fetched whole; `url` is where redirects led."""

    url: str
    content_type: str
    body: bytes


class Partial:
    """A file on its way: what has come lies in `path`, and the server's ETag beside it.

    Whoever downloads into it holds a lock that keeps others away.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._etag_path = path.with_name(f"{path.name}.etag")

    @property
    def size_bytes(self) -> int:
        """How much has come so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def etag(self) -> str | None:
        """The strong ETag that the server gave the bytes that have come."""
        return self._etag_path.read_text() if self._etag_path.exists() else None

    def begin(self, etag: str | None) -> None:
        """Forget what came and start a file that the server calls `etag`."""
        self.discard()
        if etag and not etag.startswith("W/"):
            self._etag_path.write_text(etag)

    def discard(self) -> None:
        """Remove it."""
        self.path.unlink(missing_ok=True)
        self._etag_path.unlink(missing_ok=True)


class _TryAgain(Exception):
    """The server is busy, or what it sends does not continue what we have."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Http:
    """An HTTP client that tries again, for use in a `with` statement.

    `ca_file` replaces the machine's certificate authorities. Proxies come from the environment.
    """

    def __init__(
        self, *, cancel: threading.Event, ca_file: Path | None = None, retry: Retry | None = None
    ) -> None:
        self._cancel = cancel
        self._ca_file = ca_file
        self._retry = retry or Retry()
        self._opened: httpx2.Client | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is not None:
            self._opened.close()

    @property
    def _client(self) -> httpx2.Client:
        # Made when first needed: reading the certificates takes a while.
        if self._opened is None:
            self._opened = httpx2.Client(
                timeout=_TIMEOUT,
                follow_redirects=True,
                # Ranges and lengths mean the file itself only when nothing is compressed on the way.
                headers={"User-Agent": f"{COMMAND}/{__version__}", "Accept-Encoding": "identity"},
                verify=ssl.create_default_context(cafile=self._ca_file) if self._ca_file else True,
            )
        return self._opened

    def page(
        self, url: str, *, accept: str, auth: Auth | None = None, limit_bytes: int = 100_000_000
    ) -> Page:
        """Fetch a document. Raises SourceNotFound, AccessDenied, SourceOffline or SourceError."""

        def take(response: httpx2.Response) -> Page:
            body = bytearray()
            for chunk in response.iter_bytes():
                stop_if(self._cancel)
                body += chunk
                if len(body) > limit_bytes:
                    raise SourceError(
                        f"the answer of `{without_credentials(url)}` is larger than {limit_bytes} bytes"
                    )
            return Page(str(response.url), response.headers.get("Content-Type", ""), bytes(body))

        return self._get(url, auth, lambda: {"Accept": accept}, take, lambda: 0)

    def download(
        self,
        url: str,
        to: Partial,
        *,
        label: str,
        progress: Progress,
        size_bytes: int | None = None,
        auth: Auth | None = None,
    ) -> None:
        """Fetch a file into `to`, going on from what lies there.

        What has come is kept when the connection or the caller gives up, and removed when the disk is
        full. Raises Corrupt when more comes than `size_bytes`, and what `page` raises.
        """
        if size_bytes is not None and to.size_bytes > size_bytes:
            to.discard()
        progress.start(label, size_bytes, to.size_bytes)
        try:
            with full_disk_explained(to.path.parent, size_bytes, label):
                try:
                    if size_bytes is None or to.size_bytes < size_bytes:
                        self._get(
                            url,
                            auth,
                            lambda: _range_headers(to),
                            lambda response: self._append(response, to, label, progress, size_bytes),
                            lambda: to.size_bytes,
                        )
                except (OSError, Corrupt):
                    to.discard()
                    raise
        finally:
            progress.finish()

    def _append(
        self, response: httpx2.Response, to: Partial, label: str, progress: Progress, size_bytes: int | None
    ) -> None:
        if response.status_code in _OF_A_PART:
            begin, total = _content_range(response)
            if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and total == to.size_bytes:
                return  # we had all of it
            if begin != to.size_bytes:
                progress.advance(-to.size_bytes)
                to.discard()
                raise _TryAgain("it does not continue where the last connection broke")
        else:
            # The whole file comes: the server knows no ranges, or the file has changed since.
            progress.advance(-to.size_bytes)
            to.begin(response.headers.get("ETag"))
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
        expected = size_bytes if size_bytes is not None else total
        if expected is not None:
            require_room(to.path.parent, expected - to.size_bytes, label)
        with to.path.open("ab") as file:
            for chunk in response.iter_raw():
                stop_if(self._cancel)
                file.write(chunk)
                progress.advance(len(chunk))
                if expected is not None and file.tell() > expected:
                    raise Corrupt(f"`{label}` is larger than announced: more than {expected} bytes came")
        if expected is not None and to.size_bytes < expected:
            raise _TryAgain("the connection ended early")

    def _get(
        self,
        url: str,
        auth: Auth | None,
        headers: Callable[[], Mapping[str, str]],
        take: Callable[[httpx2.Response], T],
        position: Callable[[], int],
    ) -> T:
        """Ask until `take` has read an answer. `position` tells whether an attempt got anywhere."""
        failures = 0
        while True:
            stop_if(self._cancel)
            before = position()
            try:
                with self._client.stream("GET", url, headers=dict(headers()), auth=auth) as response:
                    _refuse(response, url)
                    return take(response)
            except (_TryAgain, httpx2.TransportError) as error:
                if _is_certificate_error(error):
                    raise _untrusted(url) from error
                failures = 1 if position() > before else failures + 1
                if failures >= self._retry.attempts:
                    raise _given_up(url, error, position()) from error
                wait_s = self._retry.first_wait_s * 2 ** (failures - 1)
                if isinstance(error, _TryAgain):
                    wait_s = max(wait_s, error.wait_s)
                self._cancel.wait(min(wait_s, _LONGEST_WAIT_S))
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                raise SourceError(
                    f"cannot fetch `{without_credentials(url)}`: {type(error).__name__}"
                ) from error


def _range_headers(to: Partial) -> dict[str, str]:
    size_bytes = to.size_bytes
    if size_bytes == 0:
        return {}
    headers = {"Range": f"bytes={size_bytes}-"}
    if to.etag is not None:
        # Without one, the hash of the whole file tells whether the parts belong together.
        headers["If-Range"] = to.etag
    return headers


def _content_range(response: httpx2.Response) -> tuple[int, int | None]:
    """First byte and total size that `Content-Range: bytes 5-9/10` states; -1 and None where it does not."""
    span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    begin = span.partition("-")[0]
    return int(begin) if begin.isdigit() else -1, int(total) if total.isdigit() else None


def _refuse(response: httpx2.Response, url: str) -> None:
    status = response.status_code
    shown = without_credentials(url)
    asked_for_a_part = "Range" in response.request.headers
    if status == HTTPStatus.OK or (asked_for_a_part and status in _OF_A_PART):
        return
    if status in _BUSY:
        after = response.headers.get("Retry-After", "")
        raise _TryAgain(f"it answers {status}", float(after) if after.isdigit() else 0.0)
    if status in (401, 403):
        raise AccessDenied(f"`{shown}` answers {status}: access denied")
    if status in (404, 410):
        raise SourceNotFound(f"`{shown}` does not exist ({status})")
    raise SourceError(f"`{shown}` answers {status}")


def _given_up(url: str, error: Exception, kept_bytes: int) -> SourceError:
    host = httpx2.URL(url).host
    reason = str(error) or type(error).__name__
    hint = (
        "what has come is kept: the next try goes on from there"
        if kept_bytes
        else "check the network and the address"
    )
    if isinstance(error, _TryAgain):
        return SourceError(f"`{host}` could not be read: {reason}", hint=hint)
    return SourceOffline(f"`{host}` cannot be reached: {reason}", hint=hint)


def _is_certificate_error(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _untrusted(url: str) -> SourceError:
    return SourceError(
        f"the certificate of `{httpx2.URL(url).host}` is signed by nobody that this machine trusts",
        hint="set `SSL_CERT_FILE` (or pip's `PIP_CERT`) to the file with your certificate authority",
    )
