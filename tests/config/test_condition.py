from __future__ import annotations

from typing import Any

import pytest
from tests.config.expressions import parsed

from model_compose.config.expression import Scope, render
from model_compose.config.template import compile_tree
from model_compose.errors import ConfigErrors


def case(left: Any, right: Any, **branches: Any) -> dict[str, Any]:
    return {"input": left, "value": right, **branches}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (case("${x}", 1), True),
        (case("${x}", 2), False),
        (case("${x}", "${y}", operator="lt"), True),
        (case("${name}", "^mo", operator="match"), True),
        (case("${name}", "${pattern}", operator="match"), True),
        (case("${name}", "del", operator="ends-with"), True),
        (case("${name}", ["a", "model"], operator="in"), True),
        ({"all": [case("${x}", 1), case("${y}", 2)]}, True),
        ({"all": [case("${x}", 1), case("${y}", 3)]}, False),
        ({"any": [case("${x}", 3), {"not": case("${y}", 3)}]}, True),
        ({"any": []}, False),
        ({"all": []}, True),
        (case(1, 1), True),
        (case("abc", "b", operator="match"), False),
    ],
)
def test_a_condition_is_true_or_false(condition: Any, expected: bool) -> None:
    scope = Scope({"x": 1, "y": 2, "name": "model", "pattern": "m.d"})
    assert (
        render(compile_tree({"?": {**parsed(condition), "if_true": True, "if_false": False}}), scope)
        is expected
    )


def test_an_unknown_operator_has_a_way_out() -> None:
    with pytest.raises(ConfigErrors) as caught:
        compile_tree({"?": case(1, 1, operator="start-with", if_true=1)})
    assert "did you mean `starts-with`" in str(caught.value.errors[0].hint)
