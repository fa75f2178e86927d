from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.config.expressions import parsed

from model_compose.config.condition import MAX_TREE_DEPTH
from model_compose.config.expression import ExpressionError, Scope, references, render
from model_compose.config.template import accept_lists, compile_tree
from model_compose.errors import ConfigErrors, InvalidInput
from model_compose.types import Result


class Label(Result, frozen=True):
    label: str
    score: float


def compiled(data: Any) -> Any:
    return compile_tree(parsed(data))


def value(data: Any, **sources: Any) -> Any:
    return render(compiled(data), Scope(sources))


def mistakes(data: Any) -> list[tuple[tuple[str | int, ...], str]]:
    with pytest.raises(ConfigErrors) as caught:
        compiled(data)
    return [(e.path, e.message) for e in caught.value.errors if isinstance(e, ExpressionError)]


LABELS = [Label("good", 0.9), Label("bad", 0.1)]
ROWS: list[dict[str, Any]] = [{"name": "a", "size": 1}, {"name": "b", "size": 2}, {"name": "c"}]

CONSTANTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text().filter(lambda text: "${" not in text),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


# Trees


@given(CONSTANTS)
def test_a_tree_without_expressions_is_the_value_itself(data: Any) -> None:
    tree = compiled(data)
    assert tree == data
    assert type(tree) is type(data)
    assert list(references(tree)) == []


@given(CONSTANTS, CONSTANTS)
def test_a_value_is_put_where_its_expression_stands(data: Any, given_value: Any) -> None:
    tree = {"before": data, "here": ["${input.x}", data, {"deep": "${input.x}"}], "after": data}
    found = value(tree, input={"x": given_value})
    assert found == {"before": data, "here": [given_value, data, {"deep": given_value}], "after": data}
    assert list(found) == ["before", "here", "after"]


def test_every_call_gets_maps_and_lists_of_its_own() -> None:
    tree = compiled({"messages": [{"role": "user", "content": "${input}"}]})
    first = render(tree, Scope({"input": 1}))
    first["messages"][0]["content"] = "changed"
    first["messages"].append("more")
    assert render(tree, Scope({"input": 2})) == {"messages": [{"role": "user", "content": 2}]}


def test_a_literal_text_is_not_parsed_again() -> None:
    assert value({"a": "$${input.x}", "b": "${input.x}"}, input={"x": 1}) == {"a": "${input.x}", "b": 1}


def test_references_are_found_everywhere_in_the_order_of_the_file() -> None:
    tree = {
        "a": ["${input.a | ${input.b}}", {"b": "x ${jobs.c.output} y"}],
        "...": "${input.d}",
        "?": {
            "input": "${input.e}",
            "value": "${input.f}",
            "if_true": {"g": "${input.g}"},
            "if_false": "${input.h}",
        },
        "i": {"+": ["${input.i}"]},
        "j": ["...${input.j}"],
    }
    assert [each.path[0] for each in references(compiled(tree))] == list("abcdefghij")


def test_references_to_the_item_of_a_loop_do_not_leave_it() -> None:
    loop = {"*": "${item.inner}", "a": "${item.x}", "b": "${index} ${input.y}"}
    assert [each.text for each in references(compiled(loop))] == ["${item.inner}", "${input.y}"]
    split = {"|": {"input": "${input.rows}", "where": {"input": "${item.x}", "value": "${input.z}"}}}
    assert [each.text for each in references(compiled(split))] == ["${input.rows}", "${input.z}"]


def test_nesting_is_bounded() -> None:
    deep: Any = "${input}"
    for _ in range(MAX_TREE_DEPTH):
        deep = [deep]
    assert value(deep, input=1) is not None
    ((path, message),) = mistakes({"a": deep})
    assert len(path) == MAX_TREE_DEPTH + 1
    assert "nested more than" in message
    condition: Any = case("${x}", 1)
    for _ in range(MAX_TREE_DEPTH):
        condition = {"not": condition}
    assert "nested more than" in mistakes({"?": {**condition, "if_true": 1}})[0][1]


