"""How does plain data become a struct, and how does its sender learn what is wrong with it?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from model_compose.errors import InvalidInput

_Struct = TypeVar("_Struct", bound=msgspec.Struct)

_WORDS: Final = {
    "float": "a number",
    "int": "an integer",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a map",
}


def converted(values: Mapping[str, Any], struct: type[_Struct], under: str | None = None) -> _Struct:
    """The struct that values make. Raises InvalidInput by the names that their sender knows.

    under  the field that the values are those of
    """
    try:
        return msgspec.convert(values, struct)
    except msgspec.ValidationError as error:
        raise _invalid(error, under) from error


def _invalid(error: msgspec.ValidationError, under: str | None) -> InvalidInput:
    message, _, path = str(error).partition(" - at `$")
    field = ".".join(filter(None, (under, path.strip("`.")))) or None
    if message.startswith("Object missing required field"):
        missing = message.split("`")[1]
        name = f"{field}.{missing}" if field else missing
        return InvalidInput(f"`{name}` is missing", field=name)
    said = message[0].lower() + message[1:]
    for kind, words in _WORDS.items():
        said = said.replace(f"`{kind}`", words)
    return InvalidInput(f"`{field}`: {said}" if field else said, field=field)
