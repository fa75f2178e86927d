"""Which URL do `base_url`, `path` or `endpoint` make, with values of an input in them?

What stands in the file stands in the URL; what comes from elsewhere is percent-encoded as one value, so
that it can be no further segment, no query and no host.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from msgspec import UNSET

from model_compose.components.http_client.spec import problem_of_url
from model_compose.config.expression import Reference, Scope, Template
from model_compose.config.schema import Tree
from model_compose.config.values import to_text
from model_compose.errors import InvalidInput, UpstreamError

_DOTS: Final = frozenset({".", ".."})


def url_of(
    parts: Mapping[str, Tree], params: Any, scope: Scope, base_url: str | None, first: str | None
) -> str:
    """The URL of a call.

    parts   compiled `endpoint` or `path`
    params  the rendered query
    first   URL of the call whose answer may name this one, if there was one
    Raises InvalidInput, and UpstreamError when an answer names another server.
    """
    endpoint = parts.get("endpoint")
    if isinstance(endpoint, Reference):
        url = _named(endpoint, scope, first)
    elif endpoint is not None and endpoint is not UNSET:
        url = _text(endpoint, scope, "endpoint")
    else:
        if parts.get("path") is None:
            raise InvalidInput("neither `endpoint` nor `path` says where the call goes")
        path = _text(parts["path"], scope, "path")
        url = f"{(base_url or '').rstrip('/')}/{path.lstrip('/')}"
    query = _query(params)
    if query:
        url += ("&" if "?" in url else "?") + query
    return url


def origin(url: str) -> tuple[str, str, int]:
    """What two URLs of the same server have in common."""
    at = urlsplit(url)
    scheme = at.scheme.lower()
    return scheme, (at.hostname or "").lower(), at.port or (443 if scheme == "https" else 80)


def public(url: str) -> str:
    """A URL as messages show it: without its query, which may have a key in it."""
    return url.partition("?")[0].partition("#")[0]


def _named(reference: Reference, scope: Scope, first: str | None) -> str:
    """A URL that the same server has named."""
    url = reference.render(scope)
    if not isinstance(url, str) or problem_of_url(url) is not None:
        raise UpstreamError(f"`{reference.text}` is no URL: {url!r:.80}")
    if first is None or origin(url) != origin(first):
        raise UpstreamError(
            f"`{reference.text}` leads to another server: `{public(url)}`",
            hint="write the URL in the file, with `${...}` only in its path",
        )
    return url


def _text(tree: Tree, scope: Scope, name: str) -> str:
    if isinstance(tree, str):
        return tree
    pieces = (tree,) if isinstance(tree, Reference) else tree.parts if isinstance(tree, Template) else ()
    text = ""
    for piece in pieces:
        if isinstance(piece, str):
            text += piece
            continue
        value = to_text(piece.render(scope), piece.field)
        if not value and "?" not in text:
            raise InvalidInput(f"`{piece.field}` is empty, and a part of `{name}`", field=piece.field)
        text += quote(value, safe="")
    path = text.partition("?")[0]
    if name == "endpoint":
        path = urlsplit(path).path
    if not _DOTS.isdisjoint(path.split("/")):
        raise InvalidInput(f"`{name}` would leave its folder: it has a segment `.` or `..`")
    return text


def _query(params: Any) -> str:
    if not params:
        return ""
    pairs = []
    for name, value in params.items():
        values = value if isinstance(value, list | tuple) else [value]
        pairs += [(name, to_text(each, name)) for each in values if each is not None]
    return urlencode(pairs, quote_via=quote)