def test_a_slot_for_a_list_of_texts_keeps_a_list_a_list() -> None:
    tree = compiled("${input.text as text}")
    scope = Scope({"input": {"text": ["a", 1]}})
    assert render(tree, scope) == '["a",1]'
    assert render(accept_lists(tree), scope) == ["a", "1"]
    for other in ("constant", "${input.n as number}", "${input.text}", "a ${input.text}"):
        assert accept_lists(compiled(other)) == compiled(other)


# Spread


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"...": "${input.map}", "c": 3}, {"a": 1, "b": 2, "c": 3}),
        ({"a": 0, "...": "${input.map}"}, {"a": 1, "b": 2}),
        ({"...": "${input.map}", "a": 0}, {"a": 0, "b": 2}),
        ({"...": "${input.nothing}", "a": 0}, {"a": 0}),
        ({"...": "${input.nothing}"}, {}),
        ({"...": "${input.label}"}, {"label": "good", "score": 0.9}),
        ({"...": {"a": "${input.map.a}"}}, {"a": 1}),
        ([0, "...${input.list}", 3], [0, 1, 2, 3]),
        (["...${input.nothing}"], []),
        (["... ${input.list}"], ["... [1,2]"]),
        ("...${input.list}", "...[1,2]"),
    ],
)
def test_spreading(tree: Any, expected: Any) -> None:
    source = {"map": {"a": 1, "b": 2}, "list": [1, 2], "label": LABELS[0]}
    assert value(tree, input=source) == expected


@pytest.mark.parametrize("tree", [{"...": "${input}"}, ["...${input}"]])
def test_what_cannot_be_spread_is_an_error(tree: Any) -> None:
    with pytest.raises(InvalidInput, match=r"`\.\.\.` takes a (map|list), not `5`"):
        value(tree, input=5)


# Map and split


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (
            {"*": "${input.rows}", "n": "${item.name}", "i": "${index}"},
            [{"n": n, "i": i} for i, n in enumerate("abc")],
        ),
        ({"*": "${input.rows}", "+": ["${item.name}", "!"]}, ["a!", "b!", "c!"]),
        ({"*": "${input.rows}", "...": "${item}", "x": 1}, [{**row, "x": 1} for row in ROWS]),
        ({"*": "${input.labels}", "l": "${item.label}"}, [{"l": "good"}, {"l": "bad"}]),
        ({"*": "${input.rows}"}, ROWS),
        ({"*": "${input.nothing}", "a": "${item}"}, None),
        ({"*": [], "a": "${item}"}, []),
        (
            {
                "*": {
                    "input": "${input.rows}",
                    "where": {"input": "${item.size}", "operator": "gt", "value": 1},
                }
            },
            [ROWS[1]],
        ),
        (
            {
                "*": {"input": "${input.rows}", "where": {"not": {"input": "${item.name}", "value": "b"}}},
                "i": "${index}",
            },
            [{"i": 0}, {"i": 2}],
        ),
        (
            {"*": "${input.rows}", "all": {"*": "${input.labels}", "x": "${item.label}", "i": "${index}"}},
            [{"all": [{"x": "good", "i": 0}, {"x": "bad", "i": 1}]}] * 3,
        ),
        ({"|": "${input.rows}"}, {"name": ["a", "b", "c"], "size": [1, 2, None]}),
        ({"|": "${input.labels}"}, {"label": ["good", "bad"], "score": [0.9, 0.1]}),
        ({"|": "${input.rows}", "n": "${item.name}", "one": 1}, {"n": ["a", "b", "c"], "one": [1, 1, 1]}),
        (
            {
                "|": {"input": "${input.rows}", "where": {"input": "${item.name}", "value": "z"}},
                "n": "${item.name}",
            },
            {"n": []},
        ),
        ({"|": "${input.nothing}"}, None),
    ],
)
def test_a_list_is_mapped_filtered_and_split(tree: Any, expected: Any) -> None:
    assert value(tree, input={"rows": ROWS, "labels": LABELS}) == expected


