"""What do `5m`, `4GiB` and `80%` mean?"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import msgspec

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES: Final = {
    "": 1,
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", 1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", 1)},
}
_DIGITS: Final = "0123456789."
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Quantity(msgspec.Struct, frozen=True):
    """A kind of value with a unit.

    name    what it is called
    wanted  what a right value looks like, for messages
    parse   the value of what a file says; raises ValueError if that is wrong
    schema  the same as a JSON Schema
    """

    name: str
    wanted: str
    parse: Callable[[Any], Any]
    schema: dict[str, Any]

    def read(self, value: Any) -> Any:
        """The value of what a file says. Raises ValueError with what would be right."""
        try:
            return self.parse(value)
        except ValueError:
            raise ValueError(f"is not {self.wanted}") from None


class Percent(msgspec.Struct, frozen=True):
    """A share of something that is not known yet, as a fraction (`80%` is 0.8)."""

    fraction: float


def _duration(value: Any) -> float:
    """Seconds: a number, or one or more numbers with units, such as `1h30m`; may be negative."""
    if not isinstance(value, str):
        return float(_number(value))
    text = value.strip()
    rest = text.removeprefix("-").lstrip()
    sign = -1.0 if text.startswith("-") else 1.0
    if rest and not rest.strip(_DIGITS):
        return sign * _number(float(rest))
    total = 0.0
    while True:
        number, rest = _leading(rest, _DIGITS)
        unit, rest = _leading(rest, _LETTERS)
        total += float(number) * _SECONDS.get(unit, math.nan)
        if not rest:
            return sign * _number(total)


def _keep_alive(value: Any) -> float:
    seconds = _duration(value)
    return math.inf if seconds < 0 else seconds


def _pause(value: Any) -> float:
    seconds = _duration(value)
    if seconds < 0:
        raise ValueError
    return seconds


def _positive(value: Any) -> float:
    seconds = _duration(value)
    if seconds <= 0:
        raise ValueError
    return seconds


def _size(value: Any) -> int:
    """Bytes."""
    if isinstance(value, str):
        number, unit = _leading(value.strip(), _DIGITS)
        value = float(number) * _BYTES.get(unit.lower(), math.nan)
    size = _number(value)
    if not 0 < size < 2**63:
        raise ValueError
    return int(size)


def _limit(value: Any) -> int | Percent:
    if not (isinstance(value, str) and value.strip().endswith("%")):
        return _size(value)
    percent = float(value.strip().removesuffix("%"))
    if not 0 < percent <= 100:
        raise ValueError
    return Percent(percent / 100)


def _number(value: Any) -> float:
    """A number that is one and not too large."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError
    return value


def _leading(text: str, characters: str) -> tuple[str, str]:
    """The part of a text that consists of these characters, and what follows, without space between."""
    rest = text.lstrip(characters)
    return text[: len(text) - len(rest)], rest.lstrip()


def _schema(examples: list[Any]) -> dict[str, Any]:
    return {"anyOf": [{"type": "string"}, {"type": "number"}], "examples": examples}


_LIKE_DURATIONS: Final = "such as `500ms`, `30s`, `5m` or `1h30m`"

DURATION: Final = Quantity(
    "duration", f"a duration above 0, {_LIKE_DURATIONS}", _positive, _schema(["500ms", "30s", "5m", 30])
)
PAUSE: Final = Quantity(
    "duration", f"a duration of at least 0, {_LIKE_DURATIONS}", _pause, _schema(["30s", "5m", 0])
)
KEEP_ALIVE: Final = Quantity(
    "duration",
    "a duration such as `30s`, `5m` or `1h`, 0 for at once, or -1 for never",
    _keep_alive,
    _schema(["5m", "1h", 0, -1]),
)
SIZE: Final = Quantity(
    "size", "a size such as `800MB` or `4GiB`", _size, _schema(["4GiB", "800MB", 1073741824])
)
MEMORY_LIMIT: Final = Quantity(
    "size or percentage",
    "a size such as `16GiB`, or a share such as `80%`",
    _limit,
    _schema(["16GiB", "80%"]),
)
