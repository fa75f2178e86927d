from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import UNSET
from tests.config.expressions import SOURCES, value, whole

from model_compose.config.expression import Each, ExpressionError, Reference, Scope, Slice, Template
from model_compose.config.grammar import MAX_DEPTH, parse
from model_compose.config.values import Type
from model_compose.errors import ConfigError, ConfigErrors


def mistake(text: str) -> ExpressionError:
    (only,) = mistakes(text)
    return only


def mistakes(text: str) -> list[ExpressionError]:
    with pytest.raises(ConfigErrors) as caught:
        parse(text)
    return [each for each in caught.value.errors if isinstance(each, ExpressionError)]


def test_a_reference_says_where_its_value_comes_from() -> None:
    reference = whole("${jobs.embed-query.output[0][-1][1:][*].query_vector}")
    assert reference.source == "jobs"
    assert reference.path == ("embed-query", "output", 0, -1, Slice(1, None), Each(), "query_vector")
    assert not reference.per_chunk
    assert reference.field == "jobs.embed-query.output[0][-1][1:][*].query_vector"


@pytest.mark.parametrize(
    ("text", "source", "per_chunk", "path"),
    [
        ("${input}", "input", False, ()),
        ("${ input.a }", "input", False, ("a",)),
        ("${result[]}", "result", True, ()),
        ("${response[].choices[0].delta}", "response", True, ("choices", 0, "delta")),
        ("${gateway:8090.public_url}", "gateway:8090", False, ("public_url",)),
        ("${_x[2]}", "_x", False, (2,)),
        ("${input.이름.0}", "input", False, ("이름", "0")),
        ("${input.as}", "input", False, ("as",)),
        ("${input[ 1 : 2 ]}", "input", False, (Slice(1, 2),)),
        ("${input[:]}", "input", False, (Slice(),)),
    ],
)
def test_sources_and_paths(text: str, source: str, per_chunk: bool, path: tuple[Any, ...]) -> None:
    reference = whole(text)
    assert (reference.source, reference.per_chunk, reference.path) == (source, per_chunk, path)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("text", Type("text")),
        ("text[]", Type("text", many=True)),
        ("image/png;base64", Type("image", subtype="png", format="base64")),
        ("image ; url", Type("image", format="url")),
        ("file/vnd.ms-excel;data-uri", Type("file", subtype="vnd.ms-excel", format="data-uri")),
        (
            "audio/pcm[rate=16000, channels=1]",
            Type("audio", False, "pcm", (), (("rate", "16000"), ("channels", "1"))),
        ),
        ("object[]/a,b.c", Type("object", many=True, options=("a", "b.c"))),
        ("select/very good, bad", Type("select", options=("very good", "bad"))),
        ("slider/0,2,0.1", Type("slider", options=("0", "2", "0.1"))),
        ("stream/json", Type("stream", subtype="json")),
        ("text;stream", Type("stream", subtype="text")),
        ("json;stream", Type("stream", subtype="json")),
        ("string;sse-text", Type("stream", subtype="text")),
        ("text;sse-json", Type("stream", subtype="json")),
        ("audio/mp3;stream", Type("audio", subtype="mp3", format="stream")),
    ],
)
def test_types(written: str, expected: Type) -> None:
    assert whole(f"${{input.x as {written}}}").type == expected
    reference = whole(f"${{input.x as {written} @(description (all of) it)}}")
    assert reference.type == expected
    assert reference.annotations == (("description", "(all of) it"),)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("0.7", 0.7),
        ("7", 7),
        ("true", True),
        ("null", None),
        ("", None),
        ("  plain text  ", "plain text"),
        ("yes", "yes"),
        ('"gpt-4o"', "gpt-4o"),
        ("'gpt-4o'", "gpt-4o"),
        ('"0.7"', "0.7"),
        ('""', ""),
        ("'it''s'", "it's"),
        (r'"a \"word\"\n\\"', 'a "word"\n\\'),
        (r'"}\d{"', r"}\d{"),
        (r"\$\{x\} \@(y)", "${x} @(y)"),
        (r"C:\temp", r"C:\temp"),
        ("$${x}", "${x}"),
        ("$5", "$5"),
        ("a | b", "a | b"),
        ("user@example.com", "user@example.com"),
        ("it's", "it's"),
        ("[]", []),
        ('{"a": {"b": [1]}}', {"a": {"b": [1]}}),
        ("{not json}", "{not json}"),
        ("[a", "[a"),
    ],
)
def test_an_untyped_default_is_a_yaml_scalar_or_json(written: str, expected: Any) -> None:
    for text in (f"${{input.x | {written}}}", f"${{input.x|{written}@(title X)}}"):
        found = value(text)
        assert found == expected
        assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${x as text | 0.70}", "0.70"),
        ("${x as number | 0.70}", 0.7),
        ("${x as number | null}", None),
        ('${x as text | "null"}', "null"),
        ("${x as integer | 3.0}", 3),
        ("${x as boolean | true}", True),
        ('${x as json | {"a": 1}}', {"a": 1}),
        ("${x as list | a, b}", ["a", "b"]),
        ("${x as integer[] | 1,2}", [1, 2]),
        ("${x as select/1,2 | 1}", "1"),
        ("${x as slider/0,2,0.1 | 0.7}", 0.7),
        ("${x as base64 | a}", "YQ=="),
        ("${x as image | https://example.com/a.png}", "https://example.com/a.png"),
    ],
)
def test_a_typed_default_is_converted(text: str, expected: Any) -> None:
    found = value(text)
    assert found == expected
    assert type(found) is type(expected)