@pytest.mark.parametrize("operator", ["*", "|"])
def test_only_a_list_can_be_mapped_or_split(operator: str) -> None:
    with pytest.raises(InvalidInput, match="takes a list, not"):
        value({operator: "${input}", "a": 1}, input="text")


class Chunks:
    """A stream that says whether it was closed."""

    def __init__(self) -> None:
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[int]:
        for number in range(5):
            yield number

    async def aclose(self) -> None:
        self.closed = True


def test_a_stream_is_mapped_chunk_by_chunk() -> None:
    async def read() -> tuple[list[Any], bool]:
        chunks = Chunks()
        where = {"input": "${item}", "operator": "neq", "value": 1}
        stream = value(
            {"*": {"input": "${result}", "where": where}, "n": "${item}", "i": "${index}"}, result=chunks
        )
        return [chunk async for chunk in stream], chunks.closed

    assert asyncio.run(read()) == ([{"n": n, "i": n} for n in (0, 2, 3, 4)], True)


def test_closing_a_mapped_stream_closes_the_stream_below() -> None:
    async def read() -> tuple[Any, bool]:
        chunks = Chunks()
        stream = value({"*": "${result}", "n": "${item}"}, result=chunks)
        first = await anext(stream)
        await stream.aclose()
        return first, chunks.closed

    assert asyncio.run(read()) == ({"n": 0}, True)


# Join


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["a", "${input.text}", 1, None, True], "atext1true"),
        (["${input.list}", [3], "${input.nothing}"], [1, 2, 3]),
        (["${input.map}", {"b": 2}], {"a": 1, "b": 2}),
        (["${input.label}", {"b": 2}], {"label": "good", "score": 0.9, "b": 2}),
        (["${input.nothing}", None], None),
        ([], None),
        ([0, False, "${input.text}"], "0falsetext"),
        ([[], None], []),
        ("${input.list}", "12"),
        ("${input.nothing}", None),
    ],
)
def test_texts_lists_and_maps_are_joined(parts: Any, expected: Any) -> None:
    source = {"text": "text", "list": [1, 2], "map": {"a": 1}, "label": LABELS[0]}
    assert value({"+": parts}, input=source) == expected
    assert value({"x": {"+": parts}}, input=source) == {"x": expected}


@pytest.mark.parametrize("parts", [["a", "${input}"], [{"a": 1}, "${input}"]])
def test_what_does_not_join_is_an_error(parts: Any) -> None:
    with pytest.raises(InvalidInput, match="not one kind with another"):
        value({"+": parts}, input=[1])


# Choice


def case(left: Any, right: Any, **branches: Any) -> dict[str, Any]:
    return {"input": left, "value": right, **branches}


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"?": case("${input.x}", 1, if_true="yes", if_false="no")}, "yes"),
        ({"?": case("${input.x}", 2, if_true="yes", if_false="no")}, "no"),
        ({"?": case("${input.x}", 2, if_true="yes")}, None),
        ({"?": case("${input.x}", 1, if_false="no")}, None),
        ({"?": case("${input.x}", 1, if_true=None, if_false="no")}, None),
        ({"?": [case("${input.x}", 2, if_true="a"), case("${input.x}", 1, if_true="b")]}, "b"),
        ({"?": [case("${input.x}", 1, if_true="a"), case("${input.x}", 1, if_true="b")]}, "a"),
        ({"?": [case("${input.x}", 1, if_true=None), case("${input.x}", 1, if_true="b")]}, None),
        ({"?": [case("${input.x}", 2, if_true="a", if_false="c"), case("${input.x}", 1, if_true="b")]}, "c"),
        ({"a": 1, "?": case("${input.x}", 1, if_true={"a": 2, "b": "${input.x}"})}, {"a": 2, "b": 1}),
        ({"a": 1, "?": case("${input.x}", 2, if_true={"a": 2})}, {"a": 1}),
        ({"?": case("${input.x}", 1, if_true={"?": case("${input.y}", None, if_true="deep")})}, "deep"),
        ({"?": {"any": [case("${input.x}", 5), case("${input.x}", 1)], "if_true": "yes"}}, "yes"),
    ],
)
def test_a_choice_takes_the_first_branch_that_is_there(tree: Any, expected: Any) -> None:
    assert value(tree, input={"x": 1}) == expected


