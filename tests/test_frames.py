"""Does an error read well?"""

from __future__ import annotations

import pytest

from model_compose.errors import ConfigError, ConfigErrors, Note, NotFound, Place, UnknownName, WorkerDied
from model_compose.frames import render


def place(line: int, column: int, end_column: int, text: str = "", file: str = "f.yml") -> Place:
    return Place(file, line, column, end_column, text)


class TestRender:
    def test_a_mistake_with_frame_and_hint(self) -> None:
        error = UnknownName.of(
            "field",
            "batchsize",
            ["batch_size", "model", "text"],
            "component `embedder`",
            place(7, 5, 14, "    batchsize: 4"),
        )
        assert (
            render(error)
            == """\
error: unknown field `batchsize` in component `embedder`
 --> f.yml:7:5
  |
7 |     batchsize: 4
  |     ^^^^^^^^^

hint: did you mean `batch_size`? valid: `batch_size`, `model`, `text`
"""
        )

    def test_notes_have_frames_and_all_line_numbers_one_width(self) -> None:
        error = ConfigError(
            "the key `a` stands twice",
            place=place(12, 1, 2, "a: 2"),
            notes=[
                Note("it stands here already", place(3, 1, 2, "a: 1", "base.yml")),
                Note("`A` is not set"),
            ],
        )
        assert (
            render(error)
            == """\
error: the key `a` stands twice
  --> f.yml:12:1
   |
12 | a: 2
   | ^
note: it stands here already
  --> base.yml:3:1
   |
 3 | a: 1
   | ^
note: `A` is not set
"""
        )

    def test_an_error_without_a_place_is_a_line(self) -> None:
        assert render(NotFound("no workflow `x`", hint="see `model-compose ps`")) == (
            "error: no workflow `x`\n\nhint: see `model-compose ps`\n"
        )

    def test_a_place_without_its_line_is_only_named(self) -> None:
        assert render(ConfigError("no value", place=place(3, 1, 1))) == "error: no value\n --> f.yml:3:1\n"

    def test_several_mistakes_stand_in_the_order_of_the_file_and_are_counted(self) -> None:
        second, first = (
            ConfigError("second", place=place(10, 1, 1)),
            ConfigError("first", place=place(9, 7, 7)),
        )
        assert (
            render(ConfigErrors([second, first]))
            == """\
error: first
 --> f.yml:9:7

error: second
  --> f.yml:10:1

2 mistakes in the configuration
"""
        )

    def test_a_single_mistake_is_not_counted(self) -> None:
        assert render(ConfigErrors([ConfigError("only")])) == "error: only\n"

    @pytest.mark.parametrize(
        ("text", "column", "end_column", "caret"),
        [
            ("a: b", 4, 5, "   ^"),
            ("a:", 3, 3, "  ^"),  # nothing stands there: one caret behind the end
            ("a: b", 4, 99, "   ^"),  # never longer than the line
            ("\ta: b", 5, 6, "    ^"),  # a tab is shown as one space
            ("키: 값 b", 6, 7, "       ^"),  # wide characters take two columns
            ("a: 한국", 4, 6, "   ^^^^"),
            ("a: e\u0301 b", 7, 8, "     ^"),  # an accent of its own takes none
            (
                "\u1112\u1161\u11ab b",
                5,
                6,
                "   ^",
            ),  # nor do the later parts of a syllable, as macOS writes it
        ],
    )
    def test_the_caret_stands_under_what_it_means(
        self, text: str, column: int, end_column: int, caret: str
    ) -> None:
        lines = render(ConfigError("wrong", place=place(1, column, end_column, text))).splitlines()
        assert lines[-1] == f"  | {caret}"

    @pytest.mark.parametrize("column", [1, 150, 5_000, 9_990])
    def test_of_a_very_long_line_the_part_around_the_caret_is_shown(self, column: int) -> None:
        text = "".join(f"{number:09} " for number in range(1000))
        lines = render(ConfigError("wrong", place=place(1, column, column + 5, text))).splitlines()
        start = lines[-1].index("^")
        assert lines[-2][start : start + 5] == text[column - 1 : column + 4]
        assert max(map(len, lines)) < 220
        assert lines[-2].startswith("1 | ...") == (column > 101)
        assert lines[-2].endswith("...") == (column < 9_000)

    def test_what_a_terminal_would_obey_is_shown_instead(self) -> None:
        name = "a\x1b[2J\nerror: b\u202e"
        error = ConfigError(f"unknown `{name}`", hint=f"not `{name}`", notes=[Note(f"`{name}`")])
        shown = r"`a\x1b[2J\nerror: b\u202e`"
        assert render(error) == f"error: unknown {shown}\nnote: {shown}\n\nhint: not {shown}\n"

    def test_a_line_of_a_file_has_nothing_that_a_terminal_would_obey(self) -> None:
        error = ConfigError("wrong", place=place(1, 3, 4, "\u202e\x1bc", file="f\n.yml"))
        assert render(error) == "error: wrong\n --> f\\n.yml:1:3\n  |\n1 | \ufffd\ufffdc\n  |   ^\n"

    def test_only_other_errors_have_lines_such_as_those_of_a_log(self) -> None:
        assert render(WorkerDied("it died:\n\x1b[31mfailed")) == "error: it died:\n\\x1b[31mfailed\n"

    def test_a_long_hint_is_not_repeated(self) -> None:
        long, short = "x" * 300, "y"
        hints = [long, long, long, short, short, long]
        errors = [ConfigError("wrong", hint=hint, place=place(n, 1, 1)) for n, hint in enumerate(hints)]
        lines = render(ConfigErrors(errors)).splitlines()
        told = [line.removeprefix("hint: ") for line in lines if line.startswith("hint")]
        assert told == [long, "the same as above", "the same as above", short, short, long]