def test_a_default_of_a_media_type_goes_through_the_converter() -> None:
    scope = Scope({}, {"image": lambda value, wanted, field: f"{wanted.format} {value} for {field}"})
    assert whole("${input.logo as image;url | https://x.y}").render(scope) == "url https://x.y for logo"


def test_defaults_nest_to_any_depth() -> None:
    text = '${input.a | ${input.b as text | "Dear ${input.c | ${input.d | {nobody}}}!"} @(x y)}'
    assert value(text) == "Dear {nobody}!"
    assert value(text, input={"d": "D"}) == "Dear D!"
    assert value(text, input={"b": 5, "d": "D"}) == "5"
    assert value(text, input={"a": 0}) == 0
    assert [each.field for each in whole(text).references()] == ["a", "b", "c", "d"]


def test_quotes_around_a_nested_expression_do_not_change_its_type() -> None:
    assert value('${input.a | "${input.b}"}', input={"b": 5}) == 5


def test_several_annotations_are_kept_in_order() -> None:
    text = "${input.x as text | a @(title X) @(description Use (a(b)) {c} | d) @(hidden)}"
    assert whole(text).annotations == (("title", "X"), ("description", "Use (a(b)) {c} | d"), ("hidden", ""))
    assert whole(text).default == "a"


def test_offsets_and_text_are_those_of_the_expression() -> None:
    text = "한글 ${input.a | ${b}} and ${c}"
    template = parse(text)
    assert isinstance(template, Template)
    for reference in template.references():
        assert text[reference.start : reference.end] == reference.text
    assert [each.text for each in template.references()] == ["${input.a | ${b}}", "${b}", "${c}"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no expression", "no expression"),
        ("$HOME {x} $ $$ }", "$HOME {x} $ $$ }"),
        ("$${x}", "${x}"),
        ("a $${x} $$${y}", None),
        ("$$$${x}", "$${x}"),
    ],
)
def test_a_doubled_dollar_before_a_brace_is_a_literal_one(text: str, expected: str | None) -> None:
    assert parse(text) == expected if expected else value(text, y="Y") == "a ${x} $Y"


# Mistakes


