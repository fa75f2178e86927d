"""Does a YAML text become the tree that it means, with every place right, or one clear error?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.config.documents import Map, Scalar, Written, documents, root_of, text_of

from model_compose.config import load
from model_compose.config.load import MAX_DEPTH, MAX_NODES, find, parse, read
from model_compose.config.text import MAX_BYTES
from model_compose.config.tree import Node, locate, locate_key, to_data
from model_compose.errors import ConfigError, ConfigErrors, Place


def mistakes(text: str) -> tuple[ConfigError, ...]:
    try:
        found = parse(text, "f.yml").errors
    except ConfigErrors as errors:
        found = errors.errors
    assert found
    return ConfigErrors(found).errors  # in the order of the file


def mistake(text: str) -> ConfigError:
    (only,) = mistakes(text)
    return only


def underlined(place: Place | None) -> str:
    assert place is not None
    return place.text[place.column - 1 : place.end_column - 1]


def reference(text: str) -> Any:
    """The data of a document by PyYAML's composer and the table of YAML 1.2.2, section 10.3.2."""

    class Core(yaml.SafeLoader):
        yaml_implicit_resolvers = {}  # noqa: RUF012

    for tag, pattern in (
        ("null", "null|Null|NULL|~|"),
        ("bool", "true|True|TRUE|false|False|FALSE"),
        ("int", "[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
        (
            "float",
            r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?(\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN",
        ),
    ):
        Core.add_implicit_resolver(tag, re.compile(f"^({pattern})$"), None)

    def data(node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            return {key.value: data(value) for key, value in node.value}
        if isinstance(node, yaml.SequenceNode):
            return [data(item) for item in node.value]
        text = node.value
        if node.tag == "int":
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        if node.tag == "float":
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        return {"null": None, "bool": text.lower() == "true"}.get(node.tag, text)

    root = yaml.compose(text, Loader=Core)
    assert root is not None
    return data(root)


def check_places(node: Node, written: Written) -> None:
    if isinstance(written, Scalar):
        assert underlined(node.place) == written.written
    elif isinstance(written, Map):
        assert isinstance(node.value, dict)
        for entry, (key, value) in zip(node.value.values(), written.items, strict=True):
            assert underlined(entry.key_place) == key
            check_places(entry.node, value)
    else:
        assert isinstance(node.value, tuple)
        for child, item in zip(node.value, written.items, strict=True):
            check_places(child, item)
    if not isinstance(written, Scalar) and written.flow:
        assert underlined(node.place) == text_of(written)


class TestWhatIsRead:
    @settings(deadline=None)
    @given(documents)
    def test_the_data_is_that_of_yaml_1_2_and_stands_where_its_place_says(self, written: Map) -> None:
        text = text_of(written)
        root = root_of(text)
        assert repr(to_data(root)) == repr(reference(text))
        check_places(root, written)
        assert all(place.text == text.split("\n")[place.line - 1] for place in places(root))
        by_the_parser_in_python = load._parse(text, "f.yml", yaml.SafeLoader).root
        assert repr(by_the_parser_in_python) == repr(root)

    def test_a_number_keeps_the_text_that_it_was_written_as(self) -> None:
        root = root_of("revision: 1.10\nflag: True\nnothing: ~\nname: '1.10'\n")
        assert [locate(root, [key]).text for key in ("revision", "flag", "nothing", "name")] == [
            "1.10",
            "True",
            "~",
            None,
        ]

    def test_keys_are_text(self) -> None:
        assert to_data(root_of("8080: a\ntrue: b\n1.0: c\nyes: d\n")) == {
            "8080": "a",
            "true": "b",
            "1.0": "c",
            "yes": "d",
        }

    def test_a_block_scalar_stands_at_its_first_line_of_text(self) -> None:
        root = root_of("a:\n  b: |  # comment\n\n    first\n      second\n  c: >-\n    folded\n")
        assert str(locate(root, ["a", "b"]).place) == "f.yml:4:5"
        assert underlined(locate(root, ["a", "b"]).place) == "first"
        assert str(locate(root, ["a", "c"]).place) == "f.yml:7:5"

    def test_an_empty_value_stands_behind_its_colon(self) -> None:
        root = root_of("a:\nb: |\nc: 1\n")
        assert str(locate(root, ["a"]).place) == "f.yml:1:3"
        assert str(locate(root, ["b"]).place) == "f.yml:2:4"
        assert to_data(root) == {"a": None, "b": "", "c": 1}

    def test_a_value_stands_behind_its_anchor(self) -> None:
        root = root_of("a: &x foo\nb: &y  # why\n  c: 1\nd: &z [1]\ne: &empty\n")
        assert underlined(locate(root, ["a"]).place) == "foo"
        assert underlined(locate(root, ["b"]).place) == "c: 1"
        assert underlined(locate(root, ["d"]).place) == "[1]"
        assert str(locate(root, ["e"]).place) == "f.yml:5:10"

    @pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r"])
    def test_line_breaks_of_all_systems_are_counted(self, line_break: str) -> None:
        root = root_of(line_break.join(["a: 1", "", "b:", "  - x", ""]))
        assert locate(root, ["b", 0]).place == Place("f.yml", 4, 5, 6, "  - x")

    def test_a_byte_order_mark_shifts_nothing(self) -> None:
        assert locate(root_of("\ufeffa: 1"), ["a"]).place == Place("f.yml", 1, 4, 5, "a: 1")


def places(node: Node) -> list[Place]:
    found = [node.place]
    if isinstance(node.value, dict):
        for entry in node.value.values():
            found += [entry.key_place, *places(entry.node)]
    elif isinstance(node.value, tuple):
        for item in node.value:
            found += places(item)
    return found


class TestAliases:
    TEXT = """\
base: &base
  device: cpu
  options: {threads: 2}
embedder:
  <<: *base
  device: cuda
chat: *base
"""

    def test_an_alias_gives_the_value_with_its_own_place_and_a_note_of_the_alias(self) -> None:
        threads = locate(root_of(self.TEXT), ["chat", "options", "threads"])
        assert threads.value == 2
        assert str(threads.place) == "f.yml:3:22"
        assert [(note.message, str(note.place)) for note in threads.notes] == [
            ("used here through the alias `*base`", "f.yml:7:7")
        ]

    def test_a_merge_brings_in_what_the_map_does_not_say_itself(self) -> None:
        root = root_of(self.TEXT)
        assert to_data(locate(root, ["embedder"])) == {"device": "cuda", "options": {"threads": 2}}
        options = locate(root, ["embedder", "options"])
        assert [(note.message, str(note.place)) for note in options.notes] == [
            ("merged here by `<<: *base`", "f.yml:5:7")
        ]
        assert locate(root, ["embedder", "device"]).notes == ()
        assert str(locate_key(root, ["embedder", "options"]).place) == "f.yml:3:3"

    def test_the_anchor_itself_has_no_note(self) -> None:
        assert locate(root_of(self.TEXT), ["base", "options"]).notes == ()

    def test_of_several_merged_maps_the_first_wins(self) -> None:
        text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc:\n  <<: [*a, *b]\n  z: 3\n"
        assert to_data(locate(root_of(text), ["c"])) == {"x": 1, "y": 1, "z": 3}

    def test_merges_reach_through_merges(self) -> None:
        text = "a: &a {x: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: *b, z: 3}\n"
        x = locate(root_of(text), ["c", "x"])
        assert x.value == 1
        assert [str(note.place) for note in x.notes] == ["f.yml:2:12", "f.yml:3:9"]

    @pytest.mark.parametrize(
        "text",
        [
            TEXT,
            "a: &a {x: 1}\nb: {<<: *a, <<x: 2}\n",
            "a: &a [1, &b 2]\nc: [*a, *b]\n",
            "a: {<<: {x: 1, y: 2}, x: 3}\n",
        ],
    )
    def test_aliases_and_merges_mean_what_they_mean_to_pyyaml(self, text: str) -> None:
        assert to_data(root_of(text)) == yaml.safe_load(text)

    def test_of_two_anchors_of_a_name_the_later_one_counts(self) -> None:
        assert to_data(root_of("a: &x 1\nb: *x\nc: &x 2\nd: *x\n")) == {"a": 1, "b": 1, "c": 2, "d": 2}

    def test_a_quoted_merge_sign_is_a_key(self) -> None:
        assert to_data(root_of("'<<': {x: 1}\n")) == {"<<": {"x": 1}}

    def test_an_alias_inside_its_own_anchor_is_refused(self) -> None:
        error = mistake("a: &a\n  b: [1, *a]\n")
        assert error.message == "the alias `*a` stands inside the value that it stands for"
        assert underlined(error.place) == "*a"

    def test_an_alias_of_nothing_is_refused_with_the_nearest_anchor(self) -> None:
        error = mistake("a: &model 1\nb: *modle\n")
        assert error.message == "nothing has the anchor `&modle` above this alias"
        assert "did you mean `model`?" in str(error.hint)

    def test_a_billion_laughs_are_refused_at_once(self) -> None:
        levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 12))
        error = mistake(f"l0: &l0 [{', '.join(['lol'] * 10)}]\n{levels}")
        assert error.message == f"the file has more than {MAX_NODES:,} keys and values"
        assert error.hint == "what an alias stands for counts again wherever it is used"

    def test_aliases_do_not_build_deeper_trees_than_a_text_may(self) -> None:
        levels = "".join(f"l{n}: &l{n} [*l{n - 1}]\n" for n in range(1, MAX_DEPTH + 1))
        assert "deep" in mistakes(f"l0: &l0 x\n{levels}")[0].message

    def test_only_maps_are_merged(self) -> None:
        assert mistake("a: &a 1\nb: {<<: *a}\n").message == "`<<` takes a map or a list of maps"
        assert underlined(mistake("a: &a {}\nb: {<<: [*a, x]}\n").place) == "x"


class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "data"),
        [
            ("a: 1\na: 2\nb: 3\n", {"a": 1, "b": 3}),
            ("a: !x 1\nb: 3\n", {"a": None, "b": 3}),
            ("a: *nothing\nb: 3\n", {"a": None, "b": 3}),
            ("a: {<<: *nothing, c: 1}\nb: 3\n", {"a": {"c": 1}, "b": 3}),
            ("a: {? [x] : 1, c: 1}\nb: 3\n", {"a": {"c": 1}, "b": 3}),
            ("b: 3\n---\nc: 1\n", {"b": 3}),
        ],
    )
    def test_the_rest_of_the_file_is_there_all_the_same(self, text: str, data: Any) -> None:
        document = parse(text, "f.yml")
        assert to_data(document.root) == data
        assert len(document.errors) == 1

    def test_what_a_mistake_spoils_is_marked_as_lost(self) -> None:
        root = parse("a: *x\nb: {<<: *y}\nc: {? [x] : 1}\nd: !t 5\ne: {f: 1, f: 2}\n", "f.yml").root
        assert [locate(root, [key]).lost for key in "abcde"] == [True, True, True, True, False]

    def test_every_duplicate_key_is_told_with_its_first_place(self) -> None:
        found = mistakes("a: 1\nb:\n  c: 1\n  'c': 2\na: 2\nd: [{e: 1, e: 2}]\na: 3\n")
        assert [(each.message, str(each.place), str(each.notes[0].place)) for each in found] == [
            ("the key `c` stands twice in one map", "f.yml:4:3", "f.yml:3:3"),
            ("the key `a` stands twice in one map", "f.yml:5:1", "f.yml:1:1"),
            ("the key `e` stands twice in one map", "f.yml:6:12", "f.yml:6:6"),
            ("the key `a` stands twice in one map", "f.yml:7:1", "f.yml:1:1"),
        ]

    def test_who_writes_component_twice_is_told_of_the_list(self) -> None:
        assert "`components:`" in str(mistake("component: {}\ncomponent: {}\n").hint)

    def test_a_duplicate_below_an_anchor_is_told_once(self) -> None:
        assert len(mistakes("a: &a {x: 1, x: 2}\nb: *a\nc: *a\n")) == 1

    def test_mistakes_before_a_syntax_error_are_told_with_it(self) -> None:
        first, second = mistakes("a: 1\na: 2\nb: !x 3\nc: [1, 2\n")[:2]
        assert (first.message, second.message) == (
            "the key `a` stands twice in one map",
            "tags are not used here",
        )
        assert "not closed" in mistakes("a: 1\na: 2\nb: !x 3\nc: [1, 2\n")[2].message

    @pytest.mark.parametrize("tag", ["!custom", "!!python/object:os.system", "!!str", "!", "!<x>"])
    def test_tags_are_refused(self, tag: str) -> None:
        error = mistake(f"a: {tag} b\n")
        assert error.message == "tags are not used here"
        assert underlined(error.place) == tag

    @pytest.mark.parametrize("text", ["? [a]\n: 1\n", "{a: 1}: 2\n", "a: {{ input }}\n"])
    def test_a_key_that_is_no_text_is_refused(self, text: str) -> None:
        assert mistake(text).message == "a key must be text"

    @pytest.mark.parametrize("text", ["?\n: 1\n", "{? : 1}\n"])
    def test_a_missing_key_is_refused(self, text: str) -> None:
        assert mistake(text).message == "a key is missing here"

    @pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "---\n...\n"])
    def test_an_empty_file_is_refused(self, text: str) -> None:
        error = mistake(text)
        assert error.message == "`f.yml` is empty"
        assert "model-compose init" in str(error.hint)

    @pytest.mark.parametrize("text", ["component", "- a\n- b\n", "''", "~", "8080", "a:b"])
    def test_a_file_that_is_no_map_is_refused(self, text: str) -> None:
        assert mistake(text).message == "the file is not a map of keys"

    def test_a_second_document_is_refused(self) -> None:
        error = mistake("---\na: 1\n---\nb: 1\n")
        assert (error.message, str(error.place)) == ("a second document begins here", "f.yml:3:1")

    def test_the_markers_of_a_single_document_are_allowed(self) -> None:
        assert to_data(root_of("---\na: 1\n...\n")) == {"a": 1}

    @pytest.mark.parametrize("opening", ["[", "{a: ", "{? ", "- ", "[{a: "])
    def test_nesting_is_bounded(self, opening: str) -> None:
        assert "deep" in mistakes(f"a:\n {opening * 100_000}")[0].message

    def test_nesting_up_to_the_bound_is_read(self) -> None:
        assert root_of(f"a: {'[' * (MAX_DEPTH - 1)}{']' * (MAX_DEPTH - 1)}\n")

    def test_the_number_of_values_is_bounded(self) -> None:
        assert "100,000 keys and values" in mistake(f"a: [{'0,' * (MAX_NODES + 1)}]").message

    def test_control_characters_are_named_and_not_shown(self) -> None:
        error = mistake("a: 1\nb: \x1b[31m\n")
        assert error.message == "the character `U+001B` is not allowed in YAML"
        assert error.place == Place("f.yml", 2, 4, 5, "b: \ufffd[31m")


