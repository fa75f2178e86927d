from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from tests.config.expressions import SOURCES

from model_compose.config.expression import Scope, Template, UnsetVariable
from model_compose.config.grammar import parse
from model_compose.config.substitute import substitute_env
from model_compose.errors import ConfigErrors


def environment(text: str, **variables: str) -> Any:
    template = parse(text)
    assert isinstance(template, Template)
    return substitute_env(template, variables.get)


@pytest.mark.parametrize(
    ("text", "variable", "expected"),
    [
        ("${env.X}", "8080", 8080),
        ("${env.X}", "0.5", 0.5),
        ("${env.X}", "true", True),
        ("${env.X}", "null", None),
        ("${env.X}", "", None),
        ("${env.X}", "yes", "yes"),
        ("${env.X}", "[1]", "[1]"),
        ("${env.X}", "a: b # c", "a: b # c"),
        ("${env.X}", "${input.y}", "${input.y}"),
        ("${env.X as text}", "8080", "8080"),
        ("${env.X as integer}", "8080", 8080),
        ("${env.X | 5}", "6", 6),
        ("${env.X | ${env.UNSET}}", "6", 6),
        ("v${env.X}", "1.10", "v1.10"),
        ("v${env.X}$${y}", "${input.z}", "v${input.z}${y}"),
        ("${env.UNSET | 5}", "", 5),
        ('${env.UNSET | "5"}', "", "5"),
        ("${env.UNSET | null}", "", None),
        ("v${env.UNSET | 1.10}", "", "v1.10"),
        ("${env.UNSET | ${env.X}}", "7", 7),
        ("${env.UNSET as text | ${env.X}}", "0.70", "0.70"),
        ("${env.UNSET as number | ${env.X}}", "0.70", 0.7),
        ("${env.UNSET | a ${env.X} b}", "7", "a 7 b"),
        ("${env.UNSET as base64 | a}", "", "YQ=="),
        ("${env.X as base64}", "a", "YQ=="),
    ],
)
def test_a_text_that_needs_only_the_environment_becomes_a_scalar(
    text: str, variable: str, expected: Any
) -> None:
    found = environment(text, X=variable)
    assert found == expected
    assert type(found) is type(expected)


def test_what_is_left_of_a_template_has_the_variables_as_literal_text() -> None:
    left = environment("${env.X} ${input.y | ${env.X}} ${input.z | 1.10}", X="${input.y} 1.0")
    assert isinstance(left, Template)
    assert [each.source for each in left.references()] == ["input", "input"]
    assert left.render(Scope({"input": {"y": None}})) == "${input.y} 1.0 ${input.y} 1.0 1.10"


def test_a_variable_in_a_default_has_the_type_that_is_wanted() -> None:
    assert environment("${input.y | ${env.X}}", X="7").render(Scope({})) == 7
    assert environment("${input.y as text | ${env.X}}", X="0.70").render(Scope({})) == "0.70"
    assert environment("${input.y as number | ${env.X}}", X="0.70").render(Scope({})) == 0.7
    assert environment("${input.y | a ${env.X}}", X="0.70").render(Scope({})) == "a 0.70"


def test_a_default_that_needs_a_scope_stays_one() -> None:
    left = environment("${env.UNSET | ${input.y}}")
    assert left.whole.source == "input"
    typed = environment("${env.UNSET as integer | ${input.y}}")
    assert typed.render(Scope({"input": {"y": "5"}})) == 5
    assert [each.source for each in typed.references()] == ["input"]
    mixed = environment("<${env.UNSET | a ${input.y} b}>")
    assert mixed.render(Scope({"input": {"y": "5"}})) == "<a 5 b>"


def test_a_list_or_map_of_the_environment_is_there_at_once() -> None:
    assert environment("${env.X as list}", X="a,b") == ["a", "b"]
    assert environment('${env.UNSET | {"a": [1]}}') == {"a": [1]}
    assert environment("<${env.UNSET | []}>") == "<[]>"


def test_a_media_value_of_the_environment_is_rendered_later() -> None:
    image = environment("${env.X as image;path}", X="a.png")
    converters = {"image": lambda value, wanted, field: (wanted.format, value)}
    assert image.render(Scope({"env": {"X": "other"}}, converters)) == ("path", "a.png")
    assert list(image.references()) == []


def test_all_unset_variables_are_reported_with_their_places() -> None:
    text = "${env.A} ${input.x | ${env.B}} ${env.C | ${env.D}} ${env.E | ok}"
    with pytest.raises(ConfigErrors) as caught:
        environment(text)
    errors = caught.value.errors
    assert all(isinstance(error, UnsetVariable) for error in errors)
    marks = [(e.variable, text[e.start : e.end]) for e in errors if isinstance(e, UnsetVariable)]
    assert marks == [("A", "${env.A}"), ("B", "${env.B}"), ("D", "${env.D}")]
    assert errors[0].message == "environment variable `A` is not set"
    assert "`${env.A | ...}`" in str(errors[0].hint)


def test_a_variable_that_its_type_refuses_is_a_mistake_that_does_not_show_it() -> None:
    for text in ("${env.X as integer}", "${input.y as integer | ${env.X}}"):
        with pytest.raises(ConfigErrors) as caught:
            environment(text, X="secret")
        (error,) = caught.value.errors
        assert "`integer`" in error.message
        assert "secret" not in f"{error.message} {error.hint}"


@pytest.mark.parametrize("text", ["${env}", "${env.a.b}", "${env[0]}"])
def test_env_takes_the_name_of_one_variable(text: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        environment(text, a="x")
    assert "`${env.NAME}`" in caught.value.errors[0].message


@given(SOURCES)
def test_a_variable_is_never_read_as_an_expression(hostile: str) -> None:
    assert environment("<${env.X}>", X=hostile) == f"<{hostile}>"
    assert environment("${env.X as text}", X=hostile) == hostile
    left = environment("${env.X}${input.y}", X=hostile)
    assert left.render(Scope({"input": {"y": hostile}})) == hostile + hostile
