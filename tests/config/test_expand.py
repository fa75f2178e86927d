"""Is every `${env.X}` filled in exactly where it stands, and every missing one told with its place?"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.config.documents import root_of

from model_compose.config.environment import Environment, Value
from model_compose.config.expand import Expansion, expand
from model_compose.config.expression import Scope, Template
from model_compose.config.tree import locate, merge, to_data
from model_compose.errors import ConfigError, ConfigErrors, Note


def environment(**values: str) -> Environment:
    return Environment({name: Value(text, ".env:1") for name, text in values.items()})


def expanded(text: str, **values: str) -> Any:
    expansion = expand(root_of(text), environment(**values))
    assert not expansion.errors
    return to_data(expansion.root)


def value(scalar: str, **values: str) -> Any:
    return expanded(f"a: {scalar}\n", **values)["a"]


def mistakes(text: str, **values: str) -> tuple[ConfigError, ...]:
    errors = expand(root_of(text), environment(**values)).errors
    assert errors
    return ConfigErrors(errors).errors  # in the order of the file


def underlined(error: ConfigError | Note) -> str:
    assert error.place is not None
    return error.place.text[error.place.column - 1 : error.place.end_column - 1]


class TestValues:
    @pytest.mark.parametrize(
        ("text", "result"),
        [("8080", 8080), ("0.7", 0.7), ("true", True), ("null", None), ("gpt-4o", "gpt-4o"), ("yes", "yes")],
    )
    @pytest.mark.parametrize("scalar", ["${env.X}", '"${env.X}"', "'${env.X}'"])
    def test_a_whole_reference_becomes_the_scalar_that_the_text_is(
        self, scalar: str, text: str, result: object
    ) -> None:
        assert value(scalar, X=text) == result
        assert type(value(scalar, X=text)) is type(result)

    @pytest.mark.parametrize("scalar", ["${env.X}", "${env.Y | 1.10}", "${env.Y | ${env.X}}"])
    def test_a_number_keeps_its_text_for_who_wants_text(self, scalar: str) -> None:
        root = expand(root_of(f"a: {scalar}\n"), environment(X="1.10")).root
        assert (locate(root, ["a"]).value, locate(root, ["a"]).text) == (1.1, "1.10")

    @pytest.mark.parametrize("scalar", ["${env.Y | text}", "<${env.X}>"])
    def test_what_is_text_has_no_other(self, scalar: str) -> None:
        root = expand(root_of(f"a: {scalar}\n"), environment(X="3.0")).root
        assert locate(root, ["a"]).text is None

    def test_inside_a_text_it_is_text(self) -> None:
        assert value("http://${env.HOST}:${env.PORT}/v1", HOST="h", PORT="80") == "http://h:80/v1"
        assert value("v${env.X}", X="1.10") == "v1.10"

    @pytest.mark.parametrize(
        "evil", ["a: b", "[1, 2]", "{a: b}", "x\n  b: 1", "# c", "*a", "!!str", "- x", "${env.Y}"]
    )
    def test_what_is_in_a_variable_is_neither_yaml_nor_an_expression(self, evil: str) -> None:
        assert expanded("a: ${env.X}\nb: '<${env.X}>'\n", X=evil, Y="y") == {"a": evil, "b": f"<{evil}>"}

    def test_quoted_and_typed_defaults(self) -> None:
        assert value('${env.X | "a | b"}') == "a | b"
        assert value("${env.X | 0.7}") == 0.7
        assert value("${env.X | ${env.Y | deep}}") == "deep"
        assert value("${env.X | ${env.Y | deep}}", Y="set") == "set"
        assert value("${env.X as text | 8080}", X="9090") == "9090"

    def test_a_doubled_dollar_is_a_dollar(self) -> None:
        assert value("$${env.X} ${env.X}", X="1") == "${env.X} 1"
        assert value("$${env.X}") == "${env.X}"

    def test_keys_and_comments_mean_nothing(self) -> None:
        assert expanded("${env.X}: 1  # ${env.Y}\n# ${env.\nb: 2\n") == {"${env.X}": 1, "b": 2}

    def test_other_references_become_templates(self) -> None:
        template = value("${input.text} at ${env.HOST}", HOST="${input.text}")
        assert isinstance(template, Template)
        assert template.render(Scope({"input": {"text": "hello"}})) == "hello at ${input.text}"

    def test_a_list_or_map_of_a_variable_is_there_with_the_place_of_its_text(self) -> None:
        root = expand(root_of("a: ${env.X as list}\n"), environment(X="b, ${c}")).root
        assert to_data(root) == {"a": ["b", "${c}"]}
        item = locate(root, ["a", 1])
        assert (str(item.place), [note.message for note in item.notes]) == (
            "f.yml:1:4",
            ["`X` comes from .env:1 and is `b, ${c}`"],
        )
        assert value("'${env.X as json}'", X='{"b": [1, {"c": null}]}') == {"b": [1, {"c": None}]}

    def test_scalars_that_are_no_text_stay(self) -> None:
        assert expanded("a: [1, 0.5, true, null, x]\n") == {"a": [1, 0.5, True, None, "x"]}

    @settings(deadline=None)
    @given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
    def test_nothing_in_a_variable_is_read_again(self, x: str, y: str) -> None:
        found = expanded("a: '(${env.X}|${env.Y})'\nb: '${env.X as text}'\n", X=x, Y=y)
        assert found == {"a": f"({x}|{y})", "b": x}


class TestOrigins:
    def notes(self, scalar: str, env: Environment, key: str = "a") -> list[str]:
        root = expand(root_of(f"{key}: {scalar}\n"), env).root
        return [note.message for note in locate(root, [key]).notes]

    def test_a_value_tells_the_variable_that_it_came_from(self) -> None:
        env = Environment({"PORT": Value("80x0", ".env:3"), "HOST": Value("h", "the environment")})
        assert self.notes("${env.HOST}:${env.PORT}", env) == [
            "`HOST` comes from the environment and is `h`",
            "`PORT` comes from .env:3 and is `80x0`",
        ]

    @pytest.mark.parametrize(
        ("key", "name", "text"),
        [("a", "HF_TOKEN", "hf_x"), ("api_key", "X", "sk-x"), ("a", "DATABASE", "postgres://me:pw@host/db")],
    )
    def test_what_may_be_a_secret_is_not_shown(self, key: str, name: str, text: str) -> None:
        env = Environment({name: Value(text, ".env:3")})
        assert self.notes(f"${{env.{name}}}", env, key) == [f"`{name}` comes from .env:3"]

    def test_long_and_unprintable_values_are_cut_and_cleaned(self) -> None:
        (note,) = self.notes("${env.X}", environment(X="\x1b[31m" + "y" * 1000))
        assert "\x1b" not in note
        assert len(note) < 120
        assert note.endswith("...")

    def test_notes_of_aliases_stay(self) -> None:
        root = expand(root_of("a: &a {x: '${env.X}'}\nb: *a\n"), environment(X="1")).root
        assert [note.message for note in locate(root, ["b", "x"]).notes] == [
            "used here through the alias `*a`",
            "`X` comes from .env:1 and is `1`",
        ]


class TestUnset:
    def test_all_are_told_each_with_the_place_of_the_reference(self) -> None:
        text = "a: ${env.A}\nb:\n  - x ${env.B} ${input.x | ${env.C}}\n  - |\n    one\n    two ${env.D}\n"
        found = mistakes(text)
        assert [(underlined(each), str(each.place)) for each in found] == [
            ("${env.A}", "f.yml:1:4"),
            ("${env.B}", "f.yml:3:7"),
            ("${env.C}", "f.yml:3:28"),
            ("${env.D}", "f.yml:6:9"),
        ]
        assert found[0].message == "environment variable `A` is not set"

    def test_the_hint_names_the_nearest_variable_and_the_ways_to_set_it(self) -> None:
        (error,) = mistakes("a: ${env.PROT}\n", PORT="1")
        assert "did you mean `PORT`?" in str(error.hint)
        assert ".env" in str(error.hint)
        assert "-e PROT=..." in str(error.hint)

    def test_expressions_that_cannot_be_read_are_told_with_them(self) -> None:
        messages = [each.message for each in mistakes("a: ${env.A}\nb: ${input.\nc: 1\nd: ${env.D}\n")]
        assert len(messages) == 3
        assert "not closed" in messages[1]

    def test_a_mistake_that_an_alias_repeats_is_told_once(self) -> None:
        (error,) = mistakes("a: &a ${env.A}\nb: *a\nc: [*a]\n")
        assert underlined(error) == "${env.A}"

    def test_a_mistake_in_an_aliased_value_tells_of_the_alias(self) -> None:
        (error,) = mistakes("x-a: &a {b: '${env.A}'}\nc: *a\n")
        assert [note.message for note in error.notes] == ["used here through the alias `*a`"]

    def test_a_token_is_null_with_a_warning(self) -> None:
        expansion = expand(root_of("a:\n  token: ${env.HF_TOKEN}\n"), environment())
        root, warnings = expansion.root, expansion.warnings
        assert to_data(root) == {"a": {"token": None}}
        (warning,) = warnings
        assert "`HF_TOKEN` is not set" in warning.message
        assert underlined(warning) == "${env.HF_TOKEN}"

    @pytest.mark.parametrize("text", ["model: {token: hf_abc}\n", "a: [{token: 123abc}]\n"])
    def test_a_token_that_stands_in_the_file_is_a_warning(self, text: str) -> None:
        (warning,) = expand(root_of(text), environment()).warnings
        assert "a token stands in the file" in warning.message
        assert underlined(warning) in ("hf_abc", "123abc")

    @pytest.mark.parametrize("text", ["token: ''\n", "token:\n", "headers: {token: abc}\n", "tokens: abc\n"])
    def test_other_keys_are_no_tokens(self, text: str) -> None:
        assert expand(root_of(text), environment()).warnings == ()

    @pytest.mark.parametrize(
        "text", ["token: '${env.'\n", "headers: {token: '${env.A}'}\n", "tokens: '${env.A}'\n"]
    )
    def test_only_an_unset_token_is_forgiven(self, text: str) -> None:
        assert len(mistakes(text)) == 1

    @pytest.mark.parametrize("text", ["${env.A}", "a ${env.A} b", "${env.", "${input.x | ${env.A}}"])
    def test_free_keys_never_fail(self, text: str) -> None:
        assert expanded(f"x-a: {{b: ['{text}']}}\n") == {"x-a": {"b": [text]}}

    def test_free_keys_are_filled_in_all_the_same(self) -> None:
        assert expanded("x-a: ${env.A}\nc: {x-b: '${env.B}'}\n", A="1", B="2") == {"x-a": 1, "c": {"x-b": 2}}

    @pytest.mark.parametrize("key", ["headers", "body", "input"])
    def test_a_header_that_starts_like_a_free_key_is_none(self, key: str) -> None:
        (error,) = mistakes(f"{key}:\n  x-api-key: ${{env.A}}\n")
        assert underlined(error) == "${env.A}"

    def test_a_variable_that_is_not_utf_8_is_refused(self) -> None:
        (error,) = mistakes("a: ${env.A}\n", A="caf\udce9")
        assert error.message == "`A` is not UTF-8 text"


def test_a_tree_without_variables_stays_as_it_is() -> None:
    root = root_of("a: [1, {b: x}]\n")
    assert expand(root, environment()) == Expansion(root, (), (), frozenset())


def test_what_a_later_file_replaces_needs_no_variable() -> None:
    root = merge(root_of("a: ${env.UNSET}\nb: ${env.X}\n", "one.yml"), root_of("a: 1\n", "two.yml"))
    assert to_data(expand(root, environment(X="2")).root) == {"a": 1, "b": 2}
