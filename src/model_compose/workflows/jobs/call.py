"""`type: component`: how is an action called, once or several times?"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from msgspec import UNSET

from model_compose.components.streams import Stream
from model_compose.config.expression import render
from model_compose.config.schema import Call
from model_compose.config.values import shown
from model_compose.errors import InvalidInput
from model_compose.workflows.jobs.contract import Done, Setting

#: All repeats of a job are under way at once, and a client may say how many.
MOST_REPEATS: Final = 10_000


async def run(work: Call, setting: Setting) -> Done:
    """Call the action, as often as the job says, all at once."""
    count = 1 if work.repeat_count == 1 else _count(work, setting)
    scope = setting.scope
    value = scope.values["input"] if work.input is UNSET else render(work.input, scope)
    if count == 1:
        return Done(await setting.call(work, value, streaming=setting.streaming))

    async def one() -> Any:
        output = await setting.call(work, value, alone=False)
        return await output.collect() if isinstance(output, Stream) else output

    return Done(await together([one() for _ in range(count)]))


async def together(works: list[Any]) -> list[Any]:
    """The results of coroutines that run at once. The first failure cancels the others, and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as failed:
        raise first(failed) from None
    return [task.result() for task in tasks]


def first(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    """One error of several."""
    error: BaseException = failed
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _count(work: Call, setting: Setting) -> int:
    count = render(work.repeat_count, setting.scope)
    if count is None:
        return 1
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InvalidInput(f"`repeat_count` of job `{setting.id}` is {shown(count)}, which is no count")
    if count > MOST_REPEATS:
        raise InvalidInput(
            f"`repeat_count` of job `{setting.id}` is {count}, and {MOST_REPEATS} repeats are the most"
        )
    return count
