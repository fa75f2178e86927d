"""How is a workflow a part of another?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from model_compose.components.contract import CallContext, Setting, Stateless
from model_compose.components.deadlines import Deadline
from model_compose.components.places import Place, Places
from model_compose.components.streams import Stream, rendered
from model_compose.components.workflow.spec import WorkflowConfig
from model_compose.config.expression import Scope, render
from model_compose.config.schema import Action
from model_compose.types import plain


class WorkflowComponent(Stateless):
    """Runs a workflow of the project inside of the run that calls it."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        config: WorkflowConfig = setting.declared.config
        self._workflow = config.workflow
        self._places = Places(self.name, setting.declared.max_concurrent_count)

    async def call(self, action: Action, scope: Scope, context: CallContext, *, streaming: bool) -> Any:
        """Run the workflow; -> the action's output, a `Stream` if that is what the workflow gives."""
        given = plain(render(action.values["input"], scope))
        deadline = Deadline(action.timeout)
        wanted = streaming or action.streaming
        async with deadline:
            place = await self._places.take(context)
        output: Any = None
        try:
            async with deadline:
                workflows = self.setting.workflows
                output = await workflows.call(self._workflow, given, context, streaming=wanted)
                if isinstance(output, Stream) and not wanted:
                    output = await output.collect()
        finally:
            if not isinstance(output, Stream):
                place.leave()
        if isinstance(output, Stream):
            output = _held(output, place, deadline)
        return await rendered(action.output, output, scope)


def _held(stream: Stream, place: Place, deadline: Deadline) -> Stream:
    """A stream that keeps a place and a deadline to its end."""

    async def pieces() -> AsyncIterator[list[Any]]:
        try:
            reader = stream.reader()
            while True:
                async with deadline:
                    some = await anext(reader, None)
                if some is None:
                    return
                yield some
        finally:
            await close()

    async def close() -> None:
        try:
            await stream.aclose()
        finally:
            place.leave()

    return Stream(pieces(), close=close, whole=stream.whole, items=stream.items)