@pytest.mark.parametrize("loader", [yaml.CSafeLoader, yaml.SafeLoader])
class TestSyntax:
    """libyaml and the parser in Python stop with different words; both become the same mistake."""

    @pytest.mark.parametrize(
        ("text", "message", "place", "part"),
        [
            ("a:\n\tb: 1\n", "a tab stands where YAML wants spaces", "2:1", "\t"),
            ("a:\n  b: 1\n  \tc: 2\n", "a tab stands where YAML wants spaces", "3:3", "\t"),
            ("a: 1\n\t- x\n", "a tab stands where YAML wants spaces", "2:1", "\t"),
            ("a: @b\n", "a value cannot start with `@`", "1:4", "@"),
            ("a: `b`\n", "a value cannot start with ```", "1:4", "`"),
            ("a: 'b\nc: 1\n", "this quote is never closed", "1:4", "'"),
            ('a: "\\n C:\\models"\n', "this is no escape that YAML knows", "1:10", "\\m"),
            ('a: "\\n \\xZZ"\n', "this is no escape that YAML knows", "1:8", "\\x"),
            ("a: 'it's'\n", "text follows the end of a value", "1:8", "s"),
            ('a: "b" c\nd: 1\n', "text follows the end of a value", "1:8", "c"),
            ("a: b: c\n", "a second `: ` on the line of a key", "1:5", ":"),
            ("a:\n  b: c: \n", "a second `: ` on the line of a key", "2:7", ":"),
            ("a: 1\n\n  b: 2\n", "a key cannot stand below a key that has a value", "3:3", "b: 2"),
            ("a\n  b: 1\n", "this line has no key", "1:1", "a"),
            ("a: 1\nb\nc: 1\n", "this line has no key", "2:1", "b"),
            ("a: 1\nb:2\n", "this line has no key", "2:1", "b:2"),
            ("a: |\nb\n", "this line has no key", "2:1", "b"),
            ("a:\n   b: 1\n  c: 2\n", "this line does not belong to the map above it", "3:3", "c: 2"),
            ("a:\n  - b\n c: 1\n", "this line does not belong to the map above it", "3:2", "c: 1"),
            ("- a\nb: 1\n", "this line does not belong to the list above it", "2:1", "b: 1"),
            ("  a: 1\n b: 2\n", "this line does not belong to what stands above it", "2:2", "b: 2"),
            ("a: - b\n", "a list cannot start here", "1:4", "-"),
            ("a: | b\n", "nothing can follow `|` or `>` on its line", "1:6", "b"),
            ("a: *.gguf\n", "`*` starts the name of an alias, and no name follows", "1:4", "*"),
            ("a: & b\n", "`&` starts the name of an anchor, and no name follows", "1:4", "&"),
            ("a: !e!x b\n", "tags are not used here", "1:4", "!"),
            ("a: [1, 2\nb: 3\n", "this `[` is not closed, or a comma is missing", "1:4", "["),
            ("a: {b: 1", "this `{` is not closed, or a comma is missing", "1:4", "{"),
            ("a: {", "the file ends before a bracket is closed", "1:5", ""),
            ("a: [1,,2]\n", "`,` is not expected here", "1:7", ","),
            (
                "a: {b: ${input.x}}\n",
                "inside `[...]` and `{...}` a `${...}` needs quotes",
                "1:8",
                "${input.x}",
            ),
            ("a: ]\n", "`]` is not expected here", "1:4", "]"),
            (f"{'k' * 1100}: 1\n", "this line has no key", "1:1", f"{'k' * 1100}: 1"),
            ("a: ? b\n", "`?` is not expected here", "1:4", "?"),
        ],
    )
    def test_the_cause_is_told_where_it_is(
        self, loader: type[yaml.SafeLoader], text: str, message: str, place: str, part: str
    ) -> None:
        with pytest.raises(ConfigErrors) as raised:
            load._parse(text, "f.yml", loader)
        (error,) = raised.value.errors
        assert (error.message, str(error.place), underlined(error.place)) == (message, f"f.yml:{place}", part)

    @pytest.mark.parametrize(
        ("text", "hint"),
        [
            ("k" * 1100 + ": 1\n", "a key has at most 1,024 characters"),
            ("a: @b c # d\n", "put it in quotes: `'@b c # d'`"),
            ("a: b: it's\n", "put the value in quotes if the `: ` belongs to it: `'b: it''s'`"),
            ("a: [${input.x}]\n", 'write `"${input.x}"`'),
            ("a: 1\nb:2\n", "put a space after the colon: `b: 2`"),
        ],
    )
    def test_the_hint_is_what_to_write(self, loader: type[yaml.SafeLoader], text: str, hint: str) -> None:
        with pytest.raises(ConfigErrors) as raised:
            load._parse(text, "f.yml", loader)
        assert raised.value.errors[0].hint == hint


