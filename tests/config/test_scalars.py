"""Does a plain scalar mean what the core schema of YAML 1.2 says?"""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_compose.config.scalars import resolve


@pytest.mark.parametrize("text", ["", "~", "null", "Null", "NULL"])
def test_null_has_five_spellings(text: str) -> None:
    assert resolve(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("True", True),
        ("TRUE", True),
        ("false", False),
        ("False", False),
        ("FALSE", False),
        ("0", 0),
        ("-19", -19),
        ("+12", 12),
        ("007", 7),
        ("0o14", 12),
        ("0x1F", 31),
        ("0xdeadBEEF", 0xDEADBEEF),
        ("0.", 0.0),
        (".5", 0.5),
        ("-.5", -0.5),
        ("1.10", 1.1),
        ("1e-3", 0.001),
        ("12e03", 12000.0),
        ("-2E+05", -200000.0),
        (".inf", math.inf),
        ("+.Inf", math.inf),
        ("-.INF", -math.inf),
    ],
)
def test_booleans_and_numbers_are_read(text: str, value: object) -> None:
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


@pytest.mark.parametrize("text", [".nan", ".NaN", ".NAN"])
def test_not_a_number_is_a_float(text: str) -> None:
    value = resolve(text)
    assert isinstance(value, float)
    assert math.isnan(value)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "yes",
            "no",
            "on",
            "off",
            "y",
            "n",
            "nULL",
            "tRUE",
            "None",
        ),  # booleans of YAML 1.1, words of others
        *("1:30", "190:20:30", "2024-01-01", "1_000", "0b101", "0o8", "0xG", "-0x1", "-0o1"),
        *("inf", "nan", "+.nan", "-.nan", ".", "+", "-", "..", "1e", "e3", "1.2.3", "0x", "0o", "1 ", " 1"),
        *("١٢", "1２", "gpt-4o", "7B", "8080/tcp"),  # digits of other scripts, names that start with one
    ],
)
def test_everything_else_is_text(text: str) -> None:
    assert resolve(text) == text


def test_a_number_of_thousands_of_digits_is_text() -> None:
    assert resolve("9" * 5000) == "9" * 5000
    assert resolve("0x" + "f" * 5000) == "0x" + "f" * 5000


@given(st.text())
def test_any_text_has_a_value(text: str) -> None:
    value = resolve(text)
    assert value is None or value == text or isinstance(value, bool | int | float)


@given(st.integers(min_value=-(10**300), max_value=10**300))
def test_integers_survive(number: int) -> None:
    assert resolve(str(number)) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_survive(number: float) -> None:
    assert resolve(repr(number)) == number
