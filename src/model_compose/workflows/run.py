"""How does a workflow run?

Jobs start as soon as those they depend on are complete, in parallel. When one fails, and does not say what
happens then, its siblings are cancelled. The output of the last job may be a stream, and so may one that a
single other job reads as it comes; where anything else reads a stream, it is collected.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from msgspec import UNSET

from model_compose.components.contract import Callee
from model_compose.components.streams import Stream, rendered
from model_compose.config.expression import Reference, Scope, Template, render
from model_compose.config.schema import (
    Action,
    Call,
    Delay,
    Filter,
    ForEachJob,
    If,
    Job,
    Project,
    RandomRouter,
    Switch,
    Tree,
)
from model_compose.config.values import Converters
from model_compose.errors import (
    Cancelled,
    DriverMissing,
    Forbidden,
    Interrupted,
    InvalidInput,
    ModelComposeError,
    NotFound,
    Unsupported,
    WorkflowError,
)
from model_compose.types import plain
from model_compose.workflows.context import JobContext, JobState, RunContext
from model_compose.workflows.course import Course, State, Step
from model_compose.workflows.graph import Graph
from model_compose.workflows.handing import begun, noted, said, spliced
from model_compose.workflows.jobs import call, delay, for_each, route
from model_compose.workflows.jobs import filter as filters
from model_compose.workflows.jobs.contract import Done, Setting

#: Trying these again would change nothing.
_LASTING: Final = (
    InvalidInput,
    NotFound,
    Forbidden,
    Unsupported,
    DriverMissing,
    Cancelled,
    Interrupted,
    WorkflowError,
)
#: Between jobs that compute for so long, others have their turn.
_TURN_S: Final = 0.001

_WORKS: Final[Mapping[type, Callable[[Any, Setting], Coroutine[Any, Any, Done]]]] = {
    Call: call.run,
    Delay: delay.run,
    If: route.by_conditions,
    Switch: route.by_value,
    RandomRouter: route.by_chance,
    Filter: filters.run,
    ForEachJob: for_each.run,
}


async def run_workflow(
    graph: Graph,
    project: Project,
    components: Mapping[str, Callee],
    value: Mapping[str, Any],
    context: RunContext,
    *,
    streaming: bool,
    converters: Converters = MappingProxyType({}),
) -> Any:
    """Run a workflow on an input; -> its output, a `Stream` if that is asked for and possible."""
    jobs: dict[str, Any] = {}
    ids = {"run_id": context.run_id, "task_id": context.run_id}
    scope = Scope({"input": value, "context": ids, "jobs": jobs}, converters)
    return await _Run(graph, project, components, context, scope, jobs, streaming).output()


class _Ended(NamedTuple):
    """How a job ended that did not end the workflow: `done`, or another one runs instead of it."""

    output: Any
    targets: tuple[str, ...]
    done: bool = True


class _Run:
    def __init__(
        self,
        graph: Graph,
        project: Project,
        components: Mapping[str, Callee],
        context: RunContext,
        scope: Scope,
        outputs: dict[str, Any],
        streaming: bool,
    ) -> None:
        self.project = project
        self.components = components
        self.context = context
        self.scope = scope
        self.depth: int = getattr(context, "depth", 0) + 1
        self._graph = graph
        self._streaming = streaming
        self._outputs = outputs  # what `jobs` of the scope has
        self._course = Course(graph)
        self._tasks: dict[int, asyncio.Task[_Ended]] = {}
        self._given_up: dict[int, asyncio.Task[_Ended]] = {}
        self._over: deque[tuple[int, asyncio.Task[_Ended]]] = deque()
        self._wake = asyncio.Event()

    async def output(self) -> Any:
        try:
            await self._all()
            return await self._result()
        except BaseException:
            await self._close()
            raise

    async def _result(self) -> Any:
        workflow = self._graph.workflow
        if workflow.output is not UNSET:
            return await self._told(workflow.output)
        outputs = [self._outputs[self._graph.jobs[i].id]["output"] for i in self._last()]
        if len(outputs) > 1 and all(isinstance(plain(output), dict) for output in outputs):
            return {key: value for output in outputs for key, value in plain(output).items()}
        return outputs[-1] if outputs else None

    async def _told(self, tree: Tree) -> Any:
        """The workflow's own output; a text around a stream is a stream."""
        giver = self._graph.telling
        given = None if giver is None else self._outputs.get(self._graph.jobs[giver].id)
        stream = None if given is None else given["output"]
        if giver is None or not isinstance(stream, Stream):
            return render(tree, self.scope)
        if isinstance(tree, Reference):
            return stream
        assert isinstance(tree, Template)
        if not stream.items:
            return spliced(tree, self._graph.jobs[giver].id, stream, self.scope)
        self._outputs[self._graph.jobs[giver].id] = {"output": await stream.collect()}
        return render(tree, self.scope)

    def _last(self) -> list[int]:
        """The jobs that have given something that nobody after them had, in the order of the file."""
        graph, order = self._graph, self._course.order
        done = [i for i, state in enumerate(self._course.state) if state is State.DONE]
        giving = [i for i in done if graph.jobs[i].gives] or done
        return [i for i in giving if not any(order[j] > order[i] for j in graph.follows[i])]

    async def _close(self) -> None:
        """A stream that nobody will get ends its work."""
        for each in self._outputs.values():
            if isinstance(each["output"], Stream):
                await each["output"].aclose()

    # The course

    async def _all(self) -> None:
        """Run every job whose turn comes. Raises the first failure."""
        ready: deque[int] = deque()
        turn = time.perf_counter()
        self._follow(self._course.begin(), ready)
        try:
            while ready or self._tasks:
                if len(ready) == 1 and not (self._tasks or self._given_up):
                    i = ready.popleft()
                    ended = await self._job(i)
                    if time.perf_counter() - turn > _TURN_S:
                        await asyncio.sleep(0)
                        turn = time.perf_counter()
                else:
                    while ready:
                        self._start(ready.popleft())
                    i, ended = await self._next()
                self._follow(self._after(i, ended), ready)
        except BaseException:
            await self._give_up()
            raise

    def _after(self, i: int, ended: _Ended) -> Step:
        if ended.done:
            self._outputs[self._graph.jobs[i].id] = {"output": ended.output}
        targets = tuple(self._graph.numbers[name] for name in ended.targets)
        return self._course.ended(i, targets, done=ended.done)

    def _follow(self, step: Step, ready: deque[int]) -> None:
        for i in step.skip:
            self.context.job(self._graph.jobs[i].id, "skipped")
        for i in step.give_up:
            if i in self._tasks:
                self._given_up[i] = self._tasks.pop(i)
                self._given_up[i].cancel()
            else:
                ready.remove(i)
        ready.extend(step.start)

    def _start(self, i: int) -> None:
        name = f"job {self._graph.jobs[i].id}"
        task = self._tasks[i] = asyncio.create_task(self._job(i, self._given_up.get(i)), name=name)
        task.add_done_callback(lambda over: self._note(i, over))

    def _note(self, i: int, task: asyncio.Task[_Ended]) -> None:
        self._over.append((i, task))
        self._wake.set()

    async def _next(self) -> tuple[int, _Ended]:
        """Wait until a job has ended. Raises what it failed with."""
        while True:
            while not self._over:
                self._wake.clear()
                await self._wake.wait()
            i, task = self._over.popleft()
            if self._tasks.get(i) is task:
                del self._tasks[i]
                return i, task.result()
            await self._forget(i, task)

    async def _forget(self, i: int, task: asyncio.Task[_Ended]) -> None:
        """A job that was given up has ended."""
        if self._given_up.get(i) is task:
            del self._given_up[i]
        if not task.cancelled() and task.exception() is None:
            output = task.result().output
            if isinstance(output, Stream):
                await output.aclose()

    async def _give_up(self) -> None:
        """End what runs, and wait until it has ended."""
        tasks = {**self._given_up, **self._tasks}
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        for i, task in tasks.items():
            await self._forget(i, task)

    # One job

    async def _job(self, i: int, before: asyncio.Task[_Ended] | None = None) -> _Ended:
        """Run a job to its end, which it tells of. Raises its failure, if the file says nothing for it."""
        if before is not None:
            await asyncio.wait([before])
        job = self._graph.jobs[i]
        if self._course.runs[i] > job.max_run_count:
            message = f"job `{job.id}` has run {job.max_run_count} times, and is started once more"
            hint = "let the workflow come to an end, or raise `max_run_count` of the job"
            raise WorkflowError(message, hint=hint)
        source = self._source(i)
        attempt = 1
        error: Exception | None = None
        try:
            while True:
                self.context.job(job.id, "processing", attempt=attempt)
                try:
                    ended = await self._attempt(i, job)
                    break
                except Exception as failure:  # noqa: BLE001  raised below, unless the file has an answer
                    error = failure
                    if not _tries_again(job, attempt, failure):
                        ended = self._rescued(job, failure)
                        break
                self.context.job(job.id, "retrying", attempt=attempt, error=said(error))
                await asyncio.sleep(job.retry.pause(attempt) if job.retry else 0)
                attempt, error = attempt + 1, None
        except BaseException as failure:
            if source is not None:
                await source.aclose()
            cancelled = isinstance(failure, asyncio.CancelledError)
            why = None if cancelled else said(failure)
            self.context.job(job.id, "cancelled" if cancelled else "failed", attempt=attempt, error=why)
            raise
        if isinstance(ended.output, Stream):  # the job ends with its stream
            return ended._replace(output=noted(ended.output, source, self._end_of(i, job, attempt)))
        if source is not None:
            await source.aclose()
        state: JobState = "completed" if ended.done else "failed"
        self.context.job(job.id, state, attempt=attempt, error=None if error is None else said(error))
        return ended

    async def _attempt(self, i: int, job: Job) -> _Ended:
        streams = i in self._graph.pipes or (self._is_last(i, job) and self._is_wanted(job))
        setting = _Setting(self, job.id, streaming=streams)
        done = await _WORKS[type(job.work)](job.work, setting)
        output = await rendered(job.output, done.output, self.scope)
        if isinstance(output, Stream):
            if not streams:
                output = await output.collect()
            elif job.retry is not None or job.on_error is not None:
                output = await begun(output)
        return _Ended(output, done.targets)

    def _is_last(self, i: int, job: Job) -> bool:
        """Whether its output is that of the workflow, and can go out while it is still being made."""
        if self._graph.workflow.output is UNSET:
            nobody_after = not self._graph.follows[i] and job.gives
        else:
            nobody_after = self._graph.telling == i
        return nobody_after and self._course.left == 1

    def _is_wanted(self, job: Job) -> bool:
        """Whether a stream is asked for, by the caller or by the file."""
        if isinstance(job.work, Call) and not self._streaming:
            return self.project.components[job.work.component].action(job.work.action).streaming
        return self._streaming or (isinstance(job.work, ForEachJob) and job.work.streaming)

    def _rescued(self, job: Job, error: Exception) -> _Ended:
        """What happens in place of the failure of the workflow. Raises it if the file says nothing."""
        rescue = job.on_error
        if rescue is None:
            raise error
        code = error.code if isinstance(error, ModelComposeError) else ModelComposeError.code
        scope = self.scope.child({"error": {"message": said(error), "type": code}})
        done = rescue.output is not UNSET
        output = render(rescue.output, scope) if done else None
        return _Ended(output, (rescue.to,) if rescue.to is not None else (), done)

    # Streams from one job to the next

    def _source(self, i: int) -> Stream | None:
        """What a job reads while it is being made."""
        giver = self._graph.sources.get(i)
        given = None if giver is None else self._outputs.get(self._graph.jobs[giver].id)
        output = None if given is None else given["output"]
        return output if isinstance(output, Stream) else None

    def _end_of(self, i: int, job: Job, attempt: int) -> Callable[[JobState, str | None], None]:
        def end(state: JobState, error: str | None) -> None:
            if i in self._graph.pipes:
                self._outputs[job.id] = {"output": None}  # it is gone
            self.context.job(job.id, state, attempt=attempt, error=error)

        return end


class _Setting:
    """The run as one job sees it."""

    def __init__(self, run: _Run, name: str, *, streaming: bool) -> None:
        self._run = run
        self.id = name
        self.scope = run.scope
        self.streaming = streaming

    def action(self, call: Call) -> Action:
        """The action of a call."""
        return self._run.project.components[call.component].action(call.action)

    async def call(self, call: Call, value: Any, *, streaming: bool = False, alone: bool = True) -> Any:
        """Call an action with a value as its input."""
        run = self._run
        scope = Scope({"input": value, "context": self.scope.values["context"]}, self.scope.converters)
        context = JobContext(run.context, self.id, run.depth, quiet=not alone)
        component = run.components[call.component]
        return await component.call(self.action(call), scope, context, streaming=streaming)

    def progress(self, done: int, total: int) -> None:
        """Note how far the job is."""
        self._run.context.progress(done, total)


def _tries_again(job: Job, attempt: int, error: Exception) -> bool:
    return job.retry is not None and attempt < job.retry.attempts and not isinstance(error, _LASTING)
