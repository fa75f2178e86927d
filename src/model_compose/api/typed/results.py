"""How does the result of a task look as JSON, with all that it knows?"""

from __future__ import annotations

import typing
from typing import Any, Final

import msgspec

from model_compose.config.annotations import bare, is_struct, members
from model_compose.tasks.generation import TextDelta
from model_compose.types import Blob

_NUMBERS: Final = frozenset({float, int})


def written(value: Any) -> Any:
    """A result as JSON values: a map for each struct, without what is null; a data URI for each file."""
    if isinstance(value, Blob):
        return value.data_uri()
    if isinstance(value, msgspec.Struct):
        names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
        fields = ((name, getattr(value, field)) for name, field in names)
        return {name: written(each) for name, each in fields if each is not None}
    if isinstance(value, dict):
        return {key: written(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        # A vector has hundreds of them.
        return value if _NUMBERS.issuperset(map(type, value)) else [written(each) for each in value]
    return value


def encoded(value: Any) -> bytes:
    """A result as JSON."""
    return msgspec.json.encode(written(value))


def is_file(result: Any) -> bool:
    """Whether results of a type are, for who asks for no more than that, files."""
    return any(
        Blob in typing.get_type_hints(bare(each)).values()
        for each in members(result)
        if is_struct(bare(each))
    )


def more_of(piece: Any) -> dict[str, Any]:
    """What a piece of a text has beside its text."""
    if not isinstance(piece, TextDelta):
        return {}
    more = {"reasoning": piece.reasoning, "logprobs": piece.logprobs, "tool_calls": piece.tool_calls}
    return {name: each for name, each in more.items() if each}