def test_only_the_chosen_branch_is_rendered() -> None:
    tree = {"?": case("${input.x}", 1, if_true="fine", if_false="${input.bad as number}")}
    assert value(tree, input={"x": 1, "bad": "text"}) == "fine"


# Mistakes


@pytest.mark.parametrize(
    ("tree", "path", "message"),
    [
        ({"a": {"+": ["x"], "b": 1}}, ("a", "+"), "`+` stands alone in its map"),
        ({"+": [[1], "a"]}, ("+",), "not one kind with another"),
        ({"+": 5}, ("+",), "`+` takes a list, not `5`"),
        ({"...": "text", "a": "${x}"}, ("...",), "`...` takes a map"),
        ({"...": [1], "a": 1}, ("...",), "`...` takes a map"),
        ({"*": {"a": 1}}, ("*",), "`*` takes a list, or a map of `input` and `where`"),
        ({"*": "text"}, ("*",), "`*` takes a list, or a map of `input` and `where`"),
        ({"|": {"inptu": "${x}", "where": {}}}, ("|",), "`|` takes a list, or a map of `input` and `where`"),
        ({"*": {"input": "${x}", "if": {}}}, ("*", "if"), "unknown key `if`"),
        ({"?": [{"input": 1, "value": 1}]}, ("?", 0), "a conditional has `if_true`, `if_false` or both"),
        ({"?": 5}, ("?",), "a condition is a map with"),
        ({"?": case("${x}", 1, if_true=1, otherwise=2)}, ("?", "otherwise"), "unknown key `otherwise`"),
        ({"?": {"input": "${x}", "if_true": 1}}, ("?",), "a condition needs `value`"),
        ({"?": {"if_true": 1}}, ("?",), "a condition needs `input` and `value`"),
        (
            {"?": case("${x}", 1, operator="equals", if_true=1)},
            ("?", "operator"),
            'unknown operator `"equals"`',
        ),
        ({"?": case("${x}", 1, operator=[1], if_true=1)}, ("?", "operator"), "unknown operator `[1]`"),
        (
            {"?": case("${x}", "(", operator="match", if_true=1)},
            ("?", "value"),
            "is not a regular expression",
        ),
        ({"?": case("${x}", 5, operator="starts-with", if_true=1)}, ("?", "value"), "takes a text, not `5`"),
        ({"?": case("a", 5, operator="gt", if_true=1)}, ("?",), "cannot compare"),
        ({"?": {"all": case(1, 1), "if_true": 1}}, ("?", "all"), "`all` takes a list of conditions"),
        ({"?": {"all": [case(1, 1), 5], "if_true": 1}}, ("?", "all", 1), "a condition is a map with"),
        ({"?": {"not": {"all": [], "any": []}, "if_true": 1}}, ("?", "not", "any"), "unknown key `any`"),
        ([{"a": [{"*": "${x}", "b": {"+": 1, "c": 2}}]}], (0, "a", 0, "b", "+"), "`+` stands alone"),
    ],
)
def test_a_mistake_is_found_at_load_and_names_its_key(tree: Any, path: tuple[Any, ...], message: str) -> None:
    found = mistakes(tree)
    assert found[0][0] == path
    assert message in found[0][1]


def test_all_mistakes_of_a_tree_come_together() -> None:
    tree = {"a": {"*": 5, "+": "x", "b": 1}, "c": {"?": {}}, "d": {"*": {"input": "${x}", "wher": 1}}}
    assert [path for path, _ in mistakes(tree)] == [("a", "+"), ("c", "?"), ("c", "?"), ("d", "*", "wher")]