class TestAnyText:
    """Whatever comes in, there is a tree or there are mistakes with places; nothing else happens."""

    @settings(deadline=None, max_examples=300)
    @given(st.text())
    @example("\ud800")
    @example('a: "\\ud800"')
    @example('a: "\\U00110000"')
    @example("a: \x85b: |\u2028 c\u2029d")
    def test_text_at_large(self, text: str) -> None:
        self.assert_loads_or_tells(text)

    @settings(deadline=None, max_examples=500)
    @given(st.text("ab:-?*&!|>'\"%@`{}[],#$\\<.~01 \n\n\t\r", max_size=40))
    def test_text_of_yaml_signs(self, text: str) -> None:
        self.assert_loads_or_tells(text)

    @settings(deadline=None)
    @given(documents, st.data())
    def test_documents_with_a_part_cut_out_or_put_in(self, written: Map, draw: st.DataObject) -> None:
        text = text_of(written)
        start = draw.draw(st.integers(0, len(text)))
        end = draw.draw(st.integers(start, min(len(text), start + 3)))
        put = draw.draw(st.text(":-[]{}'\"*&!|> \n\ta", max_size=2))
        self.assert_loads_or_tells(text[:start] + put + text[end:])

    def assert_loads_or_tells(self, text: str) -> None:
        for loader in (yaml.CSafeLoader, yaml.SafeLoader):
            root: Node | None
            try:
                document = load._parse(text, "f.yml", loader)
            except ConfigErrors as errors:
                root, mistakes = None, errors.errors
            else:
                root, mistakes = document.root, document.errors
            found = [error.place for error in mistakes if error.place]
            if root is not None:
                assert isinstance(root.value, dict)
                found += places(root)
            assert root is not None or mistakes
            assert all(error.message for error in mistakes)
            for place in found:
                assert 1 <= place.column <= place.end_column <= len(place.text) + 1


