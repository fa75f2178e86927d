"""How do the values of an action become a request?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from model_compose.config.convert import converted
from model_compose.config.expression import Scope, render
from model_compose.config.schema import Action
from model_compose.types import plain

Request = TypeVar("Request", bound=msgspec.Struct)


def values_of(action: Action, scope: Scope) -> dict[str, Any]:
    """The values of an action in plain form; null is as good as not given.

    What is to be rendered later (`ActionSpec.late`) is not among them.
    """
    rendered = {n: plain(render(t, scope)) for n, t in action.values.items() if n not in action.spec.late}
    return {name: value for name, value in rendered.items() if value is not None}


def request_of(values: Mapping[str, Any], request: type[Request]) -> Request:
    """The request that values make. Raises InvalidInput by the names that its sender knows."""
    return converted(values, request)
