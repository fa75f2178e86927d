"""What does a value become under `as type`, as text, and beside another value?

`convert` is the table of types of `${... as T}`, `to_text` is what an expression leaves in the middle
of a text, and `holds` is the table of comparisons of conditions.
"""

from __future__ import annotations

import base64
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from model_compose.config.scalars import resolve
from model_compose.errors import InvalidInput
from model_compose.types import Blob, Result, Unfinished, for_json, plain

TEXT_TYPES = frozenset({"string", "text", "markdown"})
MEDIA_TYPES = frozenset({"image", "audio", "video", "file"})
TYPES = frozenset(
    {"number", "integer", "boolean", "json", "object", "list", "base64", "select", "slider", "stream"}
    | TEXT_TYPES
    | MEDIA_TYPES
)
STREAM_FORMATS = frozenset({"stream", "sse-text", "sse-json"})
"""Old spellings of `stream/text` and `stream/json`; on a media type, `stream` is a format."""
MEDIA_FORMATS = frozenset({"base64", "url", "path", "data-uri", "stream"})
FORMATS = MEDIA_FORMATS | STREAM_FORMATS

LISTS = (list, tuple)


class Type(msgspec.Struct, frozen=True):
    """What stands after `as`, such as `object[]/a,b.c`, `image/png;base64` or `slider/0,2,0.1`.

    name        one of TYPES
    many        `[]` follows the name: a list, element by element
    subtype     `png` of `image/png`, `json` of `stream/json`
    options     the choices of a select; minimum, maximum and step of a slider; the paths of `object[]/a,b.c`
    attributes  name and text of each: `rate=16000` of `audio/pcm[rate=16000]`
    format      how the value of a media type is written down: one of MEDIA_FORMATS
    lists       a text or media type in a slot that takes a list of them: a list stays a list
    """

    name: str
    many: bool = False
    subtype: str | None = None
    options: tuple[str, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    format: str | None = None
    lists: bool = False

    @property
    def is_text(self) -> bool:
        """Whether it makes a text of anything."""
        return self.name in TEXT_TYPES

    def problem(self) -> str | None:
        """What does not go together in this type, if anything."""
        if self.format is not None and (self.name not in MEDIA_TYPES or self.format not in MEDIA_FORMATS):
            return f"`{self.name}` has no format `{self.format}`"
        if self.name == "stream" and (self.many or self.subtype not in {None, "text", "json"}):
            return "a stream is `stream/text` or `stream/json`"
        if self.name == "select" and not (self.options and all(self.options)):
            return "a select names its options: `select/a,b`"
        if self.name == "slider":
            numbers = [type(resolve(option)) in {int, float} for option in self.options]
            if len(numbers) not in {2, 3} or not all(numbers):
                return "a slider names minimum, maximum and step: `slider/0,2,0.1`"
        if self.name == "object":
            routes = [option.split(".") for option in self.options]
            if not all(map(all, routes)) or len({route[-1] for route in routes}) < len(routes):
                return "the fields of `object[]/a,b.c` have different last names"
        return None


Converter = Callable[[Any, Type, str], Any]
"""(value, type, field) -> value; raises InvalidInput that names the field."""

Converters = Mapping[str, Converter]
"""What `image`, `audio`, `video` and `file` do, by name, and `base64` for what is neither bytes nor text.

Without a converter a media value stays as it is: outputs are rendered so.
"""


def convert(value: Any, wanted: Type, field: str, converters: Converters) -> Any:
    """`value` as the `wanted` type; null stays null.

    Raises InvalidInput that names the `field`.
    """
    if value is None:
        return None
    if not (wanted.many or (wanted.lists and isinstance(value, LISTS))):
        return _convert_one(value, wanted, field, converters)
    if wanted.name == "object":
        return _project(value, wanted.options)
    return [
        None if item is None else _convert_one(item, wanted, f"{field}[{index}]", converters)
        for index, item in enumerate(_list(value, field))
    ]


def _convert_one(value: Any, wanted: Type, field: str, converters: Converters) -> Any:
    if isinstance(value, Unfinished) and wanted.is_text:
        return value
    conversion = _CONVERSIONS.get(wanted.name)
    if conversion is not None:
        return conversion(value, field)
    value = plain(value)
    if wanted.name == "base64" and isinstance(value, str | bytes | bytearray | memoryview | Blob):
        octets = value.data if isinstance(value, Blob) else value
        octets = octets.encode() if isinstance(octets, str) else octets
        return base64.b64encode(octets).decode("ascii")
    converter = converters.get(wanted.name)
    if converter is not None:
        return converter(value, wanted, field)
    if wanted.name == "base64":
        raise _wrong(value, "bytes or a text", field)
    return value.data_uri() if isinstance(value, Blob) and wanted.format == "data-uri" else value


def to_text(value: Any, field: str) -> str:
    """`value` in the middle of a text: null is empty, maps and lists are JSON, bytes are UTF-8."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            raise InvalidInput(f"`{field}`: these bytes are not UTF-8 text", field=field) from None
    if isinstance(value, Result):
        return to_text(value.plain(), field)
    if isinstance(value, Blob):
        return value.data_uri()
    try:
        return msgspec.json.encode(for_json(value), enc_hook=_refuse).decode()
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
        raise InvalidInput(
            f"`{field}`: a `{type(value).__name__}` cannot be written as text", field=field
        ) from None


def _refuse(value: Any) -> Any:
    raise TypeError(type(value).__name__)


def _number(value: Any, field: str) -> float:
    number = _float(value)
    if not math.isfinite(number):
        raise _wrong(value, "a number", field)
    return number


def _integer(value: Any, field: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and "_" not in value:
        # Not through float: digits beyond 2**53 would be lost.
        try:
            return int(value)
        except ValueError:
            pass
    number = _float(value)
    if not number.is_integer():
        raise _wrong(value, "an integer", field)
    return int(number)


def _float(value: Any) -> float:
    """The number that `value` writes down, or NaN; `true` and Python's `1_000` are none."""
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _boolean(value: Any, field: str) -> bool:
    return str(value).lower() in {"true", "1"}


def _json(value: Any, field: str) -> Any:
    value = plain(value)
    return _parsed(value, "JSON", field) if isinstance(value, str | bytes) else value


def _parsed(value: str | bytes, what: str, field: str) -> Any:
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise _wrong(value, what, field) from None


def _object(value: Any, field: str) -> Any:
    value = plain(value)
    found = _parsed(value, "a map", field) if isinstance(value, str | bytes) else value
    if not isinstance(found, dict):
        raise _wrong(value, "a map", field)
    return found


def _list(value: Any, field: str) -> list[Any]:
    value = plain(value)
    if isinstance(value, LISTS):
        return list(value)
    if isinstance(value, str | bytes):
        text = to_text(value, field).strip()
        if not text.startswith(("[", "{")):
            parts = text.splitlines() if "\n" in text else text.split(",")
            return [part.strip() for part in parts] if text else []
        value = _parsed(text, "a list", field)
    if not isinstance(value, list):
        raise _wrong(value, "a list", field)
    return value


def _project(value: Any, paths: tuple[str, ...]) -> list[Any]:
    """The maps of a list (or of its JSON) with only `paths` of each, under the last name of the path.

    What is no list gives an empty one; no paths keep the maps whole.
    """
    if isinstance(value, str | bytes):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return []
    value = plain(value)
    if not isinstance(value, list) or not paths:
        return value if isinstance(value, list) else []
    routes = [path.split(".") for path in paths]
    return [{route[-1]: _walk(item, route) for route in routes} for item in value]


def _walk(value: Any, names: list[str]) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _wrong(value: Any, what: str, field: str) -> InvalidInput:
    return InvalidInput(f"`{field}`: {shown(value)} is not {what}", field=field)


def shown(value: Any) -> str:
    """`value` in backticks, short enough for one line of a message."""
    if isinstance(value, Blob):
        return f"a file of {len(value.data)} bytes"
    try:
        text = msgspec.json.encode(for_json(value), enc_hook=_refuse).decode()
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
        return f"a `{type(value).__name__}`"
    return f"`{text}`" if len(text) <= 80 else f"`{text[:77]}...`"


_CONVERSIONS: dict[str, Callable[[Any, str], Any]] = {
    **dict.fromkeys(TEXT_TYPES, to_text),
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "json": _json,
    "object": _object,
    "list": _list,
}


def holds(comparison: str, left: Any, right: Any) -> bool:
    """Whether `left` stands in that relation to `right`; `comparison` is one of COMPARISONS.

    Null is equal to null, in a list that has it, and in no other relation to anything. `match` is a
    regular expression (text or compiled) at the start of `left`. Raises InvalidInput where the two
    cannot be compared at all, such as a text and a number by `gt`.
    """
    try:
        return COMPARISONS[comparison](plain(left), plain(right))
    except TypeError:
        raise InvalidInput(
            f"`{comparison}` cannot compare {shown(left)} with {shown(right)}",
            hint="convert one of them, such as `${input.x as number}`",
        ) from None
    except re.error as error:
        raise InvalidInput(f"{shown(right)} is not a regular expression: {error}") from None


def _ordered(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], bool]:
    return lambda left, right: left is not None and right is not None and bool(compare(left, right))


def _in(left: Any, right: Any) -> bool:
    if right is None or (left is None and not isinstance(right, list)):
        return False
    return left in right


def _match(left: Any, right: Any) -> bool:
    return left is not None and right is not None and re.match(right, to_text(left, "match")) is not None


def _starts_with(left: Any, right: Any) -> bool:
    return left is not None and right is not None and to_text(left, "starts-with").startswith(right)


def _ends_with(left: Any, right: Any) -> bool:
    return left is not None and right is not None and to_text(left, "ends-with").endswith(right)


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "neq": operator.ne,
    "gt": _ordered(operator.gt),
    "gte": _ordered(operator.ge),
    "lt": _ordered(operator.lt),
    "lte": _ordered(operator.le),
    "in": _in,
    "not-in": lambda left, right: not _in(left, right),
    "match": _match,
    "starts-with": _starts_with,
    "ends-with": _ends_with,
}
