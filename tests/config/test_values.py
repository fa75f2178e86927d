from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_compose.config.values import COMPARISONS, TYPES, Type, convert, holds, to_text
from model_compose.errors import InvalidInput
from model_compose.types import Result

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class Label(Result, frozen=True):
    label: str
    score: float


class Words(Result, frozen=True):
    content: str

    def plain(self) -> str:
        return self.content


def as_type(name: str, value: Any, **fields: Any) -> Any:
    return convert(value, Type(name, **fields), "field", {})


def outcome(attempt: Callable[[], Any]) -> Any:
    """What `attempt` returns, or the InvalidInput that it raises."""
    try:
        return attempt()
    except InvalidInput as error:
        return error


@pytest.mark.parametrize("name", sorted(TYPES))
def test_null_passes_through_every_type(name: str) -> None:
    assert as_type(name, None) is None
    assert as_type(name, None, many=True) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        (None, ""),
        (True, "true"),
        (False, "false"),
        (3, "3"),
        (0.7, "0.7"),
        ("é".encode(), "é"),
        ([1, "é", None], '[1,"é",null]'),
        ({"a": [True]}, '{"a":[true]}'),
        (Words("hello"), "hello"),
        (Label("good", 0.5), '{"label":"good","score":0.5}'),
        ([Words("a"), Words("b")], '["a","b"]'),
    ],
)
def test_a_value_inside_a_text_is_written_out(value: Any, text: str) -> None:
    assert to_text(value, "field") == text


@pytest.mark.parametrize("value", [b"\xff", object(), [object()], {"a": object()}])
def test_what_has_no_text_form_is_an_error_that_names_the_field(value: Any) -> None:
    with pytest.raises(InvalidInput, match="`field`") as caught:
        to_text(value, "field")
    assert caught.value.field == "field"


def test_a_value_nested_beyond_reason_is_an_error_and_no_crash() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InvalidInput):
        to_text(deep, "field")


