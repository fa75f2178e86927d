"""What do the pieces of a stream come to, where an output wants one value?"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Final

from model_compose.config.expression import follow, references
from model_compose.config.references import RESULTS
from model_compose.config.schema import Tree

Way = tuple[str | int, ...]

#: A path of a file may name any index; a list is not made longer than this for one.
_LONGEST: Final = 1000


def ways_in(output: Tree) -> list[Way]:
    """The paths in a result that an output refers to."""
    ways: dict[Way, None] = {}
    for reference in references(output):
        path = reference.path
        if reference.key in RESULTS and path and all(isinstance(each, str | int) for each in path):
            ways[path] = None  # type: ignore[index]
    return list(ways)


def merged(pieces: Sequence[Any], ways: Sequence[Way]) -> Any:
    """The last piece, with what stands at each way written one behind the other over all pieces.

    What never changes, such as the name of a model, stays as it is.
    """
    if not pieces or not all(isinstance(piece, dict) for piece in pieces):
        return joined(pieces)
    whole = copy.deepcopy(pieces[-1])
    for way in ways:
        texts = [text for piece in pieces if isinstance(text := follow(piece, way), str)]
        if texts and not (len(texts) == len(pieces) and len(set(texts)) == 1):
            _put(whole, way, "".join(texts))
    return whole


def joined(pieces: Sequence[Any]) -> Any:
    """Texts as one text, anything else as a list."""
    return "".join(pieces) if pieces and all(isinstance(piece, str) for piece in pieces) else list(pieces)


def with_deltas(value: Any) -> Any:
    """A chat completion as it would be streamed in one piece: `delta` has what `message` has."""
    choices = value.get("choices") if isinstance(value, dict) else None
    if not isinstance(choices, list):
        return value
    return {**value, "choices": [_with_delta(choice) for choice in choices]}


def _with_delta(choice: Any) -> Any:
    if not isinstance(choice, dict) or "delta" in choice or not isinstance(choice.get("message"), dict):
        return choice
    return {**choice, "delta": choice["message"]}


def _put(whole: Any, way: Way, text: str) -> None:
    """Write a text at a place, making the maps and lists on the way to it."""
    place = whole
    for step, after in zip(way, (*way[1:], None), strict=True):
        value: Any = text if after is None else {} if isinstance(after, str) else []
        if isinstance(step, str):
            if not isinstance(place, dict):
                return
            if after is None or not isinstance(place.get(step), dict | list):
                place[step] = value
        else:
            if not isinstance(place, list) or not -max(len(place), 1) <= step < _LONGEST:
                return
            place.extend([None] * (max(step, 0) + 1 - len(place)))
            if after is None or not isinstance(place[step], dict | list):
                place[step] = value
        place = place[step]
