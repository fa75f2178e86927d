"""How does a checked project come to life, and who runs its workflows?

`App` is the service without HTTP: the API, the command line and notebooks all call `run`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from model_compose.components.callbacks import Callbacks
from model_compose.components.contract import CallContext, Component
from model_compose.components.media import Media
from model_compose.components.streams import Stream
from model_compose.compose import components, models
from model_compose.compose.run import Run
from model_compose.compose.store import RunRecord, RunStore, StoredRun, unpacked
from model_compose.config.schema import DEFAULT, DIRECT, SYNTHESISED_JOB, Job, Project, Workflow
from model_compose.config.schema import Call as JobCall
from model_compose.config.spec import Catalog
from model_compose.errors import (
    Interrupted,
    ModelComposeError,
    NotFound,
    Overloaded,
    ServiceError,
    WorkflowError,
    did_you_mean,
)
from model_compose.runtime.call import Call
from model_compose.runtime.memory import cores
from model_compose.runtime.model import LoadStage, State
from model_compose.runtime.pool import ComponentStatus, ModelPool
from model_compose.runtime.process import Reaper
from model_compose.workflows.context import JobContext
from model_compose.workflows.graph import Graph
from model_compose.workflows.inputs import WorkflowInputs, inputs_of
from model_compose.workflows.run import run_workflow

log = logging.getLogger(__name__)

#: Finished runs that are not stored are remembered, as JSON, but only so many.
REMEMBERED: Final = 1000
REMEMBERED_BYTES: Final = 16 << 20
EXPIRE_EVERY_S: Final = 60.0
#: How deep workflows may call each other; that none calls itself is checked when a file is read.
DEEPEST: Final = 16


class Observer:
    """What happens in the service, for whoever measures it. Does nothing by itself."""

    def ended(self, call: Call, error: ModelComposeError | None) -> None:
        """A call to a model ended."""

    def changed(self, component: str, state: State) -> None:
        """A component has a new state."""
        log.info("%s is %s", component, state, extra={"component": component, "state": state})

    def loading(self, model: str, stage: LoadStage) -> None:
        """A model says how far its load is."""

    def run_ended(self, run: Run) -> None:
        """A run ended."""


class App:
    """A project that runs. Use it as an asynchronous context manager.

    state     folder for runs that survive a restart; None: nothing is stored
    progress  makes the progress of a download, by the name of its component
    """

    def __init__(
        self,
        project: Project,
        catalog: Catalog,
        *,
        progress: models.ShowProgress,
        state: Path | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.project = project
        self.models = models.models_of(project, catalog)
        self.inputs = {name: inputs_of(workflow, project) for name, workflow in project.workflows.items()}
        #: By the id of a component, a workflow that only makes this one call, for who knows its request.
        self.direct = {
            name: Workflow(name, calling(name, DIRECT))
            for name, declared in project.components.items()
            if declared.direct is not None
        }
        self._of_direct = {name: inputs_of(workflow, project) for name, workflow in self.direct.items()}
        self.observer = observer or Observer()
        #: Answers that come from outside, for the calls that wait for them.
        self.callbacks = Callbacks()
        self.draining = False
        self._progress = progress
        self._state = state
        self._store = RunStore(state / "runs.sqlite") if state else None
        self._runs: dict[str, Run] = {}
        self._finished: OrderedDict[str, bytes] = OrderedDict()
        self._finished_bytes = 0
        self._background: set[asyncio.Task[None]] = set()
        self._expiring: asyncio.Task[None] | None = None
        self._catalog = catalog
        self._components: dict[str, Component] = {}
        self._pool: ModelPool | None = None
        self._reaper: Reaper | None = None
        self._changed = asyncio.Event()
        self._ends: list[Callable[[], Awaitable[None]]] = []
        self._media = Media.of(project)
        limit = project.controller.max_concurrent_count
        self._places = asyncio.Semaphore(limit) if limit else None
        self._graphs: dict[int, Graph] = {}
        names = {model.name for model in self.models}
        #: The models that a run of a workflow asks first.
        self._first = {w.id: _asked_first(w, names) for w in project.workflows.values()}

    @property
    def pool(self) -> ModelPool:
        """The models, once the app has started."""
        assert self._pool is not None
        return self._pool

    @property
    def reaper(self) -> Reaper:
        """Who ends what the app starts, once it has started."""
        assert self._reaper is not None
        return self._reaper

    # Life

    async def __aenter__(self) -> App:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Begin to start every component, and take up what a service before us left.

        Raises DriverMissing, or ServiceError if the stored runs cannot be read, before anything starts.
        """
        await asyncio.to_thread(models.require_drivers, self.models)
        components.require(self.project, self._catalog)
        left = await self._store.unfinished() if self._store is not None else []
        scratch = Path(tempfile.mkdtemp(prefix="model-compose-"))
        self._reaper = Reaper(scratch)
        threads = min(self.project.settings.threads or cores(), cores())
        self._pool = ModelPool(
            [models.setup(m, self.project, threads, scratch, self._progress) for m in self.models],
            budgets=models.memory_budget(self.project),
            cores=threads,
            reaper=self._reaper,
            observer=_Heard(self),
        )
        of_models = {m.name: models.component(m, self._pool, self._media) for m in self.models}
        for name, declared in self.project.components.items():
            self._components[name] = of_models.get(name) or components.component(
                declared,
                self._catalog,
                folder=self.project.folder,
                state=self._state,
                scratch=scratch,
                media=self._media,
                workflows=self,
                reaper=self._reaper,
                changed=self._heard,
                callbacks=self.callbacks,
            )
        for component in self._components.values():
            await component.start()
        if self._store is not None:
            await self._take_up(self._store, left)
            self._expiring = asyncio.create_task(self._expire(self._store), name="expire")

    async def _take_up(self, store: RunStore, left: Sequence[StoredRun]) -> None:
        """Run again what was queued; what had begun has failed."""
        for stored in left:
            record = stored.record
            run = Run(record.workflow_id, self._ended, record.task_id, record.owner)
            run.created, run.stored, run.admitted = record.created, True, True
            self._runs[run.id] = run
            workflow = self.project.workflows.get(record.workflow_id)
            if record.status == "pending" and workflow is not None:
                self._spawn(self._execute_stored(run, workflow, stored.input), f"run {run.id}")
                continue
            gone = f"there is no workflow `{record.workflow_id}` any more"
            run.fail(NotFound(gone) if workflow is None else Interrupted("interrupted: the service stopped"))
            await store.update(run.record())

    async def _expire(self, store: RunStore) -> None:
        while True:
            try:
                await store.expire(time.time() - self.project.controller.task_ttl)
            except ServiceError as error:  # a full disk may have room again
                log.warning("%s", error)
            await asyncio.sleep(EXPIRE_EVERY_S)

    async def drain(self, timeout_s: float) -> None:
        """Take no new runs, and give those that are under way this long to end."""
        self.draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                for run in list(self._runs.values()):
                    await run.wait()
        self.interrupt()

    def interrupt(self) -> None:
        """End every run now."""
        for run in list(self._runs.values()):
            run.cancel(Interrupted("interrupted: the service stopped"))

    async def close(self) -> None:
        """End every run and every worker."""
        await self.drain(0)
        for end in self._ends:
            await end()
        while self._background:  # each ends soon, and stores how
            await asyncio.wait(self._background)
        if self._expiring is not None:
            self._expiring.cancel()
            await asyncio.wait([self._expiring])
        await asyncio.gather(*(component.close() for component in self._components.values()))
        if self._pool is not None:
            await self._pool.close()
        if self._reaper is not None:
            await self._reaper.close()
        if self._store is not None:
            await self._store.close()

    def on_close(self, end: Callable[[], Awaitable[None]]) -> None:
        """Have something ended with the app, after its runs."""
        self._ends.append(end)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    # Runs

    def workflow(self, name: str | None) -> Workflow:
        """A workflow by its id, or the default one. Raises NotFound."""
        workflows = self.project.workflows
        if name is None:
            workflow = self.project.default_workflow()
            if workflow is None:
                names = ", ".join(f"`{each}`" for each in workflows)
                raise NotFound(
                    "not found: __default__: no workflow is the default", hint=f"name one of {names}"
                )
            return workflow
        if name not in workflows:
            raise NotFound(f"Workflow '{name}' not found.", hint=did_you_mean(name, workflows))
        return workflows[name]

    def takes(self, workflow: Workflow) -> WorkflowInputs:
        """What the input of a workflow may be, those of `direct` among them."""
        of_direct = workflow is self.direct.get(workflow.id)
        return self._of_direct[workflow.id] if of_direct else self.inputs[workflow.id]

    def begin(
        self, workflow: Workflow, given: Any, *, owner: str | None = None
    ) -> tuple[Run, dict[str, Any]]:
        """A new run of a workflow and its accepted input. Raises InvalidInput, Overloaded, Interrupted."""
        if self.draining:
            raise Interrupted("the service is stopping")
        value = self.takes(workflow).accept(given)
        limit, most = self.project.controller.max_concurrent_count, self.project.controller.max_queue
        if limit and len(self._runs) >= limit + most:
            raise Overloaded(f"{most} runs wait already", retry_after_s=1.0)
        run = Run(workflow.id, self._ended, owner=owner)
        self._runs[run.id] = run
        return run, value

    async def execute(self, run: Run, workflow: Workflow, value: dict[str, Any], *, streaming: bool) -> Any:
        """Run a workflow; -> its output. The run has ended then, unless the output is a `Stream`.

        A stream is read through `run.follow`, which ends the run.
        Raises what the workflow raises, after the run has failed with it.
        """
        try:
            run.begin()
            await self._place(run)
            output = await run_workflow(
                self._graph(workflow),
                self.project,
                self._components,
                value,
                run,
                streaming=streaming,
                converters=self._media.converters,
            )
        except BaseException as error:
            run.fail(error)
            raise
        if not isinstance(output, Stream):
            run.complete(output)
            if run.error is not None:
                raise run.error
        return output

    async def _place(self, run: Run) -> None:
        """Wait until fewer than `max_concurrent_count` runs are under way; `_ended` gives the place back."""
        if self._places is not None:
            await self._places.acquire()
            run.holds_place = True

    async def enqueue(self, workflow: Workflow, given: Any, *, owner: str | None = None) -> Run:
        """Begin a run that nobody waits for; it is stored when this returns.

        Raises InvalidInput, Overloaded, Interrupted, and ServiceError when it cannot be stored.
        """
        for model in self._first[workflow.id]:
            if self.pool.room(model) <= self._entering(model):
                raise Overloaded(f"the queue of `{model}` is full")
        run, value = self.begin(workflow, given, owner=owner)
        run.admitted = True
        if self._store is not None:
            try:
                await self._store.add(StoredRun(run.record(), value))
            except BaseException as error:
                run.fail(error)
                raise
            run.stored = True
        self._spawn(self._execute_stored(run, workflow, value), f"run {run.id}")
        return run

    def _entering(self, model: str) -> int:
        """Runs that were taken, and whose first call to a model is still to come."""
        return sum(
            run.admitted and not run.jobs and model in self._first.get(run.workflow_id, ())
            for run in self._runs.values()
        )

    async def _execute_stored(self, run: Run, workflow: Workflow, value: dict[str, Any]) -> None:
        run.on_began = lambda: self._spawn(self._keep(run), f"store {run.id}")
        try:
            # Streamed, so that those who watch the run see it grow.
            output = await self.execute(run, workflow, value, streaming=True)
            if isinstance(output, Stream):
                async for _ in run.follow(output):
                    pass
        except (ModelComposeError, asyncio.CancelledError):
            pass  # the run keeps it, and the observer hears of it
        except Exception:
            log.exception("run of `%s`", workflow.id, extra={"task_id": run.id})
        queued = isinstance(run.error, Interrupted) and not run.began
        if not queued:  # what has not begun runs after the restart
            await self._keep(run)

    async def _keep(self, run: Run) -> None:
        """Store the state of a run; how it ended is remembered at least, where the disk is full."""
        if self._store is None:
            return
        try:
            await self._store.update(run.record())
        except ServiceError as error:
            log.error("%s", error, extra={"task_id": run.id})
            if run.ended:
                self._remember(run)

    def _ended(self, run: Run) -> None:
        self._runs.pop(run.id, None)
        if self._places is not None and run.holds_place:
            self._places.release()
        if not run.stored:
            self._remember(run)
        self.observer.run_ended(run)

    def _remember(self, run: Run) -> None:
        self._finished[run.id] = run.packed()
        self._finished_bytes += len(self._finished[run.id])
        while len(self._finished) > REMEMBERED or self._finished_bytes > REMEMBERED_BYTES:
            _, oldest = self._finished.popitem(last=False)
            self._finished_bytes -= len(oldest)

    async def record(self, task_id: str) -> RunRecord:
        """A run by its id. Raises NotFound when there is none, or it has expired."""
        run = self._runs.get(task_id)
        if run is not None:
            return run.record()
        record: RunRecord | None = None
        if task_id in self._finished:
            record = unpacked(self._finished[task_id])
        elif self._store is not None:
            record = await self._store.get(task_id)
        ttl = self.project.controller.task_ttl
        if record is None or (record.finished is not None and record.finished < time.time() - ttl):
            raise NotFound(f"there is no task `{task_id}`", hint="finished ones are forgotten after a while")
        return record

    def running(self, task_id: str) -> Run | None:
        """A run that has not ended."""
        return self._runs.get(task_id)

    async def call(self, name: str, given: Any, context: CallContext, *, streaming: bool) -> Any:
        """Run a workflow inside of another run; see `Workflows`."""
        assert isinstance(context, JobContext)  # nobody else calls components
        if context.depth > DEEPEST:
            raise WorkflowError(f"workflows call each other more than {DEEPEST} deep")
        workflow = self.workflow(None if name == DEFAULT else name)
        return await run_workflow(
            self._graph(workflow),
            self.project,
            self._components,
            self.inputs[workflow.id].accept(given),
            context,
            streaming=streaming,
            converters=self._media.converters,
        )

    def _graph(self, workflow: Workflow) -> Graph:
        """The graph of a workflow, worked out when it first runs."""
        found = self._graphs.get(id(workflow))
        if found is None:
            found = self._graphs[id(workflow)] = Graph(workflow, self.project)
        return found

    # Components

    def _heard(self, component: str, state: State) -> None:
        """A component has a new state."""
        self.observer.changed(component, state)
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition over the states of components."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    @property
    def components(self) -> Mapping[str, Component]:
        """The components by id, in the order of the file; none before the app has started."""
        return self._components

    def component(self, name: str) -> Component:
        """A component. Raises NotFound."""
        if name not in self._components:
            hint = did_you_mean(name, self._components)
            raise NotFound(f"there is no component `{name}`", hint=hint)
        return self._components[name]

    def status(self) -> Sequence[ComponentStatus]:
        """Every component, in the order of the file."""
        return [component.status() for component in self._components.values()]

    def ready(self) -> bool:
        """Whether every component can serve: none has failed, and what starts with us has started."""
        return not self.draining and all(component.ready() for component in self._components.values())

    def settled(self) -> bool:
        """Whether nothing is being started, or is about to be."""
        return all(component.settled() for component in self._components.values())

    def failed(self) -> Sequence[str]:
        """The components that have failed."""
        return [name for name, component in self._components.items() if component.error() is not None]

    def hopeless(self) -> ModelComposeError | None:
        """Why nothing is left to serve, if that is so: every component has failed."""
        errors = [error for c in self._components.values() if (error := c.error()) is not None]
        return errors[0] if errors and len(errors) == len(self._components) else None


def calling(component: str, action: str) -> tuple[Job, ...]:
    """The jobs of a workflow that does nothing but call a component."""
    return (Job(SYNTHESISED_JOB, JobCall(component, action)),)


def _asked_first(workflow: Workflow, models: Collection[str]) -> list[str]:
    """The models that the jobs call which a run begins with."""
    routed = {target for job in workflow.jobs for target in job.targets}
    first = [job.call for job in workflow.jobs if not job.needs and job.id not in routed]
    return [call.component for call in first if call is not None and call.component in models]


class _Heard(Observer):
    """What the pool tells, for whoever observes the app."""

    def __init__(self, app: App) -> None:
        self._app = app

    def ended(self, call: Call, error: ModelComposeError | None) -> None:
        """A call ended."""
        self._app.observer.ended(call, error)

    def changed(self, component: str, state: State) -> None:
        """A model has a new state."""
        self._app._heard(component, state)

    def loading(self, model: str, stage: LoadStage) -> None:
        """A model says how far its load is."""
        self._app.observer.loading(model, stage)