@pytest.mark.parametrize(
    ("text", "message", "marked"),
    [
        ("a ${input.x", "`${` is not closed", "${input.x"),
        ("${", "`${` is not closed", "${"),
        ("${input.x | {a}", "`${` is not closed", "${input.x | {a}"),
        ("${a | ${b}", "`${` is not closed", "${a | ${b}"),
        ('${a | "b}', 'the quote `"` is not closed', '"b}'),
        ('${a | "b" c}', "unexpected `c`", "c"),
        ("${}", "unexpected `}`, expected the name of a source", "}"),
        ("${1}", "unexpected `1`", "1"),
        ("${x%%.*}", "unexpected `%`", "%"),
        ("${a b}", "unexpected `b`", "b"),
        ("${a as text foo}", "unexpected `f`", "f"),
        ("${a.}", "unexpected `}`, expected a name", "}"),
        ("${a.b[c]}", "`[c]` is no index, slice or `[*]`", "[c]"),
        ("${a.b[]}", "`[]` is no index, slice or `[*]`", "[]"),
        ("${a[1:2:3]}", "`[1:2:3]` is no index", "[1:2:3]"),
        ("${a[99999999999]}", "is no index", "[99999999999]"),
        ("${a[0}", "`[` is not closed", "["),
        ("${a as txt}", "unknown type `txt`", "txt"),
        ("${a as }", "unexpected `}`, expected a type", "}"),
        ("${a as image/}", "unexpected `}`, expected a subtype", "}"),
        ("${a as image;b64}", "unknown format `b64`", "b64"),
        ("${a as image;}", "unexpected `}`, expected a format", "}"),
        ("${a as text;base64}", "`text` has no format `base64`", "text;base64"),
        ("${a as image;sse-text}", "`image` has no format `sse-text`", "image;sse-text"),
        ("${a as audio/pcm[rate]}", "attributes are written", "[rate]"),
        ("${a as select}", "a select names its options", "select"),
        ("${a as slider/a,b}", "a slider names minimum", "slider/a,b"),
        ("${a as stream/xml}", "a stream is", "stream/xml"),
        ("${a as object[]/a.id,b.id}", "have different last names", "object[]/a.id,b.id"),
        ("${a as integer | hot}", 'default of `a`: `"hot"` is not an integer', "hot"),
        ("${a as boolean | yes}", "default of `a`: `yes` is neither `true` nor `false`", "yes"),
        ("${a @(b}", "`@(` is not closed", "@(b}"),
        ("${a @()}", "an annotation has a name", "@()"),
        ("${a @(b) | c}", "unexpected `|`", "|"),
    ],
)
def test_a_mistake_is_found_when_the_text_is_read_and_says_where(
    text: str, message: str, marked: str
) -> None:
    error = mistake(text)
    assert message in error.message
    assert text[error.start : error.end] == marked


def test_mistakes_have_a_way_out() -> None:
    assert "did you mean `text`" in str(mistake("${a as txt}").hint)
    assert "did you mean `base64`" in str(mistake("${a as image;b64}").hint)
    assert "$${" in str(mistake("echo ${x%%.*}").hint)
    assert "$${" in str(mistake("echo ${x").hint)
    assert "`${result[]}`" in str(mistake("${a.b[]}").hint)


def test_nesting_is_bounded() -> None:
    deepest = "${a | " * MAX_DEPTH + "x" + "}" * MAX_DEPTH
    assert value(deepest) == "x"
    assert "nested more than" in mistake("${a | " + deepest + "}").message
    assert "nested more than" in mistake("${a | " * 100_000).message
    assert "more than" in mistake(f"${{a{'[*]' * (MAX_DEPTH + 1)}}}").message


@given(SOURCES)
@example("${input.a as select/")
@example("${a | \\")
@example("${a | $")
def test_any_text_is_read_or_is_an_expression_error(text: str) -> None:
    found: str | Template = ""
    errors: Sequence[ConfigError] = ()
    try:
        found = parse(text)
    except ConfigErrors as mistakes:
        errors = mistakes.errors
    spans = [(each.start, each.end) for each in errors if isinstance(each, ExpressionError)]
    assert len(spans) == len(errors)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert spans == sorted(spans)
    assert isinstance(found, str) or found.render(Scope({})) is not UNSET


