"""Does every character of a text stand where its place says?"""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.config.documents import root_of

from model_compose.config import load
from model_compose.config.tree import Node, locate

REFERENCE = "${env.X}"


def underlined(node: Node, part: str) -> tuple[str, str]:
    """What the place of a part of the node's text is, and what stands there."""
    assert isinstance(node.value, str)
    start = node.value.index(part)
    place = node.place_of(start, start + len(part))
    return f"{place.line}:{place.column}", place.text[place.column - 1 : place.end_column - 1]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: ${env.X}", "1:4"),
        ("a: before ${env.X} after", "1:11"),
        ("a: &anchor ${env.X}", "1:12"),
        ("a: 'it''s ''here'' ${env.X}'", "1:20"),
        ('a: "\\u00e9\\x41\\U0001F600\\n\\"${env.X}"', "1:29"),
        ("a: 한국어 ${env.X}", "1:8"),
        ("- a: [x, 'y ${env.X}']", "1:13"),
        ("a: first\n   second\n\n   third ${env.X}", "4:10"),
        ("a: 'first\n\n\n  it''s ${env.X}'", "4:9"),
        ('a: "first \\\n  \\  second\n  \\t${env.X}"', "3:5"),
        ("a: |\n  one\n\n    two\n   ${env.X}\n", "5:4"),
        ("a: >-\n  one\n  two ${env.X}\n\n  three", "3:7"),
        ("a: |2+\n    one\n  ${env.X}\n\n", "3:3"),
        ("a: |  # why\n\n  one ${env.X}", "3:7"),
        ("a: |\r\n  one\r\n  two ${env.X}\r\n", "3:7"),
        ("a: ${env.X}${env.Y}", "1:4"),
    ],
)
@pytest.mark.parametrize("loader", [yaml.CSafeLoader, yaml.SafeLoader])
def test_a_reference_is_underlined_where_it_is_written(
    text: str, place: str, loader: type[yaml.SafeLoader]
) -> None:
    if text.startswith("- "):
        root = load._parse(f"x:\n{text}", "f.yml", loader).root
        node = locate(root, ["x", 0, "a", 1])
        line, column = place.split(":")
        place = f"{int(line) + 1}:{column}"
    else:
        node = locate(load._parse(text, "f.yml", loader).root, ["a"])
    assert underlined(node, REFERENCE) == (place, REFERENCE)


def test_of_lines_that_are_alike_each_has_its_own_place() -> None:
    node = locate(root_of("a: |\n  x ${env.X}\n  x ${env.X}\n"), ["a"])
    assert [str(node.place_of(start, start + 8)) for start in (2, 13)] == ["f.yml:2:5", "f.yml:3:5"]


def test_in_a_text_of_enormous_length_everything_stands_at_its_beginning() -> None:
    node = locate(root_of(f'a: "{"x" * 200_000} ${{env.X}}"'), ["a"])
    assert str(node.place_of(200_001, 200_009)) == "f.yml:1:4"


def test_a_part_of_several_lines_is_underlined_on_its_first() -> None:
    node = locate(root_of("a: x ${env.X |\n  y} z\n"), ["a"])
    assert underlined(node, "${env.X | y}") == ("1:6", "${env.X |")


def test_a_part_with_escapes_is_underlined_whole() -> None:
    node = locate(root_of('a: "x ${env.X | \\"y\\"} z"'), ["a"])
    assert underlined(node, '${env.X | "y"}') == ("1:7", '${env.X | \\"y\\"}')


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8", max_codepoint=0xFFFF), max_size=20))
def test_any_escapes_may_come_before(before: str) -> None:
    node = locate(root_of(f"a: {json.dumps(before + REFERENCE)}"), ["a"])
    assert node.value == before + REFERENCE
    assert underlined(node, REFERENCE)[1] == REFERENCE


_words = st.sampled_from(["a", "bc", "it's", "d: e", "#f", '"g"', "  h", "", "한국"])


@settings(deadline=None)
@given(st.lists(_words, max_size=5), st.sampled_from(["|", ">", "|-", ">+"]), st.integers(1, 4))
def test_any_lines_may_come_before_in_a_block(lines: list[str], header: str, indent: int) -> None:
    body = "".join(f"{' ' * indent}{line}\n" for line in ["x", *lines, f"y {REFERENCE} z"])
    node = locate(root_of(f"a: {header}\n{body}"), ["a"])
    assert underlined(node, REFERENCE) == (f"{len(lines) + 3}:{indent + 3}", REFERENCE)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "bc", "d''e", "", "  f"]), max_size=5), st.sampled_from(["'", '"', ""]))
def test_any_lines_may_come_before_in_folded_text(lines: list[str], quote: str) -> None:
    body = "\n".join(f"   {line}" for line in ["x", *lines, f"y {REFERENCE} z"])
    node = locate(root_of(f"a: {quote}{body}{quote}"), ["a"])
    assert underlined(node, REFERENCE) == (f"{len(lines) + 2}:6", REFERENCE)
