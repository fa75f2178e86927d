from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.config.catalog import FixedCatalog
from tests.config.documents import root_of

from model_compose.config.environment import Environment, Value
from model_compose.config.expand import expand
from model_compose.config.expression import Template
from model_compose.config.load import parse
from model_compose.config.mistakes import Mistakes
from model_compose.config.quantities import DURATION
from model_compose.config.read import WRONG, Reader
from model_compose.config.spec import Positive, doc
from model_compose.config.tree import Entry, Node, at_key
from model_compose.errors import ConfigError


class Circle(msgspec.Struct, frozen=True, tag_field="shape", tag="circle"):
    radius: float


class Square(msgspec.Struct, frozen=True, tag_field="shape", tag="square"):
    side: float
    turned: bool = False


class Part(msgspec.Struct, frozen=True):
    name: str
    count: int = 1


class Thing(msgspec.Struct, frozen=True, kw_only=True):
    name: Annotated[str, doc("its name", aliases=("title",))]
    size: Annotated[Positive | None, doc("its size")] = None
    share: Annotated[float, doc("its share", gt=0, le=1)] = 0.5
    colour: Annotated[Literal["red", "green"], doc("its colour", later={"blue": "write `green`"})] = "red"
    tags: Annotated[tuple[str, ...] | str, doc("its tags")] = ()
    pause: Annotated[float | None, doc("how long", quantity=DURATION)] = None
    part: Annotated[Part | None, doc("its part")] = None
    parts: Annotated[list[Part], doc("its parts")] = []
    form: Annotated[str | Circle | Square | None, doc("its form")] = None
    rows: Annotated[list[list[int]] | list[int] | None, doc("numbers")] = None
    free: Annotated[dict[str, Any], doc("anything")] = {}
    text: Annotated[str | None, doc("a template", template=True)] = None
    any: Annotated[Any, doc("a template of anything", template=True)] = None
    task: Annotated[str | None, doc("what it does", refers_to="task")] = None


def read(text: str, **variables: str) -> tuple[Any, list[ConfigError]]:
    """The thing of a text, and the mistakes in it."""
    environment = Environment({name: Value(value, ".env:1") for name, value in variables.items()})
    document = parse(text, "f.yml")
    expansion = expand(document.root, environment)
    mistakes = Mistakes()
    thing = Reader(mistakes, FixedCatalog()).struct(expansion.root, Thing, "the thing", "job")
    return thing, mistakes.errors


def thing(keys: str, **variables: str) -> Thing:
    found, errors = read(f"name: x\n{keys}\n", **variables)
    assert [error.message for error in errors] == []
    assert isinstance(found, Thing)
    return found


def mistake(keys: str, **variables: str) -> ConfigError:
    found, errors = read(f"name: x\n{keys}\n", **variables)
    assert isinstance(found, Thing)  # the rest of it is still there to be looked at
    (only,) = errors
    return only


class TestValues:
    @pytest.mark.parametrize(
        ("keys", "field", "value"),
        [
            ("size: 3", "size", 3),
            ("size: null", "size", None),
            ("share: 1", "share", 1.0),
            ("tags: a", "tags", "a"),
            ("tags: [a, 1.10, true]", "tags", ("a", "1.10", "true")),
            ("text: 1.10", "text", "1.10"),
            ("pause: 5m", "pause", 300.0),
            ("pause: null", "pause", None),
            ("part: {name: p}", "part", Part("p")),
            ("parts: [{name: p, count: 2}]", "parts", [Part("p", 2)]),
            ("form: {shape: square, side: 1}", "form", Square(1.0)),
            ("form: {side: 1, turned: true}", "form", Square(1.0, True)),
            ("form: {radius: 1}", "form", Circle(1.0)),
            ("form: round", "form", "round"),
            ("rows: [1, 2]", "rows", [1, 2]),
            ("rows: [[1], [2]]", "rows", [[1], [2]]),
            ("rows: []", "rows", []),
            ("free: {a: [1, {b: x}]}", "free", {"a": [1, {"b": "x"}]}),
            ("any: {x-a: [1, {b: x}]}", "any", {"x-a": [1, {"b": "x"}]}),
            ("task: text-embedding", "task", "text-embedding"),
            ("size: ${env.N}", "size", 7),
            ("text: ${env.N}", "text", "7"),
            ("tags: ${env.L as list}", "tags", ("a", "b")),
            ('part: \'${env.UNSET | {"name": "p"}}\'', "part", Part("p")),
        ],
    )
    def test_a_value_of_the_right_type_is_taken(self, keys: str, field: str, value: Any) -> None:
        found = getattr(thing(keys, N="7", L="a,b"), field)
        assert found == value
        assert type(found) is type(value)

    def test_a_field_has_its_other_names(self) -> None:
        found, errors = read("title: y\n")
        assert (found.name, errors) == ("y", [])

    def test_a_template_stays_one_where_it_may(self) -> None:
        assert isinstance(thing("text: a ${input.x}").text, Template)
        assert isinstance(thing("any: [{b: '${input.x}'}]").any[0]["b"], Template)

    def test_free_keys_are_taken_nowhere(self) -> None:
        found = thing("x-a: 1\npart: {name: p, x-b: 2}\nfree: {x-c: 1, d: {x-e: 2}}")
        assert (found.part, found.free) == (Part("p"), {"d": {}})


