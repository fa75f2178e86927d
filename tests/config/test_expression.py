from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.config.expressions import SOURCES, value, whole

from model_compose.config.expression import Each, Scope, Template, follow
from model_compose.config.grammar import MAX_DEPTH, parse
from model_compose.errors import InvalidInput
from model_compose.types import Result, Usage


class Vector(Result, frozen=True):
    embedding: list[float]
    usage: Usage = Usage()

    @property
    def dimensions(self) -> int:
        return len(self.embedding)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${input.a.b}", {"c": [10, 20, 30]}),
        ("${input.a.b.c[0]}", 10),
        ("${input.a.b.c[-1]}", 30),
        ("${input.a.b.c[1:]}", [20, 30]),
        ("${input.a.b.c[:-1]}", [10, 20]),
        ("${input.a.b.c[5:]}", []),
        ("${input.rows[*].x}", [1, None, 3]),
        ("${input.rows[1:][*].x}", [None, 3]),
        ("${input.rows[*].deep[*].y}", [[1], None, [2, 3]]),
        ("${input.pair[0]}", "left"),
        ("${input.proxy.x}", "seen"),
    ],
)
def test_a_path_leads_to_a_value(text: str, expected: Any) -> None:
    rows = [{"x": 1, "deep": [{"y": 1}]}, {}, {"x": 3, "deep": [{"y": 2}, {"y": 3}]}]
    source = {
        "a": {"b": {"c": [10, 20, 30]}},
        "rows": rows,
        "pair": ("left", "right"),
        "proxy": MappingProxyType({"x": "seen"}),
    }
    assert value(text, input=source) == expected


@pytest.mark.parametrize(
    "path",
    [
        *("missing", "text.x", "text[0]", "text[1:]", "text[*]", "number.x", "list.x", "list[2]", "list[-3]"),
        *("map[0]", "map[*].x", "list.x.y.z", "none.x", "none[0]", "empty.x", "map.missing.deeper[0]"),
    ],
)
def test_what_is_not_there_is_null(path: str) -> None:
    source = {"text": "abc", "number": 5, "list": [1, 2], "map": {"x": 1}, "none": None, "empty": []}
    assert value(f"${{input.{path}}}", input=source) is None
    assert value(f"${{input.{path} | 5}}", input=source) == 5
    assert value(f"<${{input.{path}}}>", input=source) == "<>"
    assert value("${nowhere.x}", input=source) is None


def test_results_are_looked_into_by_their_fields_and_properties_and_nothing_else() -> None:
    vector = Vector([0.1, 0.2])
    assert value("${result}", result=vector) is vector
    assert value("${result.embedding[1]}", result=vector) == 0.2
    assert value("${result.dimensions}", result=vector) == 2
    assert value("${result.usage.total_tokens}", result=vector) == 0
    assert value("${result.plain}", result=vector) is None
    assert value("${result.__class__}", result=vector) is None
    assert value("${result[0]}", result=vector) is None


def test_a_name_on_a_list_of_results_applies_to_each() -> None:
    assert value("${result.embedding}", result=[Vector([1.0]), Vector([2.0])]) == [[1.0], [2.0]]
    assert value("${result.embedding}", result=[{"embedding": [1.0]}]) is None
    assert value("${result.embedding}", result=[Vector([1.0]), {"embedding": [1.0]}]) is None


@pytest.mark.parametrize("found", [False, 0, "", [], {}])
def test_only_null_brings_the_default(found: Any) -> None:
    assert value("${input.x | default}", input={"x": found}) == found
    assert value("${input.x | default}", input={"x": None}) == "default"


def test_the_current_chunk_and_the_whole_result_are_different_sources() -> None:
    scope = Scope({"result": "whole"}).child({"result[]": "chunk"})
    assert whole("${result[]}").render(scope) == "chunk"
    assert whole("${result}").render(scope) == "whole"


def test_a_child_scope_leaves_its_parent_as_it_was() -> None:
    parent = Scope({"input": 1, "item": "outer"})
    assert whole("${item}").render(parent.child({"item": "inner"})) == "inner"
    assert whole("${input}").render(parent.child({"item": "inner"})) == 1
    assert whole("${item}").render(parent) == "outer"


def test_a_failing_conversion_names_the_field() -> None:
    with pytest.raises(InvalidInput) as caught:
        value("${input.temperature as number}", input={"temperature": "hot"})
    assert caught.value.message == '`temperature`: `"hot"` is not a number'
    assert caught.value.field == "temperature"
    with pytest.raises(InvalidInput, match=r"`jobs.a.output`"):
        value("${jobs.a.output as integer}", jobs={"a": {"output": "x"}})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.just("${input.x}"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(VALUES)
def test_a_whole_value_is_the_value_itself(found: Any) -> None:
    assert value("${input.x}", input={"x": found}) is found


@given(
    st.lists(st.sampled_from(["a", " ", "${x}", "${y}", "$${z}", "$", "}"]), min_size=1), st.text(), st.text()
)
def test_interpolation_is_concatenation(pieces: list[str], x: str, y: str) -> None:
    text = "|".join(["", *pieces])
    expected = "|".join(
        ["", *({"${x}": x, "${y}": y, "$${z}": "${z}"}.get(piece, piece) for piece in pieces)]
    )
    template = parse(text)
    found = template.render(Scope({"x": x, "y": y})) if isinstance(template, Template) else template
    assert found == expected


@given(SOURCES)
def test_a_value_is_never_read_as_an_expression(hostile: str) -> None:
    assert value("${input.x}", input={"x": hostile, "y": "secret"}) == hostile
    assert value("<${input.x}>", input={"x": hostile, "y": "secret"}) == f"<{hostile}>"
    assert value("${nowhere | <${input.x}>}", input={"x": hostile}) == f"<{hostile}>"


def test_a_default_beside_text_is_the_text_that_was_written() -> None:
    assert value("v${input.version | 1.10}") == "v1.10"
    assert value("v${input.a | ${input.version | 1.10}}") == "v1.10"
    assert value("${input.a as text | ${input.version | 1.10}}") == "1.10"
    assert value("v${input.version as number | 1.10}") == "v1.1"
    assert value("<${input.a | null}>") == "<>"


def test_a_path_of_every_item_stops_at_the_depth_of_the_value() -> None:
    deep: Any = "end"
    for _ in range(MAX_DEPTH):
        deep = [deep]
    assert follow(deep, (Each(),) * MAX_DEPTH) == deep
    assert follow("end", (Each(),)) is None
