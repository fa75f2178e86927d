"""How does a workflow run?

Jobs start as soon as those they depend on are complete, in parallel. When one fails, its siblings are
cancelled. The output of the last job may be a stream; where any other job reads a stream, it is
collected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol

from msgspec import UNSET

from model_compose.components.contract import CallContext, Callee
from model_compose.components.streams import Stream, rendered
from model_compose.config.expression import Scope, render
from model_compose.config.schema import Action, Job, Project, Workflow
from model_compose.config.values import Converters, shown
from model_compose.errors import InvalidInput
from model_compose.types import plain

#: All repeats of a job are under way at once, and a client may say how many.
MOST_REPEATS: Final = 10_000

JobState = Literal["processing", "completed", "failed", "cancelled"]


class RunContext(CallContext, Protocol):
    """The run, as its workflow sees it."""

    def job(self, name: str, state: JobState) -> None:
        """Note that a job has a new state."""


async def run_workflow(
    workflow: Workflow,
    project: Project,
    components: Mapping[str, Callee],
    value: Mapping[str, Any],
    context: RunContext,
    *,
    streaming: bool,
    converters: Converters = MappingProxyType({}),
) -> Any:
    """Run a workflow on an input; -> its output, a `Stream` if that is asked for and possible."""
    scope = Scope(
        {"input": value, "context": {"run_id": context.run_id, "task_id": context.run_id}, "jobs": {}},
        converters,
    )
    run = _Run(workflow, project, components, context)
    return await run.output(scope, streaming)


class _Run:
    def __init__(
        self, workflow: Workflow, project: Project, components: Mapping[str, Callee], context: RunContext
    ) -> None:
        self._workflow = workflow
        self._project = project
        self._components = components
        self._context = context
        self._outputs: dict[str, Any] = {}

    async def output(self, scope: Scope, streaming: bool) -> Any:
        workflow = self._workflow
        needed = {name for job in workflow.jobs for name in job.depends_on}
        last = [job for job in workflow.jobs if job.id not in needed]
        # Only the output of the one last job can go out while it is still being made.
        passes = last[0].id if len(last) == 1 and workflow.output is UNSET else None
        try:
            if len(workflow.jobs) == 1:
                await self._job(workflow.jobs[0], scope, passes, streaming)
            else:
                await self._all(scope, passes, streaming)
        except BaseException:
            await self._close()
            raise
        if workflow.output is not UNSET:
            return render(workflow.output, self._with_jobs(scope))
        outputs = [self._outputs[job.id] for job in last]
        if len(outputs) > 1 and all(isinstance(plain(output), dict) for output in outputs):
            return {key: value for output in outputs for key, value in plain(output).items()}
        return outputs[-1]

    async def _close(self) -> None:
        """A stream that nobody will get ends its work."""
        for output in self._outputs.values():
            if isinstance(output, Stream):
                await output.aclose()

    async def _all(self, scope: Scope, passes: str | None, streaming: bool) -> None:
        """Run every job when those it depends on are complete. Raises the first failure."""
        done = {job.id: asyncio.Event() for job in self._workflow.jobs}

        async def one(job: Job) -> None:
            for name in job.depends_on:
                await done[name].wait()
            await self._job(job, scope, passes, streaming)
            done[job.id].set()

        try:
            async with asyncio.TaskGroup() as group:
                for job in self._workflow.jobs:
                    group.create_task(one(job), name=f"job {job.id}")
        except BaseExceptionGroup as failed:
            raise _first(failed) from None

    async def _job(self, job: Job, scope: Scope, passes: str | None, streaming: bool) -> None:
        """Run a job. `streaming` asks for a stream; one comes out of it only if the job `passes` it on."""
        self._context.job(job.id, "processing")
        try:
            output = await self._repeated(job, self._with_jobs(scope), streaming and job.id == passes)
            if isinstance(output, Stream) and job.id != passes:
                output = await output.collect()
        except asyncio.CancelledError:
            self._context.job(job.id, "cancelled")
            raise
        except BaseException:
            self._context.job(job.id, "failed")
            raise
        self._outputs[job.id] = output
        if not isinstance(output, Stream):  # else the job ends with its stream, and the run with it
            self._context.job(job.id, "completed")

    def _with_jobs(self, scope: Scope) -> Scope:
        if not self._outputs:
            return scope
        return scope.child({"jobs": {name: {"output": value} for name, value in self._outputs.items()}})

    async def _repeated(self, job: Job, scope: Scope, streaming: bool) -> Any:
        count = render(job.repeat_count, scope)
        if count is None:
            count = 1
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InvalidInput(f"`repeat_count` of job `{job.id}` is {shown(count)}, which is no count")
        if count > MOST_REPEATS:
            raise InvalidInput(
                f"`repeat_count` of job `{job.id}` is {count}, and {MOST_REPEATS} repeats are the most"
            )
        if count == 1:
            return await self._call(job, scope, streaming)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._collected(job, scope)) for _ in range(count)]
        except BaseExceptionGroup as failed:
            raise _first(failed) from None
        return [task.result() for task in tasks]

    async def _collected(self, job: Job, scope: Scope) -> Any:
        output = await self._call(job, scope, streaming=False)
        return await output.collect() if isinstance(output, Stream) else output

    async def _call(self, job: Job, scope: Scope, streaming: bool) -> Any:
        component = self._components[job.component]
        action = self._action(job)
        value = scope.values["input"] if job.input is UNSET else render(job.input, scope)
        inner = Scope({"input": value, "context": scope.values["context"]}, scope.converters)
        output = await component.call(action, inner, self._context, streaming=streaming)
        return await rendered(job.output, output, scope)

    def _action(self, job: Job) -> Action:
        return self._project.components[job.component].action(job.action)


def _first(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = failed
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
