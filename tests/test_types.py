from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_compose.config.values import Type, convert, to_text
from model_compose.types import Blob, Result, for_json, plain

PHOTO = Blob("image/png", b"\x89PNG", "photo.png")
URI = "data:image/png;base64,iVBORw=="


class Picture(Result, frozen=True):
    image: Blob
    width: int

    def plain(self) -> Any:
        return self.image


class Label(Result, frozen=True):
    label: str


@pytest.mark.parametrize(
    ("value", "kept", "written"),
    [
        (Picture(PHOTO, 3), PHOTO, URI),
        ([Picture(PHOTO, 3), Label("x")], [PHOTO, {"label": "x"}], [URI, {"label": "x"}]),
        ({"a": (PHOTO, 1, 2.5)}, {"a": [PHOTO, 1, 2.5]}, {"a": [URI, 1, 2.5]}),
        ((1.0, 2), [1.0, 2], [1.0, 2]),
        ([True, None, "x"], [True, None, "x"], [True, None, "x"]),
    ],
)
def test_a_file_stays_one_until_it_is_written_as_json(value: Any, kept: Any, written: Any) -> None:
    assert plain(value) == kept
    assert for_json(value) == written
    assert msgspec.json.decode(msgspec.json.encode(for_json(value))) == written


def test_a_file_in_a_text_and_as_base64() -> None:
    assert to_text(PHOTO, "x") == URI
    assert convert(Picture(PHOTO, 3), Type("base64"), "x", {}) == "iVBORw=="
    assert convert(PHOTO, Type("image", format="data-uri"), "x", {}) == URI
    assert "PNG" not in repr(PHOTO)


@given(st.recursive(st.floats() | st.integers() | st.text(), st.lists, max_leaves=8))
def test_numbers_are_taken_as_they_are(value: Any) -> None:
    assert repr(plain(value)) == repr(value)
