"""`type: if`, `switch` and `random-router`: which job runs next?"""

from __future__ import annotations

import random

from model_compose.config.expression import render
from model_compose.config.schema import If, RandomRouter, Switch
from model_compose.config.values import holds
from model_compose.workflows.jobs.contract import Done, Setting


async def by_conditions(work: If, setting: Setting) -> Done:
    """The job that the first condition leads to."""
    return _to(render(work.choice, setting.scope) or work.otherwise)


async def by_value(work: Switch, setting: Setting) -> Done:
    """The job of the first case that has the value."""
    value = render(work.input, setting.scope)
    for case, target in work.cases:
        if holds("eq", value, render(case, setting.scope)):
            return _to(target)
    return _to(work.otherwise)


async def by_chance(work: RandomRouter, setting: Setting) -> Done:
    """Any of the jobs, as often as its weight says."""
    return _to(random.choices(work.targets, work.weights)[0])  # noqa: S311  nobody's secret hangs on it


def _to(target: str | None) -> Done:
    """The output names the job."""
    return Done(target, () if target is None else (target,))
