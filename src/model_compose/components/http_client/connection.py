"""How does a request reach a server, and when is it sent again?"""

from __future__ import annotations

import asyncio
import contextlib
import http
import itertools
import logging
import os
import re
import time
from collections.abc import Collection, Iterator
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, quote, urljoin, urlsplit

import msgspec

from model_compose.about import __version__
from model_compose.components.http_client.bodies import Body
from model_compose.components.http_client.spec import IDEMPOTENT, HttpKeys, Retry
from model_compose.components.http_client.urls import origin, public
from model_compose.errors import InvalidInput, ModelComposeError, TimedOut, UpstreamError

if TYPE_CHECKING:
    import httpx2

#: A server may close an idle connection after 5 s, which a request must not meet.
_KEEP_ALIVE_S: Final = 4.0
_MOST_IDLE: Final = 100
_MOST_REDIRECTS: Final = 5
_TRY_AGAIN: Final = frozenset({429, 502, 503, 504})
#: Of a response that is an error: what is looked at, and what is shown.
_LOOKED_AT: Final = 64 << 10
_SHOWN: Final = 2 << 10
_SHOWN_IN_MESSAGE: Final = 200
_HARMLESS: Final = frozenset({"accept", "accept-encoding", "content-type", "user-agent"})
_SHORTEST_SECRET: Final = 4
#: Names of parameters of a query whose values are nobody else's business.
_SECRET: Final = re.compile("key|token|secret|password|auth|sig", re.IGNORECASE)
_BREAKS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class Request(msgspec.Struct, frozen=True):
    """What is sent."""

    method: str
    url: str
    headers: dict[str, str]
    body: Body

    def secrets(self) -> Iterator[str]:
        """Values that no message shows."""
        for name, value in self.headers.items():
            if name.lower() not in _HARMLESS:
                yield from (part for part in (value, *value.split()) if len(part) >= _SHORTEST_SECRET)
        for name, value in parse_qsl(urlsplit(self.url).query):
            if _SECRET.search(name) and len(value) >= _SHORTEST_SECRET:
                yield from (value, quote(value, safe=""))


class Connection:
    """One pool of connections, made when it is first needed."""

    def __init__(self, name: str, keys: HttpKeys, proxy: str | None) -> None:
        self.name = name
        self._keys = keys
        self._proxy = proxy
        self._making: asyncio.Task[httpx2.AsyncClient] | None = None

    def start(self) -> None:
        """Begin to make the pool, so that the first call need not wait for it."""
        # A task: certificates are read in a thread, and who is cancelled meanwhile stops no other call.
        if self._making is None:
            self._making = asyncio.create_task(asyncio.to_thread(self._made))

    async def aclose(self) -> None:
        """Close every connection."""
        if self._making is not None:
            making, self._making = self._making, None
            await (await making).aclose()

    async def send(self, request: Request) -> httpx2.Response:
        """The successful response to a request, its body still to be read. Raises UpstreamError, TimedOut."""
        retry = self._keys.retry or Retry(max_attempt_count=1)
        again = request.method in IDEMPOTENT or retry.idempotent
        for attempt in itertools.count(1):
            last = not again or attempt >= retry.max_attempt_count
            try:
                response = await self._follow(request)
            except _Unreachable as error:
                if last:
                    raise error.told from error.__cause__
                pause = _pause(retry, attempt)
            else:
                if response.is_success:
                    return response
                asked = _asked_for(response)
                pause = max(_pause(retry, attempt), asked)
                if last or response.status_code not in _TRY_AGAIN or asked > retry.max_delay:
                    raise await self._refused(request, response)
                await response.aclose()
            await asyncio.sleep(pause)
        raise AssertionError  # the loop has no end

    async def _follow(self, request: Request) -> httpx2.Response:
        """The response, after redirects within the same server."""
        url = request.url
        for _ in range(_MOST_REDIRECTS + 1):
            response = await self._once(request, url)
            if not _redirects(request.method, response):
                return response
            to = urljoin(url, response.headers["location"])
            await response.aclose()
            if origin(to) != origin(url) and not _is_upgrade(url, to):
                raise UpstreamError(
                    f"`{self.name}`: {_where(url)} redirects to another server, `{public(to)}`",
                    upstream_status=response.status_code,
                    hint="write that URL in the file, if it is the right one",
                )
            url = to
        raise UpstreamError(f"`{self.name}`: {_where(url)}: more than {_MOST_REDIRECTS} redirects")

    async def _once(self, request: Request, url: str) -> httpx2.Response:
        client = await self._client()
        with self.errors(url, sending=True):
            headers = [(name.encode(), value.encode()) for name, value in request.headers.items()]
            built = client.build_request(
                request.method, url, headers=headers, content=request.body.content, files=request.body.files
            )
            if request.body.content_type is not None:
                built.headers["content-type"] = request.body.content_type
            return await client.send(built, stream=True)

    async def _client(self) -> httpx2.AsyncClient:
        self.start()
        assert self._making is not None
        return await asyncio.shield(self._making)

    def _made(self) -> httpx2.AsyncClient:
        from http.cookiejar import CookieJar, DefaultCookiePolicy

        import httpx2

        # It logs each URL with its query, which may have a key in it.
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        timeouts = self._keys.timeouts
        client = httpx2.AsyncClient(
            trust_env=False,
            proxy=self._proxy,
            timeout=httpx2.Timeout(timeouts.read, connect=timeouts.connect, pool=None),
            limits=httpx2.Limits(
                max_connections=None, max_keepalive_connections=_MOST_IDLE, keepalive_expiry=_KEEP_ALIVE_S
            ),
            headers={"user-agent": f"model-compose/{__version__}", "accept-encoding": "identity"},
            follow_redirects=False,
            # What a server remembers of one caller is not for the next.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )
        client.headers.pop("connection", None)
        return client

    @contextlib.contextmanager
    def errors(self, url: str, *, sending: bool = False) -> Iterator[None]:
        """Say what went wrong on the way as one of our errors; `_Unreachable` if it may be tried again."""
        import httpx2

        try:
            yield
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError) as error:
            raise InvalidInput(f"`{self.name}`: this cannot be sent to {_where(url)}: {error}") from error
        except httpx2.ConnectTimeout as error:
            told: ModelComposeError = TimedOut(
                f"`{self.name}`: {_where(url)} could not be reached within {self._keys.timeouts.connect:g} s",
                hint="is the server running? `timeouts.connect` says how long to try",
            )
            raise _Unreachable(told) from error
        except httpx2.TimeoutException as error:
            raise TimedOut(
                f"`{self.name}`: {_where(url)} sent nothing for {self._keys.timeouts.read:g} s",
                hint="`timeouts.read` says how long to wait",
            ) from error
        except httpx2.ProxyError as error:
            raise _Unreachable(UpstreamError(f"`{self.name}`: the proxy refuses: {error}")) from error
        except httpx2.ConnectError as error:
            told = UpstreamError(
                f"`{self.name}`: {_where(url)} cannot be reached: {_reason(error)}",
                hint="is the server running, and is this its address?",
            )
            raise _Unreachable(told) from error
        except httpx2.HTTPError as error:
            if sending:
                told = UpstreamError(f"`{self.name}`: {_where(url)} hung up before it answered")
                raise _Unreachable(told) from error
            raise UpstreamError(
                f"`{self.name}`: {_where(url)} hung up in the middle of its answer: {_reason(error)}"
            ) from error

    async def _refused(self, request: Request, response: httpx2.Response) -> UpstreamError:
        """What a response says that is none of success."""
        body = bytearray()
        try:
            with contextlib.suppress(ModelComposeError), self.errors(request.url):
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) >= _LOOKED_AT:
                        break
        finally:
            await response.aclose()
        text = without_secrets(bytes(body[:_LOOKED_AT]).decode("utf-8", "replace"), [*request.secrets()])
        said = _said(text)
        status = response.status_code
        return UpstreamError(
            f"`{self.name}`: {_where(request.url)} answered {_status_words(status)}"
            + (f": {said[:_SHOWN_IN_MESSAGE]}" if said else ""),
            upstream_status=status,
            upstream_body=text[:_SHOWN] or None,
            hint=_HINTS.get(status),
        )