class TestMistakes:
    @pytest.mark.parametrize(
        ("keys", "message"),
        [
            ("size: 0", "`size` of the thing: expected an integer of at least 1 or null, found `0`"),
            ("size: 2.0", "`size` of the thing: expected an integer of at least 1 or null, found `2.0`"),
            ("share: .nan", "`share` of the thing: expected a number above 0 and at most 1, found `.nan`"),
            ("share: true", "`share` of the thing: expected a number above 0 and at most 1, found `true`"),
            ("share:", "`share` of the thing: expected a number above 0 and at most 1, found nothing"),
            ("share: null", "`share` of the thing: expected a number above 0 and at most 1, found `null`"),
            ("size: {a: 1}", "`size` of the thing: expected an integer of at least 1 or null, found a map"),
            ("tags: [a, [b]]", "item 2 of `tags` of the thing: expected text, found a list"),
            ("tags: [a, null]", "item 2 of `tags` of the thing: expected text, found `null`"),
            ("colour: yellow", '`colour` of the thing: expected one of `red`, `green`, found `"yellow"`'),
            ("colour: blue", "`blue` as `colour` of the thing is known, and not supported yet"),
            ("part: p", '`part` of the thing: expected a map or null, found `"p"`'),
            ("part: {}", "`name` is missing in `part` of the thing"),
            ("part: {name: p, c: 1}", "unknown field `c` in `part` of the thing"),
            ("parts: {name: p}", "`parts` of the thing: expected a list, found a map"),
            (
                "parts: [{name: []}]",
                "`name` of item 1 of `parts` of the thing: expected text, found an empty list",
            ),
            ("form: {shape: round}", "unknown shape `round` in `form` of the thing"),
            (
                "form: {shape: [round]}",
                "`shape` of `form` of the thing: expected one of `circle`, `square`, found a list",
            ),
            ("form: {side: x}", '`side` of `form` of the thing: expected a number, found `"x"`'),
            ("form: [x]", "`form` of the thing: expected text or a map or null, found a list"),
            ("rows: [1, [2]]", "item 2 of `rows` of the thing: expected an integer, found a list"),
            (
                "size: 9223372036854775808",
                "`size` of the thing: expected an integer of at least 1 or null, found `9223372036854775808`",
            ),
            ("task: sing", "unknown task `sing` in the thing"),
            ("title: y", "`name` and `title` are the same field of the thing"),
            ("interrupt: 3", "`interrupt` of the thing is known, and not supported yet"),
            ("size: ${input.n}", "`${input.n}` has no value yet when `size` of the thing is read"),
            (
                "free: {a: '${input.n}'}",
                "`${input.n}` has no value yet when `a` in `free` of the thing is read",
            ),
            (
                "size: ${env.UNSET as image | x}",
                "`size` of the thing: expected an integer of at least 1 or null, found an expression",
            ),
        ],
    )
    def test_a_wrong_value_is_told_in_words(self, keys: str, message: str) -> None:
        assert mistake(keys).message == message

    @pytest.mark.parametrize(
        ("keys", "hint"),
        [
            ("colour: gren", "did you mean `green`?"),
            ("colour: blue", "write `green`"),
            ("form: {side: 1, turned: yes}", "in YAML 1.2 only `true` and `false` are booleans"),
            ("size: '3'", "leave out the quotes"),
            ("form: {side: 1, turned: 'true'}", "leave out the quotes"),
            ("tags: {a: 1}", None),
            ("task: text-embeding", "did you mean `text-embedding`?"),
            ("part: {}", None),
        ],
    )
    def test_the_hint_is_what_to_do(self, keys: str, hint: str | None) -> None:
        found = mistake(keys).hint
        assert found is None if hint is None else str(found).startswith(hint)

    def test_a_missing_field_says_what_it_is_for(self) -> None:
        found, (error,) = read("size: 1\n")
        assert found is WRONG
        assert (error.message, error.hint) == ("`name` is missing in the thing", "its name")

    def test_what_came_from_a_variable_says_so(self) -> None:
        error = mistake("size: ${env.N}", N="many")
        assert [note.message for note in error.notes] == ["`N` comes from .env:1 and is `many`"]
        assert error.hint is None

    def test_all_mistakes_are_told(self) -> None:
        _, errors = read("size: x\nshare: y\npart: {count: z, d: 1}\nform: {shape: s}\n")
        assert len(errors) == 7

    def test_what_is_lost_is_not_told_again(self) -> None:
        for text in (
            "name: ${env.A}\n",
            "name: x\nparts: *none\n",
            "<<: *none\n",
            "name: x\npart: {? [a] : 1}\n",
        ):
            found, errors = read(text)
            assert (errors, found is WRONG) == ([], "name: x" not in text)


