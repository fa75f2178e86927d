from __future__ import annotations

from typing import Any

from msgspec import UNSET
from tests.config.expressions import parsed

from model_compose.config.template import compile_tree
from model_compose.config.values import Type
from model_compose.config.variables import Variable, variables


def compiled(data: Any) -> Any:
    return compile_tree(parsed(data))


def test_the_references_to_the_input_are_its_variables() -> None:
    tree = {
        "a": "${input.prompt as text | hello @(description What to say)}",
        "b": ["${input.user.name}", "x ${input.temperature as slider/0,2,0.1 | 0.7} y"],
        "c": "${jobs.a.output | ${input.image as image/png;base64}}",
        "d": "${input.messages[0].content as text | x}",
        "e": "${input.seed as integer | ${input.number}}",
    }
    assert variables(compiled(tree)) == [
        Variable("prompt", Type("text"), "hello", True, (("description", "What to say"),)),
        Variable("user.name"),
        Variable("temperature", Type("slider", options=("0", "2", "0.1")), 0.7, True),
        Variable("image", Type("image", subtype="png", format="base64")),
        Variable("messages", Type("list"), optional=True),
        Variable("seed", Type("integer"), UNSET, True),
        Variable("number"),
    ]


def test_several_references_to_a_variable_are_one() -> None:
    tree = [
        "${input.x @(title X)}",
        "${input.x as text | a @(title Y) @(description D)}",
        "${input.x as number | 5}",
        "${input.y[0]}",
        "${input.y as object[]/a}",
        "${input.z | 1}",
        "${input.z | 2}",
    ]
    assert variables(compiled(tree)) == [
        Variable("x", Type("text"), "a", False, (("title", "X"), ("description", "D"))),
        Variable("y", Type("object", many=True, options=("a",))),
        Variable("z", None, 1, True),
    ]


def test_the_input_as_a_whole_is_a_variable_without_a_name() -> None:
    assert variables(compiled("${input as text}")) == [Variable(None, Type("text"))]
    assert variables(compiled("${input[0]}")) == [Variable(None, Type("list"))]
    assert variables(compiled("constant")) == []
