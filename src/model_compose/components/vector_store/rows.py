"""How do the values of a request become rows? Lists are matched one by one, and vectors are checked."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, Final

from ulid import ULID

from model_compose.components.vector_store.spec import Ids, Insert, Update
from model_compose.components.vector_store.store import Row
from model_compose.errors import InvalidInput

_NUMBERS: Final = frozenset((int, float))
_MOST_ID: Final = 512


def vectors(given: Any, field: str, metric: str) -> tuple[list[array[float]], bool]:
    """Vectors in float32, and whether there was a list of them."""
    if not isinstance(given, list):
        raise InvalidInput(f"`{field}` is no list of numbers", field=field)
    if not given:
        raise InvalidInput(f"`{field}` is empty", field=field)
    if not isinstance(given[0], list):
        return [_vector(given, field, metric)], False
    found = [_vector(each, f"{field}[{i}]", metric) for i, each in enumerate(given)]
    for i, each in enumerate(found):
        if len(each) != len(found[0]):
            message = f"`{field}[{i}]` has {len(each)} numbers, and the first has {len(found[0])}"
            raise InvalidInput(message, field=f"{field}[{i}]")
    return found, True


def _vector(given: Any, field: str, metric: str) -> array[float]:
    if not isinstance(given, list) or not _NUMBERS.issuperset(map(type, given)):
        raise InvalidInput(f"`{field}` is no list of numbers", field=field)
    if not given:
        raise InvalidInput(f"`{field}` is empty", field=field)
    try:
        made = array("f", given)
    except OverflowError:
        made = array("f", [math.inf])
    if not all(map(math.isfinite, made)):
        raise InvalidInput(f"`{field}` has a number that is not finite in 32 bits", field=field)
    if metric == "cosine" and not any(made):
        hint = "`metric: l2` and `ip` can compare it"
        raise InvalidInput(f"`{field}` is all zeros, which has no angle", field=field, hint=hint)
    return made


def ids(given: Ids) -> list[str]:
    """Ids as texts."""
    found = [str(each) for each in (given if isinstance(given, list) else [given])]
    if not found:
        raise InvalidInput("`vector_id` is an empty list", field="vector_id")
    seen: set[str] = set()
    for each in found:
        if not 0 < len(each) <= _MOST_ID or "\0" in each:
            raise InvalidInput(
                f"`vector_id` has 1 to {_MOST_ID} characters, and no null character", field="vector_id"
            )
        if each in seen:
            raise InvalidInput(f"`vector_id` has `{each}` twice", field="vector_id")
        seen.add(each)
    return found


def to_insert(request: Insert, found: Sequence[array[float]], many: bool) -> list[Row]:
    """The rows of an insert."""
    count = len(found)
    names = [str(ULID()) for _ in found] if request.vector_id is None else ids(request.vector_id)
    _match(names, count, "vector_id", many or not isinstance(request.vector_id, list))
    return list(
        map(
            Row,
            names,
            found,
            _metadata(request.metadata, count, many),
            _each(request.document, count, many, "document"),
        )
    )


def to_update(request: Update, found: Sequence[array[float]] | None, many: bool) -> list[Row]:
    """The rows of an update."""
    names = ids(request.vector_id)
    count = len(names)
    several = isinstance(request.vector_id, list)
    if found is None and request.metadata is None and request.document is None:
        message = "nothing to update: there is no `vector`, `metadata` or `document`"
        raise InvalidInput(message, field="vector")
    if found is not None:
        _match(found, count, "vector", several or not many)
    return list(
        map(
            Row,
            names,
            [None] * count if found is None else found,
            _metadata(request.metadata, count, several),
            _each(request.document, count, several, "document"),
        )
    )


def _metadata(given: Any, count: int, many: bool) -> list[dict[str, Any] | None]:
    found = _each(given, count, many, "metadata")
    return [None if each is None else {k: v for k, v in each.items() if v is not None} for each in found]


def _each(given: Any, count: int, many: bool, field: str) -> list[Any]:
    """One value for each row."""
    if given is None:
        return [None] * count
    if not isinstance(given, list):
        if many and count > 1:
            raise InvalidInput(f"`{field}` is one, and there are {count} vectors: give a list", field=field)
        return [given]
    _match(given, count, field, True)
    return given


def _match(found: Sequence[Any], count: int, field: str, fits: bool) -> None:
    if len(found) != count or not fits:
        raise InvalidInput(f"`{field}` has {len(found)} items for {count}", field=field)


def chosen(metadata: dict[str, Any], fields: Iterable[str] | None) -> dict[str, Any]:
    """The fields of the metadata that are asked for."""
    return metadata if fields is None else {name: metadata[name] for name in fields if name in metadata}