class TestTemplates:
    """Where any value may contain `${...}`, data is read for a tree to be compiled."""

    def data(self, text: str) -> tuple[Any, list[str]]:
        mistakes = Mistakes()
        node = at_key(expand(root_of(f"parts: {text}\n"), Environment({})).root, "parts")
        assert node is not None
        reader = Reader(mistakes, FixedCatalog()).of_templates()
        found = reader.value(node, list[Part] | Part, "`parts`", template=True)
        return found, [error.message for error in mistakes.errors]

    def test_constants_are_of_their_types_and_free_keys_are_left_out(self) -> None:
        assert self.data("[{name: 1.10, count: 2, x-a: 1}]") == ([{"name": "1.10", "count": 2}], [])

    def test_expressions_stand_anywhere(self) -> None:
        found, errors = self.data(
            "['${input.a}', {name: '${input.b}', count: '${input.c}'}, '...${input.d}']"
        )
        assert errors == []
        assert [type(each) for each in (found[0], found[1]["name"], found[1]["count"], found[2])] == [
            Template
        ] * 4

    def test_constants_beside_expressions_are_looked_at(self) -> None:
        _, errors = self.data("{name: '${input.b}', count: many}")
        assert errors == ['`count` of `parts`: expected an integer, found `"many"`']

    @pytest.mark.parametrize("key", ["*", "|", "?", "+", "..."])
    def test_a_map_with_an_operator_is_known_when_it_is_rendered(self, key: str) -> None:
        found, errors = self.data(f"{{'{key}': '${{input.x}}', other: 1}}")
        assert errors == []
        assert found.keys() == {key, "other"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(Thing.__struct_fields__), JSON))
def test_whatever_stands_there_is_read_or_told(data: dict[str, Any]) -> None:
    def node(value: Any) -> Node:
        if isinstance(value, dict):
            return Node({key: Entry(key, place, node(item)) for key, item in value.items()}, place)
        if isinstance(value, list):
            return Node(tuple(map(node, value)), place)
        return Node(value, place, text=None if isinstance(value, str) else str(value))

    place = root_of("a: 1\n").place
    mistakes = Mistakes()
    found = Reader(mistakes, FixedCatalog()).struct(node(data), Thing, "the thing")
    assert mistakes.errors or isinstance(found, Thing)
