"""What are the items of an input?"""

from __future__ import annotations

from typing import Any

from model_compose.config.values import LISTS, shown
from model_compose.errors import InvalidInput
from model_compose.types import Result


def items_of(value: Any, job: str) -> list[Any]:
    """The items of a list. Raises InvalidInput, which names the job, for anything else."""
    value = value.plain() if isinstance(value, Result) else value
    if not isinstance(value, LISTS):
        hint = "give it a list, such as `${input.texts as list}`"
        raise InvalidInput(f"`input` of job `{job}` is {shown(value)}, which is no list", hint=hint)
    return list(value)