def test_every_expression_of_a_text_that_cannot_be_read_is_told() -> None:
    text = "${a as strnig} ${b} ${c.[} $${d as x} ${e | ${f as} } ${g"
    assert [(each.message, text[each.start : each.end]) for each in mistakes(text)] == [
        ("unknown type `strnig`", "strnig"),
        ("unexpected `[`, expected a name behind the `.`", "["),
        ("unexpected `}`, expected a type", "}"),
        ("`${` is not closed", "${g"),
    ]


def test_of_a_text_with_very_many_mistakes_some_are_told() -> None:
    assert len(mistakes("${ " * 100_000)) == 20


@given(st.text(alphabet="ab ${}\\|@().[]").filter(lambda text: "${" not in text))
def test_a_text_without_an_expression_is_unchanged(text: str) -> None:
    assert parse(text) == text


@given(st.lists(st.sampled_from(["$", "{", "}", "x"])).map("".join))
def test_every_text_can_be_written_literally(text: str) -> None:
    written, dollars = "", ""
    for char in text:
        if char == "$":
            dollars += char
            continue
        written += dollars * 2 if char == "{" else dollars
        written, dollars = written + char, ""
    assert parse(written + dollars) == text


NAMES = st.from_regex(r"[a-z_][a-z0-9_-]{0,5}", fullmatch=True)
INDEXES = st.integers(-99, 99)
SEGMENTS = st.one_of(
    NAMES.map(lambda name: (f".{name}", name)),
    INDEXES.map(lambda index: (f"[{index}]", index)),
    st.tuples(st.none() | INDEXES, st.none() | INDEXES).map(
        lambda ends: (
            f"[{'' if ends[0] is None else ends[0]}:{'' if ends[1] is None else ends[1]}]",
            Slice(*ends),
        )
    ),
    st.just(("[*]", Each())),
)
TYPES = st.sampled_from(
    [
        ("", None),
        (" as text", Type("text")),
        (" as image/png;base64", Type("image", subtype="png", format="base64")),
        (" as file/x[a=b]", Type("file", subtype="x", attributes=(("a", "b"),))),
        (" as select/x y,z", Type("select", options=("x y", "z"))),
    ]
)
ANNOTATIONS = st.lists(st.tuples(NAMES, st.sampled_from(["", "a (b) c", "x } y", "${z}"])), max_size=2)


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> tuple[str, Mapping[str, Any]]:
    """The text of an expression, and what is expected of it."""
    key = draw(NAMES) + draw(st.sampled_from(["", "[]", ":80"]))
    segments = draw(st.lists(SEGMENTS, max_size=4))
    written, wanted = draw(TYPES)
    annotations = draw(ANNOTATIONS)
    default: tuple[str, Any] = draw(st.sampled_from([("", UNSET), (' | "a } b"', "a } b"), ("|null", None)]))
    if depth and draw(st.booleans()):
        default = (f" | {draw(expressions(depth - 1))[0]}", Reference)
    text = "".join(
        ["${", key, *(each for each, _ in segments), written, default[0]]
        + [f" @({name} {about})" for name, about in annotations]
        + ["}"]
    )
    path = tuple(segment for _, segment in segments)
    return text, {
        "key": key,
        "path": path,
        "type": wanted,
        "default": default[1],
        "annotations": tuple(annotations),
    }


@given(expressions(), st.sampled_from(["", "a ", "$$"]))
def test_what_is_written_is_what_is_read(expression: tuple[str, Mapping[str, Any]], before: str) -> None:
    text, expected = expression
    template = parse(before + text)
    assert isinstance(template, Template)
    reference = next(template.references())
    assert reference.text == text
    for name, wanted in expected.items():
        found = getattr(reference, name)
        assert isinstance(found, Reference) if wanted is Reference else found == wanted
    assert parse(before + text) == template
