from __future__ import annotations

from typing import Any

import pytest
from tests.config.documents import root_of

from model_compose.config.environment import Environment
from model_compose.config.expand import expand
from model_compose.config.expression import references
from model_compose.config.mistakes import Mistakes
from model_compose.config.references import (
    CONTEXT,
    Known,
    check_references,
    compiled,
    names_of_output,
    results,
    written,
)
from model_compose.config.tree import Node, at_key
from model_compose.types import Result


class Label(Result, frozen=True):
    label: str


SOURCES: dict[str, Known] = {
    "input": None,
    "context": CONTEXT,
    "jobs": {"a": {"output": None}, "b": {"output": {"label": None}}},
    **results({"label": None}, {"label": None, "text": None}),
}


def node_of(text: str) -> Node:
    found = at_key(expand(root_of(f"value: {text}\n"), Environment({})).root, "value")
    assert found is not None
    return found


def mistakes(text: str) -> list[tuple[str, str | None]]:
    found = Mistakes()
    node = node_of(text)
    check_references(node, compiled(node, found), SOURCES, found)
    return [(error.message, error.hint) for error in found.errors]


@pytest.mark.parametrize(
    "text",
    [
        "${input} ${input.a.b[0].c} ${context.run_id}",
        "${jobs.a.output} ${jobs.a.output.x.y} ${jobs.b.output.label} ${jobs.b.output.label.deeper}",
        "${result} ${response.label} ${output.label} ${result[].text} ${result[0].label} ${result[*].label}",
        "{'*': '${input.rows}', a: '${item.x} ${index}'}",
        "{'*': {input: '${input.rows}', where: {input: '${item.x}', value: '${index}'}}}",
        "{'|': '${input.rows}', a: {'*': '${item.deep}', b: '${item}'}}",
        "$${nothing}",
    ],
)
def test_what_is_there_is_not_told(text: str) -> None:
    assert mistakes(text) == []


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("${inptu.a}", "`${inptu.a}`: there is no `inptu` here", "did you mean `input`?"),
        ("${input.a | ${inptu.b}}", "`${inptu.b}`: there is no `inptu` here", "did you mean `input`?"),
        ("${item.x}", "`${item.x}`: there is no `item` here", "it is there inside of `*` and `|`"),
        ("{'*': '${item}', a: '${item}'}", "`${item}`: there is no `item` here", "it is there inside"),
        ("{'*': '${index.rows}'}", "`${index.rows}`: there is no `index` here", "it is there inside"),
        ("${input[].a}", "`${input[].a}`: `input` has no pieces here", "write `input`, without the `[]`"),
        ("${inptu[].a}", "`${inptu[].a}`: there is no `inptu[]` here", "did you mean"),
        (
            "${gateway:8090.url}",
            "`${gateway:8090.url}`: gateways are known, and not supported yet",
            "valid: ",
        ),
        ("${context.user}", "`${context.user}`: `context` has no `user`", "valid: `run_id`, `task_id`"),
        ("${jobs}", "`${jobs}`: name the output of a job", "such as `${jobs.NAME.output}`"),
        ("${jobs.a}", "`${jobs.a}`: name the output of a job", "such as `${jobs.a.output}`"),
        ("${jobs[0]}", "`${jobs[0]}`: name a job", "such as `${jobs.NAME.output}`"),
        ("${jobs.c.output}", "`${jobs.c.output}`: there is no job `c`", "valid: `a`, `b`"),
        ("${jobs.a.input}", "`${jobs.a.input}`: a job has only an `output`", "write `${jobs.a.output}`"),
        (
            "${jobs.b.output.lable}",
            "`${jobs.b.output.lable}`: the output of job `b` has no `lable`",
            "did you mean `label`?",
        ),
        ("${result.lable}", "`${result.lable}`: `result` has no `lable`", "did you mean `label`?"),
        ("${result[0].lable}", "`${result[0].lable}`: `result` has no `lable`", "did you mean `label`?"),
        ("${output[].x}", "`${output[].x}`: `output[]` has no `x`", "valid: `label`, `text`"),
    ],
)
def test_what_is_not_there_is_told_with_a_way_out(text: str, message: str, hint: str) -> None:
    ((found, way_out),) = mistakes(f'"{text}"' if text.startswith("$") else text)
    assert found == message
    assert str(way_out).startswith(hint)


def test_the_place_is_that_of_the_reference() -> None:
    found = Mistakes()
    node = node_of("[x, 'a ${input.a} b ${x.y} c']")
    check_references(node, compiled(node, found), SOURCES, found)
    (error,) = found.errors
    assert str(error.place) == "f.yml:1:28"


def test_a_reference_that_an_alias_repeats_is_told_once() -> None:
    root = expand(root_of("a: &a ['${x}']\nb: [*a, *a]\n"), Environment({})).root
    found = Mistakes()
    check_references(root, compiled(root, found), SOURCES, found)
    assert len(found.errors) == 1


def test_mistakes_of_a_tree_have_the_places_of_their_keys() -> None:
    found = Mistakes()
    assert compiled(node_of("{a: [{'+': x, b: 1}]}"), found) is None
    (error,) = found.errors
    assert str(error.place) == "f.yml:1:14"


def test_data_that_was_read_otherwise_is_compiled_in_place_of_the_node() -> None:
    node = node_of("{text: '${input.a}', other: 1}")
    data = {"prompt": at_key(node, "text").value}  # type: ignore[union-attr]
    tree = compiled(node, Mistakes(), data)
    assert (
        [each.text for each in references(tree)] == [each.text for _, each in written(node)] == ["${input.a}"]
    )


@pytest.mark.parametrize(
    ("text", "result", "names"),
    [
        (None, Label, {"label"}),
        (None, list[Label] | None, {"label"}),
        (None, Any, None),
        ("{a: 1, b: '${result}'}", Label, {"a", "b"}),
        ("{a: 1}", Label, {"a"}),
        ("{a: '${result[]}'}", Label, None),
        ("{'...': '${result}', a: 1}", Label, None),
        ("'${result}'", Label, None),
        ("[1]", Label, None),
    ],
)
def test_the_names_of_an_output(text: str | None, result: Any, names: set[str] | None) -> None:
    from msgspec import UNSET

    tree = UNSET if text is None else compiled(node_of(text), Mistakes())
    found = names_of_output(tree, result)
    assert found is None if names is None else set(found or ()) == names
