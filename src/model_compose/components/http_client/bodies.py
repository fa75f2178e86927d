"""How does a body become bytes, as its `Content-Type` says?"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from model_compose.config.values import shown, to_text
from model_compose.errors import InvalidInput
from model_compose.types import Blob, for_json

_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"
_MULTIPART: Final = "multipart/form-data"
#: Bytes of files from which on a body is made beside the event loop.
_MUCH: Final = 256 << 10


class Body(msgspec.Struct, frozen=True):
    """What is sent, and what it is called; a form of files is put together by the client."""

    content_type: str | None
    content: bytes | None = None
    files: list[tuple[str, Any]] | None = None


async def body_of(value: Any, declared: str | None) -> Body:
    """The bytes of a value. Raises InvalidInput where it cannot be sent as what is declared."""
    if sum(map(len, _files(value))) > _MUCH:
        return await asyncio.to_thread(_body, value, declared)
    return _body(value, declared)


def _body(value: Any, declared: str | None) -> Body:
    if value is None:
        return Body(declared)
    if isinstance(value, str):
        return Body(declared or "text/plain; charset=utf-8", value.encode())
    if isinstance(value, Blob):
        return Body(declared or value.media_type, value.data)
    kind = (declared or _JSON).partition(";")[0].strip().lower()
    if kind == _JSON or kind.endswith("+json"):
        return Body(declared or _JSON, msgspec.json.encode(for_json(value)))
    if kind == _MULTIPART:
        return Body(None, files=list(_fields(_map(value, kind))))
    if kind == _FORM:
        return Body(declared, urlencode(list(_pairs(_map(value, kind)))).encode())
    if isinstance(value, dict | list):
        raise InvalidInput(f"`body`: {shown(value)} cannot be sent as `{kind}`", field="body", hint=_HINT)
    return Body(declared, to_text(value, "body").encode())


_HINT: Final = f"a map is sent as `{_JSON}`, `{_FORM}` or `{_MULTIPART}`"


def _map(value: Any, kind: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInput(f"`body`: `{kind}` takes a map, not {shown(value)}", field="body")
    return value


def _each(value: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, items in value.items():
        for item in items if isinstance(items, list | tuple) else [items]:
            if item is not None:
                yield name, item


def _fields(value: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The fields of a form; a field without a file name is one."""
    for name, item in _each(value):
        if isinstance(item, Blob):
            yield name, (item.name or name, item.data, item.media_type)
        else:
            yield name, (None, to_text(item, name).encode())


def _pairs(value: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, item in _each(value):
        if isinstance(item, Blob):
            hint = f"write `Content-Type: {_MULTIPART}`"
            raise InvalidInput(f"`body`: `{name}` is a file, and `{_FORM}` has none", field="body", hint=hint)
        yield name, to_text(item, name)


def _files(value: Any) -> Iterator[bytes]:
    """What is large in a value."""
    if isinstance(value, Blob):
        yield value.data
    elif isinstance(value, dict):
        for item in value.values():
            yield from _files(item)
    elif isinstance(value, list):
        for item in value[:64]:
            yield from _files(item)
