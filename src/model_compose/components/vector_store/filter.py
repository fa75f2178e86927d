"""Which conditions does a filter make?

A filter is a map of a field to its value, or to `{operator: value}`, or a list of
`{field, operator, value}`; all conditions must hold. Drivers translate conditions, never texts.

A comparison holds only for values of one kind: text, numbers, or true and false. `neq` and `not-in` hold
for what does not have the field.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final, Literal, cast

import msgspec

from model_compose.errors import InvalidInput, did_you_mean

Operator = Literal["eq", "neq", "gt", "gte", "lt", "lte", "in", "not-in", "exists", "starts-with"]
Scalar = str | int | float | bool

OPERATORS: Final[tuple[Operator, ...]] = (
    *("eq", "neq", "gt", "gte", "lt", "lte", "in", "not-in", "exists", "starts-with"),
)
_LISTS: Final = ("in", "not-in")
_KEYS: Final = frozenset(("field", "operator", "value"))


class Condition(msgspec.Struct, frozen=True):
    """What must hold for one field of the metadata; `value` is a list for `in` and `not-in`."""

    field: str
    operator: Operator
    value: Any


def conditions(given: Any) -> tuple[Condition, ...]:
    """The conditions of a filter. Raises InvalidInput."""
    if isinstance(given, dict):
        return tuple(_of_map(given))
    if isinstance(given, list):
        return tuple(_of_item(item, f"filter[{i}]") for i, item in enumerate(given))
    raise InvalidInput("`filter` is neither a map nor a list", field="filter", hint=_HINT)


_HINT: Final = "such as `{lang: en}`, or `{year: {gte: 2020}}`"


def _of_map(given: dict[str, Any]) -> Iterator[Condition]:
    for field, value in given.items():
        where = f"filter.{field}"
        if not isinstance(value, dict):
            yield _condition(field, "eq", value, where)
            continue
        if not value:
            raise InvalidInput(f"`{where}` says nothing", field=where, hint=_HINT)
        for operator, operand in value.items():
            yield _condition(field, operator, operand, where)


def _of_item(item: Any, where: str) -> Condition:
    if not isinstance(item, dict):
        hint = "such as `{field: year, operator: gte, value: 2020}`"
        raise InvalidInput(f"`{where}` is no map", field=where, hint=hint)
    for key in item.keys() - _KEYS:
        raise InvalidInput(f"unknown key `{key}` in `{where}`", field=where, hint=did_you_mean(key, _KEYS))
    if not isinstance(item.get("field"), str):
        raise InvalidInput(f"`{where}.field` is not the name of a field", field=f"{where}.field")
    if "value" not in item:
        raise InvalidInput(f"`{where}.value` is missing", field=f"{where}.value")
    return _condition(item["field"], item.get("operator", "eq"), item["value"], where)


def _condition(field: str, operator: Any, value: Any, where: str) -> Condition:
    if operator not in OPERATORS:
        hint = did_you_mean(str(operator), OPERATORS)
        raise InvalidInput(f"`{where}` has an unknown operator `{operator}`", field=where, hint=hint)
    if operator in _LISTS:
        if not isinstance(value, list):
            raise InvalidInput(f"`{where}`: `{operator}` takes a list", field=where)
        values = [_scalar(each, where) for each in value]
        return Condition(field, cast(Operator, operator), values)
    wanted, words = _WANTED.get(operator, (str | int | float, "a text, a number, or true or false"))
    value = _scalar(value, where)
    if not isinstance(value, wanted) or (operator in _ORDERS and isinstance(value, bool)):
        raise InvalidInput(f"`{where}`: `{operator}` takes {words}", field=where)
    return Condition(field, cast(Operator, operator), value)


_ORDERS: Final = ("gt", "gte", "lt", "lte")
_WANTED: Final[dict[str, tuple[Any, str]]] = {
    **dict.fromkeys(_ORDERS, (str | int | float, "a number or a text")),
    "exists": (bool, "true or false"),
    "starts-with": (str, "a text"),
}


def _scalar(value: Any, where: str) -> Scalar:
    if value is None:
        hint = "ask `{exists: false}` for what does not have it"
        raise InvalidInput(f"`{where}` is null, which no field is", field=where, hint=hint)
    if not isinstance(value, str | int | float) or (isinstance(value, float) and not math.isfinite(value)):
        raise InvalidInput(f"`{where}` is neither a text, a number, nor true or false", field=where)
    return value


def unsupported(driver: str, condition: Condition) -> InvalidInput:
    """The error of a driver that cannot do what a condition asks for."""
    about = f"`{condition.operator}`"
    if condition.operator in _ORDERS:
        about += " on text"
    where = f"filter.{condition.field}"
    return InvalidInput(f"driver `{driver}` has no {about}", field=where)


def is_number(value: Any) -> bool:
    """Whether a value is a number: true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