class _Unreachable(Exception):
    """The request did not arrive, or nothing came back: it may be sent again."""

    def __init__(self, told: ModelComposeError) -> None:
        super().__init__(told.message)
        self.told = told


_HINTS: Final = {
    401: "look at the component's `headers`: the server wants to know who asks",
    403: "look at the component's `headers`: the server does not let this caller in",
    404: "look at the URL, and at what the body names",
    405: "look at `method`",
    429: "the server wants fewer calls: `max_concurrent_count` bounds them, and `retry` waits",
}


def header_value(name: str, value: str) -> str:
    """A value that is safe to send as a header. Raises InvalidInput."""
    if _BREAKS.search(value):
        raise InvalidInput(f"`headers`: `{name}` would have a line break or another control character")
    return value.strip()


def without_secrets(text: str, secrets: Collection[str]) -> str:
    """A text in which no secret can be read."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def said_in(value: Any) -> str | None:
    """What a JSON value says went wrong, in the usual places."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        for key in ("error", "message", "detail", "error_message"):
            found = said_in(value.get(key))
            if found:
                return found
    return None


def _said(text: str) -> str:
    try:
        found = said_in(msgspec.json.decode(text))
    except (msgspec.DecodeError, RecursionError):
        found = None
    if found is None and not text.lstrip().startswith(("<", "{", "[")):
        found = text
    return " ".join((found or "").split())


def _status_words(status: int) -> str:
    try:
        return f"{status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _where(url: str) -> str:
    return f"`{public(url)}`"


def _reason(error: BaseException) -> str:
    """What the system said, if it said something."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno)
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        else:
            cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__


def _redirects(method: str, response: httpx2.Response) -> bool:
    if "location" not in response.headers or method not in IDEMPOTENT:
        return False
    read_only = method in ("GET", "HEAD")
    return response.status_code in ((301, 302, 303, 307, 308) if read_only else (307, 308))


def _is_upgrade(url: str, to: str) -> bool:
    """Whether it is the same host, only encrypted."""
    before, after = origin(url), origin(to)
    return before[1] == after[1] and (before[0], before[2]) == ("http", 80) and after[::2] == ("https", 443)


def _pause(retry: Retry, attempt: int) -> float:
    factor = 2 ** min(attempt - 1, 30) if retry.backoff == "exponential" else 1
    return min(retry.delay * factor, retry.max_delay)


def _asked_for(response: httpx2.Response) -> float:
    """How many seconds the server wants to be left alone."""
    after = response.headers.get("retry-after", "").strip()
    if after.isascii() and after.isdecimal():
        return float(after)
    try:
        return max(0.0, parsedate_to_datetime(after).timestamp() - time.time())
    except ValueError:
        return 0.0