@given(JSON)
def test_json_written_as_text_reads_back_as_the_same_value(value: Any) -> None:
    text = as_type("text", value)
    if value is None or isinstance(value, str):
        assert text == value
    elif isinstance(value, list | dict):
        assert as_type("json", text) == value


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("number", "0.7", 0.7),
        ("number", 3, 3.0),
        ("number", " 1e3 ", 1000.0),
        ("integer", "3.0", 3),
        ("integer", 3.0, 3),
        ("integer", "12", 12),
        ("integer", "9007199254740993", 9007199254740993),
        ("boolean", "TRUE", True),
        ("boolean", 1, True),
        ("boolean", "1", True),
        ("boolean", True, True),
        ("boolean", "yes", False),
        ("boolean", 0, False),
        ("json", '{"a": [1]}', {"a": [1]}),
        ("json", b"[1]", [1]),
        ("json", {"a": 1}, {"a": 1}),
        ("json", Label("x", 1.0), {"label": "x", "score": 1.0}),
        ("object", '{"a": 1}', {"a": 1}),
        ("list", "[1, 2]", [1, 2]),
        ("list", "a, b", ["a", "b"]),
        ("list", "", []),
        ("list", "a, b\n c\n", ["a, b", "c"]),
        ("list", (1, 2), [1, 2]),
        ("base64", b"\x00\xff", "AP8="),
        ("base64", "é", base64.b64encode("é".encode()).decode()),
        ("select", "a", "a"),
        ("slider", 0.5, 0.5),
    ],
)
def test_a_value_becomes_what_its_type_says(name: str, value: Any, expected: Any) -> None:
    found = as_type(name, value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("number", "hot", '`field`: `"hot"` is not a number'),
        ("number", True, "`field`: `true` is not a number"),
        ("number", "nan", '`field`: `"nan"` is not a number'),
        ("number", "1e999", '`field`: `"1e999"` is not a number'),
        ("number", "1_000", '`field`: `"1_000"` is not a number'),
        ("number", object(), "`field`: a `object` is not a number"),
        ("number", 10**60 * 10**300, f"`field`: `1{'0' * 76}...` is not a number"),
        ("number", [1], "`field`: `[1]` is not a number"),
        ("integer", "3.5", '`field`: `"3.5"` is not an integer'),
        ("integer", 3.5, "`field`: `3.5` is not an integer"),
        ("integer", "1e999", '`field`: `"1e999"` is not an integer'),
        ("json", "{", '`field`: `"{"` is not JSON'),
        ("object", "[1]", '`field`: `"[1]"` is not a map'),
        ("list", "[1", '`field`: `"[1"` is not a list'),
        ("list", {"a": 1}, '`field`: `{"a":1}` is not a list'),
        ("base64", {"a": 1}, '`field`: `{"a":1}` is not bytes or a text'),
    ],
)
def test_a_bad_value_is_an_error_that_names_the_field_and_the_value(
    name: str, value: Any, message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        as_type(name, value)
    assert caught.value.message == message
    assert caught.value.field == "field"


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(InvalidInput) as caught:
        as_type("number", "x" * 10_000)
    assert len(caught.value.message) < 130


@given(st.sampled_from(sorted(TYPES)), st.booleans(), JSON)
def test_any_json_value_converts_or_is_refused(name: str, many: bool, value: Any) -> None:
    found = outcome(lambda: as_type(name, value, many=many))
    if isinstance(found, InvalidInput):
        assert str(found.field).startswith("field")
    else:
        assert msgspec.json.encode(found)


def test_a_list_type_converts_each_element_and_an_error_says_which() -> None:
    assert as_type("number", ["1", 2, None], many=True) == [1.0, 2.0, None]
    assert as_type("integer", "1,2", many=True) == [1, 2]
    with pytest.raises(InvalidInput, match=re.escape("`field[1]`")):
        as_type("number", [1, "x"], many=True)


def test_objects_of_a_list_are_projected_onto_the_last_names_of_paths() -> None:
    items = [{"a": 1, "b": {"c": 2}, "d": 3}, {"a": 4, "b": 5}, "no map"]
    expected = [{"a": 1, "c": 2}, {"a": 4, "c": None}, {"a": None, "c": None}]
    assert as_type("object", items, many=True, options=("a", "b.c")) == expected
    assert as_type("object", msgspec.json.encode(items).decode(), many=True, options=("a", "b.c")) == expected
    assert as_type("object", [Label("x", 1.0)], many=True, options=("label",)) == [{"label": "x"}]


@pytest.mark.parametrize("value", ["text", 3, {"a": 1}])
def test_objects_of_what_is_no_list_are_an_empty_list(value: Any) -> None:
    assert as_type("object", value, many=True, options=("a",)) == []


def test_a_slot_for_a_list_of_texts_keeps_a_list_a_list() -> None:
    assert as_type("text", ["a", 1, None], lists=True) == ["a", "1", None]
    assert as_type("text", "a", lists=True) == "a"
    assert as_type("text", ["a", 1]) == '["a",1]'


@pytest.mark.parametrize("name", ["image", "audio", "video", "file"])
def test_media_stay_as_they_are_until_a_converter_is_given(name: str) -> None:
    upload = object()
    wanted = Type(name, subtype="png", format="base64")
    assert convert(upload, wanted, "field", {}) is upload
    converters = {name: lambda value, wanted, field: (value, wanted, field)}
    assert convert(upload, wanted, "field", converters) == (upload, wanted, "field")
    assert convert([upload], Type(name, many=True), "f", {name: lambda *_: "converted"}) == ["converted"]


def test_base64_of_an_image_is_a_converter_s_affair() -> None:
    assert convert(object(), Type("base64"), "field", {"base64": lambda *_: "AAAA"}) == "AAAA"


@pytest.mark.parametrize(
    ("left", "comparison", "right", "expected"),
    [
        (1, "eq", 1, True),
        ("a", "eq", "b", False),
        (None, "eq", None, True),
        (Words("a"), "eq", "a", True),
        ({"a": [1]}, "eq", {"a": [1]}, True),
        ("a", "neq", "b", True),
        (2, "gt", 1, True),
        (1, "gt", 1, False),
        (1, "gte", 1, True),
        ("a", "lt", "b", True),
        (1.5, "lte", 1, False),
        (None, "gt", 1, False),
        (1, "lt", None, False),
        ("a", "in", ["a", "b"], True),
        ("a", "in", "cat", True),
        ("a", "in", {"a": 1}, True),
        ("a", "in", None, False),
        (None, "in", "cat", False),
        (None, "in", [None], True),
        ("z", "not-in", ["a"], True),
        ("a", "not-in", None, True),
        ("abc", "match", "a.", True),
        ("abc", "match", re.compile("b"), False),
        (123, "match", r"\d+$", True),
        (None, "match", ".*", False),
        ("abc", "starts-with", "ab", True),
        ("abc", "ends-with", "bc", True),
        ("abc", "ends-with", "ab", False),
        (None, "starts-with", "", False),
    ],
)
def test_two_values_compare(left: Any, comparison: str, right: Any, expected: bool) -> None:
    assert holds(comparison, left, right) is expected


@pytest.mark.parametrize(
    ("left", "comparison", "right"),
    [
        ("10", "gt", 5),
        ({}, "lt", {}),
        (1, "in", 5),
        (1, "in", "123"),
        ("a", "match", "("),
        ("a", "match", 5),
        ("a", "ends-with", 5),
        ([1], "in", {"a": 1}),
    ],
)
def test_what_cannot_be_compared_is_an_error_and_never_silently_false(
    left: Any, comparison: str, right: Any
) -> None:
    with pytest.raises(InvalidInput, match=re.escape(str(right)) if right == 5 else "."):
        holds(comparison, left, right)


@given(st.sampled_from(sorted(COMPARISONS)), JSON, JSON)
def test_any_two_json_values_compare_or_are_refused(comparison: str, left: Any, right: Any) -> None:
    found = outcome(lambda: holds(comparison, left, right))
    assert found is True or found is False or (isinstance(found, InvalidInput) and found.message)


@given(JSON, JSON)
def test_negated_comparisons_say_the_opposite(left: Any, right: Any) -> None:
    assert holds("eq", left, right) is not holds("neq", left, right)
    inside = outcome(lambda: holds("in", left, right))
    outside = outcome(lambda: holds("not-in", left, right))
    assert isinstance(inside, InvalidInput) is isinstance(outside, InvalidInput)
    assert isinstance(inside, InvalidInput) or inside is not outside
