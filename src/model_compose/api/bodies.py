"""What does the body of a request for a run say?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Scope

from model_compose.api.asgi import header
from model_compose.config.spec import fields_of
from model_compose.errors import BadRequest, InvalidInput, did_you_mean
from model_compose.types import Blob


class RunRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request to run a workflow.

    workflow_id          default: the default workflow
    wait_for_completion  false answers at once, with the id of a task to ask for
    output_only          the output is the whole body, not a part of it
    stream               send the output as server-sent events while it is made
    """

    workflow_id: str | None = None
    input: Any = None
    wait_for_completion: bool = True
    output_only: bool = False
    stream: bool = False


Struct = TypeVar("Struct", bound=msgspec.Struct)

_json = msgspec.json.Decoder(RunRequest)
_any_json = msgspec.json.Decoder(Any)
_JSON: Final = b"application/json"
_ENCODED: Final = b"application/x-www-form-urlencoded"
_MULTIPART: Final = b"multipart/form-data"

#: Levels of maps and lists that a value may have: what walks through it may take them one by one.
MOST_LEVELS: Final = 128

#: Fields of a form, and of these so many files.
MOST_FIELDS: Final = 1000

#: Names that other versions of this API know.
_LATER = ("session_id", "metadata", "subscribe_task", "callback_url", "callback_headers")


async def run_request(scope: Scope, body: bytes) -> RunRequest:
    """The request in a body of any media type that we take. Raises BadRequest, InvalidInput."""
    if not is_form(scope):
        request: RunRequest = _decoded(scope, body, _json)
        _refuse_levels(body, request.input)
        return request
    return converted_body(await _form(scope, body), RunRequest, texts=True)


async def fields_in(scope: Scope, body: bytes) -> dict[str, Any]:
    """The fields that a body has, null ones left out; those of a form are texts and files.

    Raises BadRequest, InvalidInput.
    """
    if is_form(scope):
        found = await _form(scope, body)
    else:
        found = _decoded(scope, body, _any_json)
        _refuse_levels(body, found)
    if not isinstance(found, dict):
        raise BadRequest("the body is no JSON object")
    return {name: value for name, value in found.items() if value is not None}


def _decoded(scope: Scope, body: bytes, decoder: msgspec.json.Decoder[Any]) -> Any:
    if _media_type(scope) != _JSON:
        shown = header(scope, b"content-type").decode(errors="replace") or "none"
        hint = "send `Content-Type: application/json`, or a form"
        raise BadRequest(f"the body has media type `{shown}`, which is not understood", hint=hint)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    except RecursionError:
        raise _too_deep() from None


async def _form(scope: Scope, body: bytes) -> dict[str, Any]:
    """The fields of a form: nested keys (`input[a][b]`) as maps."""
    values: dict[str, Any] = {}
    if _media_type(scope) == _ENCODED:
        for key, text in texts_of(body):
            _put(values, key, text)
        return values
    form = await _multipart(scope, body)
    try:
        for key, value in form.multi_items():
            _put(values, key, await _part(value))
    finally:
        await form.close()
    return values


def is_form(scope: Scope) -> bool:
    """Whether the body of a request is a form, whose values are all texts."""
    return _media_type(scope) in (_ENCODED, _MULTIPART)


def _media_type(scope: Scope) -> bytes:
    return header(scope, b"content-type").partition(b";")[0].strip().lower()


def refuse_deep(body: bytes) -> None:
    """Raise BadRequest for JSON with more levels than are taken."""
    if _may_be_deep(body):
        _refuse_levels(body, msgspec.json.decode(body))


def _refuse_levels(body: bytes, value: Any) -> None:
    if _may_be_deep(body) and _levels_exceed(value):
        raise _too_deep()


def _may_be_deep(body: bytes) -> bool:
    """Most bodies have too few brackets for that, which is cheap to see."""
    return body.count(b"[") + body.count(b"{") > MOST_LEVELS


def _levels_exceed(value: Any) -> bool:
    level: Sequence[Any] = [value]
    for _ in range(MOST_LEVELS):
        maps = [inner for each in level if isinstance(each, dict) for inner in each.values()]
        level = maps + [inner for each in level if isinstance(each, list) for inner in each]
        if not level:
            return False
    return True


def _too_deep() -> BadRequest:
    return BadRequest(
        "the body is nested too deeply", hint=f"{MOST_LEVELS} levels of maps and lists are taken"
    )


async def _multipart(scope: Scope, body: bytes) -> FormData:
    async def pieces() -> Any:
        yield body

    try:
        parser = MultiPartParser(
            Headers(scope=scope), pieces(), max_fields=MOST_FIELDS, max_files=MOST_FIELDS
        )
        parser.max_part_size = parser.spool_max_size = (
            len(body) + 1
        )  # it is in memory: nothing goes to the disk
        return await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise BadRequest(f"the form cannot be read: {error}") from error


async def _part(value: str | UploadFile) -> str | Blob:
    if isinstance(value, str):
        return value
    return Blob(value.content_type or "application/octet-stream", await value.read(), value.filename)


def texts_of(body: bytes) -> list[tuple[str, str]]:
    """The fields of a form that has no files. Raises BadRequest."""
    try:
        return parse_qsl(body.decode(errors="replace"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise BadRequest(f"the form has more than {MOST_FIELDS} fields") from None


def converted_body(values: dict[str, Any], struct: type[Struct], *, texts: bool) -> Struct:
    """Fields as a struct; `texts` become what the fields want. Raises InvalidInput."""
    try:
        return msgspec.convert(values, struct, strict=not texts)
    except msgspec.ValidationError as error:
        raise _invalid(error) from error


def _put(values: dict[str, Any], key: str, value: str | Blob) -> None:
    """Several files under one key, which is what a form has for them, are a list."""
    if key.count("[") >= MOST_LEVELS:
        raise _too_deep()
    names = key.replace("]", "").split("[")
    for name in names[:-1]:
        inner = values.setdefault(name, {})
        if not isinstance(inner, dict):
            raise InvalidInput(f"`{key}` is both a value and a map", field=key)
        values = inner
    last = names[-1]
    if isinstance(value, Blob) and isinstance(values.get(last), Blob | list):
        before = values[last] if isinstance(values[last], list) else [values[last]]
        values[last] = [*before, value]
        return
    if last in values:
        raise InvalidInput(f"`{key}` is given twice", field=key)
    values[last] = value


def _invalid(error: msgspec.ValidationError) -> InvalidInput:
    message = str(error)
    if message.startswith("Object contains unknown field"):
        name = message.split("`")[1]
        if name in _LATER:
            return InvalidInput(f"`{name}` is known, and not supported yet", field=name)
        hint = did_you_mean(name, (field.name for field in fields_of(RunRequest)))
        return InvalidInput(f"unknown field `{name}`", field=name, hint=hint)
    said, _, path = message.partition(" - at `$")
    known = path.partition("[...]")[0]  # where a key of a map is on the way, msgspec does not say which
    return InvalidInput(said[0].lower() + said[1:], field=known.strip("`.") or None)
