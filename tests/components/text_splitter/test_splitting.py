from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_compose.components.text_splitter.splitting import (
    ByParagraph,
    BySentence,
    BySize,
    ByWord,
    Splitter,
)

Make = Callable[[], Splitter]

MAKES: dict[str, tuple[int | None, int, Make]] = {
    "sentence": (None, 0, lambda: BySentence(None, 0)),
    "sentences": (20, 0, lambda: BySentence(20, 0)),
    "sentences, overlapping": (20, 8, lambda: BySentence(20, 8)),
    "paragraph": (None, 0, lambda: ByParagraph(None, 0)),
    "paragraphs": (25, 10, lambda: ByParagraph(25, 10)),
    "words": (12, 5, lambda: ByWord(12, 5)),
    "characters": (7, 0, lambda: BySize(7, 0, ())),
    "separators": (15, 5, lambda: BySize(15, 5, ("\n\n", "\n", " "))),
    "odd separators": (9, 4, lambda: BySize(9, 4, ("ab", " "))),
}

TEXTS = st.text(st.sampled_from("abAM r.!?\"')」。1-\n \t"), max_size=160)


def split(splitter: Splitter, *parts: str) -> list[str]:
    chunks = [chunk for part in parts for chunk in splitter.feed(part)]
    return chunks + splitter.finish()


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({place % (len(text) + 1) for place in places})
    return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]


@pytest.mark.parametrize("how", MAKES)
@given(TEXTS, st.lists(st.integers(0, 1000), max_size=30))
def test_chunks_are_the_same_however_the_text_comes(how: str, text: str, places: list[int]) -> None:
    make = MAKES[how][2]
    assert split(make(), *cut(text, places)) == split(make(), text) == split(make(), *text)


@pytest.mark.parametrize("how", MAKES)
@given(TEXTS)
def test_no_chunk_is_too_long_or_empty_and_nothing_is_lost(how: str, text: str) -> None:
    size, overlap, make = MAKES[how]
    chunks = split(make(), text)
    assert all(chunk and chunk == chunk.strip() for chunk in chunks)
    assert size is None or all(len(chunk) <= size for chunk in chunks)
    if not overlap:
        assert "".join("".join(chunks).split()) == "".join(text.split())
    assert all(chunk in text for chunk in chunks)


def sentences(text: str) -> list[str]:
    return split(BySentence(None, 0), text)


@pytest.mark.parametrize(
    "expected",
    [
        ["Dr. Smith paid 3.14 dollars, e.g. for pie.", "She left."],
        ['"Stop!" he said.', "They stopped."],
        ["J. K. Rowling wrote it.", "So did I.", "Then we met."],
        ["She lives in the U.S.", "The flight left at 5 p.m. on Monday."],
        ["The U.S. Army came.", "It went."],
        ["See No. 5 for more.", "No.", "Yes."],
        ["Really?!", "Yes...", "(Of course.)", "Good."],
        ["1. First things first.", "2. is no item here."],
        ["He said “Go.”", "Nobody went."],
        ["今日は良い天気です。", "「はい！」と言った。", "また明日？"],
        ["यह एक है।", "यह दो है।"],
        ["Is it v1.2.3 or example.com?", "Both."],
    ],
    ids=lambda expected: expected[0],
)
def test_sentences(expected: list[str]) -> None:
    assert sentences(" ".join(expected)) == expected


def test_cjk_needs_no_space() -> None:
    assert sentences("好。很好！对吗？") == ["好。", "很好！", "对吗？"]


def test_blank_lines_and_items_of_lists_end_a_sentence_and_other_lines_do_not() -> None:
    text = "A title\n\nA sentence that goes\non. Then:\n- one\n- two\n1. three\n# Next"
    assert sentences(text) == [
        *("A title", "A sentence that goes\non.", "Then:"),
        *("- one", "- two", "1. three", "# Next"),
    ]


def test_a_sentence_is_there_as_soon_as_the_next_one_begins() -> None:
    splitter = BySentence(None, 0)
    assert splitter.feed("One is here. ") == []
    assert splitter.feed("Tw") == ["One is here."]
    assert splitter.feed("o is not") == []
    assert splitter.finish() == ["Two is not"]


def test_what_is_held_back_is_bounded() -> None:
    splitter = BySentence(None, 0)
    chunks = [chunk for _ in range(3000) for chunk in splitter.feed("word ")]
    assert len("".join(chunks)) > 15000 - 2 * 8192
    assert not [chunk for chunk in chunks if chunk.endswith("wor")]


def test_sentences_are_joined_up_to_the_size_and_overlap_as_a_whole() -> None:
    text = "One one. Two two. Three three. Four."
    assert split(BySentence(20, 0), text) == ["One one. Two two.", "Three three. Four."]
    text = "One one. Two two. Three. Four."
    assert split(BySentence(20, 10), text) == ["One one. Two two.", "Two two. Three.", "Three. Four."]


def test_a_chunk_ends_at_the_best_separator_that_fills_half_of_it() -> None:
    text = "one two\n\nthree four five\nsix seven"
    assert split(BySize(18, 0, ("\n\n", "\n", " ")), text) == ["one two\n\nthree", "four five", "six seven"]


def test_an_overlap_begins_at_a_separator() -> None:
    assert split(BySize(12, 6, (" ",)), "one two three four five") == [
        "one two",
        "two three",
        "three four",
        "four five",
    ]


@pytest.mark.parametrize(
    "text", [" " * 100_000, "." * 100_000, "a" * 100_000, "Mr. " * 25_000, '"' * 100_000]
)
@pytest.mark.parametrize("how", MAKES)
@pytest.mark.timeout(60)
def test_odd_texts_take_time_in_proportion_to_their_length(how: str, text: str) -> None:
    assert "".join(split(MAKES[how][2](), text)).split() is not None
