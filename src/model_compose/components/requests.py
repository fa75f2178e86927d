"""How do the values of an action become a request?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from model_compose.config.expression import Scope, render
from model_compose.config.schema import Action
from model_compose.errors import InvalidInput
from model_compose.types import plain

Request = TypeVar("Request", bound=msgspec.Struct)


def values_of(action: Action, scope: Scope) -> dict[str, Any]:
    """The values of an action in plain form; null is as good as not given.

    What is to be rendered later (`ActionSpec.late`) is not among them.
    """
    rendered = {n: plain(render(t, scope)) for n, t in action.values.items() if n not in action.spec.late}
    return {name: value for name, value in rendered.items() if value is not None}


def request_of(values: Mapping[str, Any], request: type[Request]) -> Request:
    """The request that values make. Raises InvalidInput by the names that its sender knows."""
    try:
        return msgspec.convert(values, request)
    except msgspec.ValidationError as error:
        raise _invalid(error) from error


_WORDS: Final = {
    "float": "a number",
    "int": "an integer",
    "str": "text",
    "bool": "true or false",
    "array": "a list",
    "object": "a map",
}


def _invalid(error: msgspec.ValidationError) -> InvalidInput:
    """What is wrong with a request, by the names that its sender knows."""
    message, _, path = str(error).partition(" - at `$")
    field = path.strip("`.") or None
    if message.startswith("Object missing required field"):
        missing = message.split("`")[1]
        name = f"{field}.{missing}" if field else missing
        return InvalidInput(f"`{name}` is missing", field=name)
    said = message[0].lower() + message[1:]
    for kind, words in _WORDS.items():
        said = said.replace(f"`{kind}`", words)
    return InvalidInput(f"`{field}`: {said}" if field else said, field=field)
