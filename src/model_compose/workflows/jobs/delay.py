"""`type: delay`: until when does a job wait?"""

from __future__ import annotations

import asyncio
import datetime
import zoneinfo
from typing import Any, Final

from model_compose.config.expression import render
from model_compose.config.quantities import PAUSE
from model_compose.config.schema import Delay
from model_compose.config.values import shown
from model_compose.errors import InvalidInput
from model_compose.workflows.jobs.contract import Done, Setting

#: A clock may be set while somebody waits for a time: it is looked at so often.
_LOOK_EVERY_S: Final = 60.0


async def run(work: Delay, setting: Setting) -> Done:
    """Wait, and give nothing."""
    if work.time is None:
        await asyncio.sleep(_seconds(render(work.duration, setting.scope), setting))
        return Done()
    zone = None if work.timezone is None else zoneinfo.ZoneInfo(work.timezone)
    until = moment(render(work.time, setting.scope), datetime.datetime.now(zone).astimezone(zone), setting.id)
    while (left := (until - datetime.datetime.now(datetime.UTC)).total_seconds()) > 0:  # noqa: ASYNC110
        await asyncio.sleep(min(left, _LOOK_EVERY_S))
    return Done()


def _seconds(value: Any, setting: Setting) -> float:
    try:
        return float(PAUSE.read(value))
    except ValueError as error:
        raise InvalidInput(f"`duration` of job `{setting.id}`: {shown(value)} {error}") from None


def moment(value: Any, now: datetime.datetime, job: str) -> datetime.datetime:
    """What a date with a time means, or the next time of day; without a zone it is in that of `now`."""
    for kind in (datetime.time, datetime.datetime):
        try:
            found = kind.fromisoformat(str(value))
        except ValueError:
            continue
        zone = found.tzinfo or now.tzinfo
        if isinstance(found, datetime.datetime):
            return found.replace(tzinfo=zone)
        there = now.astimezone(zone)
        next_one = datetime.datetime.combine(there.date(), found.replace(tzinfo=None), zone)
        return next_one if next_one > there else next_one + datetime.timedelta(days=1)
    hint = "a date with a time, such as `2030-01-31T08:00`, or a time of day, such as `08:00`"
    raise InvalidInput(f"`time` of job `{job}`: {shown(value)} is no time", hint=hint)
