"""Text while it comes: no character is torn, and nothing of a stop sequence is ever shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_compose.drivers.huggingface.text import Detokenizer, Stops


class Bytes:
    """A tokenizer whose tokens are bytes; 256 is a special one."""

    def decode(self, tokens: list[int], skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return bytes(token for token in tokens if token < 256).decode(errors="replace")


class Words:
    """A tokenizer that drops the space before the first word, as those of SentencePiece do."""

    def decode(self, tokens: list[int], skip_special_tokens: bool) -> str:
        return " ".join(f"w{token}" for token in tokens)


@given(st.text())
def test_the_pieces_are_the_text_and_each_is_whole(text: str) -> None:
    detokenizer = Detokenizer(Bytes())
    pieces = [detokenizer.add(byte) for byte in text.encode()]
    assert "".join(pieces) + detokenizer.rest() == text
    if "\ufffd" not in text:
        assert all("\ufffd" not in piece for piece in pieces)


def test_bytes_that_are_no_character_come_at_the_end() -> None:
    detokenizer = Detokenizer(Bytes())
    assert [detokenizer.add(byte) for byte in b"a\xe4\xbd"] == ["a", "", ""]
    assert detokenizer.rest() == "\ufffd"


def test_special_tokens_are_no_text() -> None:
    detokenizer = Detokenizer(Bytes())
    assert [detokenizer.add(token) for token in (97, 256, 98)] == ["a", "", "b"]


def test_an_output_that_continues_a_prompt_begins_with_its_space() -> None:
    assert Detokenizer(Words(), [1, 2]).add(3) == " w3"
    assert Detokenizer(Words()).add(3) == "w3"


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["ab", "cd", "ef"], ["ab", "", ""]),
        (["a", "b", "x"], ["a", "b", "x"]),
        (["abc", "x"], ["ab", "cx"]),
        (["abcabcd"], ["abcab"]),
        (["ab\n", "\n", "c"], ["ab", "", ""]),
    ],
)
def test_a_stop_sequence_ends_the_text_before_it(pieces: list[str], shown: list[str]) -> None:
    stops = Stops(["cd", "\n\n"])
    found = [stops.add(piece) if not stops.found else "" for piece in pieces]
    assert found == shown


@given(st.lists(st.text("ab", max_size=4)), st.lists(st.text("ab", min_size=1, max_size=3), max_size=3))
def test_what_is_shown_is_the_text_before_the_first_stop(pieces: list[str], sequences: list[str]) -> None:
    stops, shown = Stops(sequences), ""
    for piece in pieces:
        shown += stops.add(piece)
        if stops.found:
            break
    shown += stops.rest()
    text = "".join(pieces)
    assert stops.found == any(sequence in text for sequence in sequences)
    # A stop is noticed with the piece that completes it, so a longer one that began earlier may come first.
    assert text.startswith(shown)
    if not stops.found:
        assert shown == text
    else:
        assert not any(sequence in shown for sequence in sequences)
