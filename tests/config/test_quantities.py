from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_compose.config.quantities import (
    DURATION,
    KEEP_ALIVE,
    MEMORY_LIMIT,
    PAUSE,
    SIZE,
    Percent,
    Quantity,
)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("5m", 300),
        ("2h", 7200),
        ("1d", 86400),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("1h 30 m", 5400),
        (" 5 m ", 300),
        ("90", 90),
        (90, 90),
        (0.25, 0.25),
    ],
)
def test_a_duration_is_in_seconds(written: Any, seconds: float) -> None:
    for quantity in (DURATION, PAUSE, KEEP_ALIVE):
        assert quantity.read(written) == seconds
        assert isinstance(quantity.read(written), float)


@pytest.mark.parametrize(
    "written",
    [
        "",
        " ",
        "m",
        "5x",
        "5 minutes",
        "1h30",
        "30 5",
        "1.2.3s",
        ".s",
        "1_0s",
        "5M",
        "٣s",
        "1e3",
        "--5m",
        "5m-",
    ],
)
def test_what_is_no_duration_is_refused(written: Any) -> None:
    for quantity in (DURATION, PAUSE, KEEP_ALIVE):
        with pytest.raises(ValueError, match="is not a duration"):
            quantity.read(written)


@pytest.mark.parametrize("written", [None, True, [], math.nan, math.inf, "9" * 400])
def test_a_duration_is_a_finite_number(written: Any) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        KEEP_ALIVE.read(written)


def test_zero_and_negative_durations_mean_something_only_to_some() -> None:
    assert KEEP_ALIVE.read(0) == KEEP_ALIVE.read("0s") == 0
    assert KEEP_ALIVE.read(-1) == KEEP_ALIVE.read("-1") == KEEP_ALIVE.read("-5m") == math.inf
    assert PAUSE.read(0) == PAUSE.read("0s") == 0
    for quantity, values in ((DURATION, (0, "0s", -1, "-5m")), (PAUSE, (-1, "-5m"))):
        for value in values:
            with pytest.raises(ValueError, match=r"is not a duration (above|of at least) 0"):
                quantity.read(value)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (1, 1),
        ("100", 100),
        ("1b", 1),
        ("1.5kB", 1500),
        ("800MB", 800_000_000),
        ("4GiB", 4 << 30),
        ("4 gib", 4 << 30),
        ("1tib", 1 << 40),
    ],
)
def test_a_size_is_in_bytes(written: Any, size: int) -> None:
    assert SIZE.read(written) == MEMORY_LIMIT.read(written) == size
    assert type(SIZE.read(written)) is int


@pytest.mark.parametrize(
    "written", ["", "GB", "1EB", "-1", "1e3", "5%", 0, "0", -1, 2**63, "99999999TB", None, True]
)
def test_what_is_no_size_is_refused(written: Any) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        SIZE.read(written)


def test_a_limit_may_be_a_share() -> None:
    assert MEMORY_LIMIT.read("80%") == MEMORY_LIMIT.read(" 80 % ") == Percent(0.8)
    assert MEMORY_LIMIT.read("0.5%") == Percent(0.005)
    for wrong in ("0%", "100.1%", "-5%", "%", "nan%", "a%"):
        with pytest.raises(ValueError, match="or a share"):
            MEMORY_LIMIT.read(wrong)


@pytest.mark.parametrize("quantity", [DURATION, PAUSE, KEEP_ALIVE, SIZE, MEMORY_LIMIT])
def test_the_examples_of_a_quantity_are_right(quantity: Quantity) -> None:
    values = [quantity.read(example) for example in quantity.schema["examples"]]
    assert len(set(values)) > 1


@given(st.text() | st.text("0123456789.-+ %smhdkMGiB") | st.floats() | st.integers())
def test_anything_is_read_or_refused_with_a_value_error(value: Any) -> None:
    for quantity in (DURATION, PAUSE, KEEP_ALIVE, SIZE, MEMORY_LIMIT):
        try:
            found = quantity.read(value)
        except ValueError as error:
            found = str(error)
        assert found == f"is not {quantity.wanted}" or isinstance(found, Percent) or found >= 0


@given(st.dictionaries(st.sampled_from(["h", "m", "s", "ms"]), st.integers(0, 10_000), min_size=1))
def test_the_parts_of_a_duration_add_up(parts: dict[str, int]) -> None:
    text = "".join(f"{number}{unit}" for unit, number in parts.items())
    each = [PAUSE.read(f"{number}{unit}") for unit, number in parts.items()]
    assert PAUSE.read(text) == pytest.approx(sum(each))
