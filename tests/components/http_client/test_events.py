"""Are the events of a stream the same, however its bytes are cut?"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_compose.components.http_client.events import (
    Decoder,
    JsonLines,
    ServerSentEvents,
    Text,
    TooLong,
)

LIMIT = 1 << 20


def read(decoder: Decoder, data: bytes, cuts: list[int] | None = None) -> list[Any]:
    """Everything that a decoder gives for data that is cut at these places."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts or []), len(data)]
    found: list[Any] = []
    for start, end in itertools.pairwise(places):
        found += decoder.feed(data[start:end])
    return found + decoder.end()


def events(data: bytes, cuts: list[int] | None = None) -> list[tuple[bytes, bytes]]:
    return [tuple(event) for event in read(ServerSentEvents(LIMIT), data, cuts)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a \n\n", [b" a "]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b": a comment\n\n:\ndata: a\n\n", [b"a"]),
        (b"id: 7\nretry: 10\nstrange: x\ndata: a\n\n", [b"a"]),
        (b"data: a\n\ndata: b", [b"a", b"b"]),
        (b"data: a\n\ndata: b\n", [b"a", b"b"]),
        (b"data\n\n", [b""]),
        (b"data:\ndata:\n\n", [b"\n"]),
        (b"\n\n\n", []),
        (b"", []),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        ("data: 안녕 ✨\n\n".encode(), ["안녕 ✨".encode()]),
    ],
)
def test_server_sent_events(data: bytes, expected: list[bytes]) -> None:
    assert events(data) == [(b"message", each) for each in expected]


def test_an_event_has_a_name_that_does_not_stay() -> None:
    data = b"event: error\ndata: x\n\ndata: y\n\nevent: lonely\n\ndata: z\n\n"
    assert events(data) == [(b"error", b"x"), (b"message", b"y"), (b"message", b"z")]


def test_the_error_line_of_llama_cpp_is_an_error() -> None:
    assert events(b'error: {"code": 500}\n\n') == [(b"error", b'{"code": 500}')]


_LINE = st.sampled_from(
    [b"data: a", b"data:{}", "data: 안녕 ✨".encode(), b"data", b"event: x", b": c", b"id: 1", b"", b""]
)
_CUTS = st.lists(st.integers(0, 1 << 16), max_size=40)


@given(st.lists(st.tuples(_LINE, st.sampled_from([b"\n", b"\r\n", b"\r"])), max_size=30), _CUTS)
def test_events_do_not_depend_on_how_the_bytes_are_cut(
    lines: list[tuple[bytes, bytes]], cuts: list[int]
) -> None:
    data = b"".join(line + end for line, end in lines)
    assert events(data, cuts) == events(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a": 1}\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        (b'{"a": 1}\r\n\r\n{"a": 2}', [{"a": 1}, {"a": 2}]),
        (b'\n\n{"a": 1}\n', [{"a": 1}]),
        (b'{\n  "a": [\n    1\n  ]\n}\n', [{"a": [1]}]),
        (b'{"a": 1}\nnonsense\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        (b"\xef\xbb\xbf1\n2", [1, 2]),
        (b"", []),
    ],
)
def test_lines_of_json(data: bytes, expected: list[Any]) -> None:
    assert read(JsonLines(LIMIT), data) == expected


def test_a_line_that_is_no_json_is_counted() -> None:
    lines = JsonLines(LIMIT)
    read(lines, b"1\nx\n2\ny")
    assert (lines.count, lines.skipped) == (2, 2)


def test_what_is_no_json_at_all_is_told() -> None:
    with pytest.raises(msgspec.DecodeError):
        read(JsonLines(LIMIT), b"<html>\n</html>\n")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.lists(_JSON, max_size=10), st.sampled_from([b"\n", b"\r\n", b"\n\n"]), _CUTS)
def test_lines_do_not_depend_on_how_the_bytes_are_cut(values: list[Any], end: bytes, cuts: list[int]) -> None:
    data = b"".join(msgspec.json.encode(value) + end for value in values)
    assert read(JsonLines(LIMIT), data, cuts) == values


@given(_JSON, _CUTS)
def test_an_ordinary_json_text_is_one_value(value: Any, cuts: list[int]) -> None:
    data = msgspec.json.format(msgspec.json.encode(value))
    assert read(JsonLines(LIMIT), data, cuts) == [value]


@given(st.text(), _CUTS)
def test_a_text_does_not_depend_on_how_the_bytes_are_cut(text: str, cuts: list[int]) -> None:
    assert "".join(read(Text("utf-8"), text.encode(), cuts)) == text


@pytest.mark.parametrize(
    ("decoder", "piece"),
    [
        (ServerSentEvents, b"data: " + b"x" * 400),
        (ServerSentEvents, b"data: " + b"x" * 400 + b"\n"),
        (JsonLines, b"[" + b"1," * 200),
        (JsonLines, b"[\n"),
    ],
)
def test_what_never_ends_is_not_kept_for_ever(decoder: Callable[[int], Decoder], piece: bytes) -> None:
    made = decoder(1000)

    def feed() -> None:
        for _ in range(1000):
            made.feed(piece)

    with pytest.raises(TooLong):
        feed()