class TestFiles:
    def test_the_yml_wins_over_the_yaml(self, tmp_path: Path) -> None:
        (tmp_path / "model-compose.yaml").touch()
        assert find(tmp_path) == tmp_path / "model-compose.yaml"
        (tmp_path / "model-compose.yml").touch()
        assert find(tmp_path) == tmp_path / "model-compose.yml"

    def test_a_folder_without_a_file_leads_to_init(self, tmp_path: Path) -> None:
        (tmp_path / "model-compose.yml").mkdir()
        with pytest.raises(ConfigErrors) as raised:
            find(tmp_path)
        (error,) = raised.value.errors
        assert "model-compose.yml" in error.message
        assert "model-compose init" in str(error.hint)

    def test_a_folder_is_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigErrors) as raised:
            read(tmp_path, name="here")
        assert [error.message for error in raised.value.errors] == ["`here` is a folder"]

    def test_errors_call_the_file_by_the_name_that_is_given(self, tmp_path: Path) -> None:
        (tmp_path / "f.yml").write_text("a: 1\n")
        assert str(read(tmp_path / "f.yml", name="mine.yml").root.place) == "mine.yml:1:1"
        assert str(read(tmp_path / "f.yml").root.place) == f"{tmp_path / 'f.yml'}:1:1"

    def test_a_byte_order_mark_is_accepted(self, tmp_path: Path) -> None:
        (tmp_path / "f.yml").write_bytes(b"\xef\xbb\xbfa: 1\n")
        assert to_data(read(tmp_path / "f.yml").root) == {"a": 1}

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"a: 1\nb: caf\xe9\n", "`f.yml` is not UTF-8: byte `0xe9` at offset 11"),
            (b"\xef\xbb\xbfa: \xff", "`f.yml` is not UTF-8: byte `0xff` at offset 6"),
            (b"a: \xed\xa0\x80", "`f.yml` is not UTF-8: byte `0xed` at offset 3"),
            ("a: 1".encode("utf-16"), "`f.yml` is UTF-16 text"),
        ],
    )
    def test_a_file_that_is_not_utf_8_is_refused(self, tmp_path: Path, content: bytes, message: str) -> None:
        (tmp_path / "f.yml").write_bytes(content)
        with pytest.raises(ConfigErrors) as raised:
            read(tmp_path / "f.yml", name="f.yml")
        (error,) = raised.value.errors
        assert error.message == message
        assert error.hint == "save it as UTF-8"

    def test_the_place_of_a_wrong_byte_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "f.yml").write_bytes("a: 1\nb: 한 caf".encode() + b"\xe9\n")
        with pytest.raises(ConfigErrors) as raised:
            read(tmp_path / "f.yml", name="f.yml")
        assert str(raised.value.errors[0].place) == "f.yml:2:9"

    def test_a_file_over_the_limit_is_not_read(self, tmp_path: Path) -> None:
        (tmp_path / "f.yml").write_bytes(b"#" * (MAX_BYTES + 1))
        with pytest.raises(ConfigErrors) as raised:
            read(tmp_path / "f.yml", name="f.yml")
        assert raised.value.errors[0].message == "`f.yml` is larger than 10 MB"

    @pytest.mark.parametrize("name", ["absent.yml", ".", "nul\0l.yml"])
    def test_what_cannot_be_read_is_one_clear_error(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ConfigErrors) as raised:
            read(tmp_path / name, name=name)
        assert name in raised.value.errors[0].message
