from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from model_compose.config.annotations import choices, in_words, is_list, is_map, is_struct, members, names_in


class Point(msgspec.Struct):
    x: int
    y: int

    @property
    def length(self) -> float:
        return math.hypot(self.x, self.y)

    def moved(self) -> Point:
        return self


Small = Annotated[int, Meta(ge=0, le=9)]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (str, "text"),
        (Annotated[str, Meta(min_length=1)], "text that is not empty"),
        (bool, "`true` or `false`"),
        (int, "an integer"),
        (Annotated[int, Meta(ge=1)], "an integer of at least 1"),
        (Annotated[int, Meta(ge=0, le=65535)], "an integer from 0 to 65535"),
        (Annotated[float, Meta(gt=0)], "a number above 0"),
        (Annotated[float, Meta(gt=0, le=1)], "a number above 0 and at most 1"),
        (Annotated[float, Meta(le=1)], "a number of at most 1"),
        (Literal["a"], "`a`"),
        (Literal["a", "b"], "one of `a`, `b`"),
        (list[str], "a list"),
        (Annotated[tuple[str, ...], Meta(min_length=1)], "a list with at least one item"),
        (dict[str, Any], "a map"),
        (Point, "a map"),
        (Any, "a value"),
        (None | Small, "an integer from 0 to 9 or null"),
        (list[Annotated[str, Meta(min_length=1)]] | str, "text or a list"),
        (Point | dict[str, Any] | str | None, "text or a map or null"),
    ],
)
def test_a_type_in_words(annotation: Any, words: str) -> None:
    assert in_words(members(annotation)) == words


def test_the_members_of_a_union_have_its_limits() -> None:
    assert members(Annotated[int | float, Meta(ge=0)]) == [
        Annotated[int, Meta(ge=0)],
        Annotated[float, Meta(ge=0)],
    ]
    assert members(int | (Small | None)) == [int, Small, type(None)]
    assert members(Small) == [Small]


def test_kinds_of_types_are_told_apart() -> None:
    limited = Annotated[list[str], Meta(min_length=1)]
    assert [is_list(each) for each in (limited, tuple[str, ...], str, dict[str, int])] == [
        True,
        True,
        False,
        False,
    ]
    assert [is_map(each) for each in (dict[str, int], Point, list[str])] == [True, False, False]
    assert [is_struct(each) for each in (Point, dict[str, int], int, Any)] == [True, False, False, False]


def test_choices_are_the_words_of_literals() -> None:
    assert choices(members(Literal["a", "b"] | Literal["c", 1] | int | None)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("annotation", "names"),
    [
        (Point, {"x", "y", "length"}),
        (Point | list[Point] | None, {"x", "y", "length"}),
        (list[float], set()),
        (str, set()),
        (Point | dict[str, int], None),
        (Any, None),
        (list[Any], None),
    ],
)
def test_the_names_in_a_result_are_its_fields_and_properties(annotation: Any, names: set[str] | None) -> None:
    found = names_in(annotation)
    assert found is None if names is None else set(found or ()) == names
