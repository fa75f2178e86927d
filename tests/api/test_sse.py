"""Texts and values as server-sent events, read back by the standard's rules."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from tests.api.serving import parse_events

from model_compose.api import sse


@given(st.lists(st.text()))
def test_every_text_comes_back_with_line_breaks_as_newlines(texts: list[str]) -> None:
    events = parse_events(sse.data(texts).decode())
    expected = [text.replace("\r\n", "\n").replace("\r", "\n") for text in texts]
    assert [data for _, data in events] == expected


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text()))
def test_every_value_comes_back_as_json(value: dict[str, object]) -> None:
    ((name, data),) = parse_events(sse.data([value]).decode())
    assert (name, json.loads(data)) == ("message", value)
    assert parse_events(sse.event("end", value).decode()) == [("end", value)]


def test_null_is_no_event() -> None:
    assert sse.data([None, "a", None]) == b"data: a\n\n"
