"""How does a workflow run to its end inside the command that asks for it?"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import AsyncIterator
from typing import Any, Protocol

from msgspec.structs import replace

from model_compose.cli import log
from model_compose.cli.downloads import Stages, shown_on
from model_compose.cli.meter import Meter
from model_compose.cli.terminal import is_live, paint, say
from model_compose.components.streams import Stream
from model_compose.compose.app import App, Observer
from model_compose.compose.run import Run
from model_compose.config.calls import reached
from model_compose.config.schema import Project, Workflow
from model_compose.config.spec import Catalog
from model_compose.errors import ModelComposeError
from model_compose.runtime.model import LoadStage, State


class Show(Protocol):
    """Takes pieces of a stream; `items` are those of a list, and not parts of one text."""

    def __call__(self, pieces: list[Any], *, items: bool) -> None: ...


async def run_once(
    project: Project, catalog: Catalog, name: str | None, given: Any, show: Show | None
) -> Run:
    """Load what a workflow needs, run it and unload; -> the run, which may have failed.

    show  takes the pieces of a stream as they come; None: no stream is asked for
    Raises NotFound and InvalidInput before anything is loaded, and DriverMissing. Cancelling it ends
    the run and every worker.
    """
    downloads = shown_on(sys.stderr, lambda component, text: say(f"{component}: {text}", sys.stderr))
    workflow = App(project, catalog, progress=downloads).workflow(name)
    meter = Meter(sys.stderr)
    app = App(_needed(project, workflow, catalog), catalog, progress=downloads, observer=_Loading(meter))
    app.inputs[workflow.id].accept(given)
    async with app, _answers(app):
        run, value = app.begin(workflow, given)
        run.on_progress = meter
        with meter, contextlib.suppress(ModelComposeError):  # the run keeps it
            result = await app.execute(run, workflow, value, streaming=show is not None)
            if isinstance(result, Stream):
                async with contextlib.aclosing(run.follow(result)) as stream:
                    async for pieces in stream:
                        if show is not None:
                            meter.clear()
                            show(pieces, items=result.items)
    return run


def _needed(project: Project, workflow: Workflow, catalog: Catalog) -> Project:
    """The project with this workflow, and what it calls, and nothing else."""
    found = reached([workflow.id], project.workflows, project.components, catalog)
    components = {name: project.components[name] for name in found.components}
    workflows = {name: project.workflows[name] for name in found.workflows}
    actions = (action for component in components.values() for action in component.actions)
    waits = any(action.values.get("completion") is not None for action in actions)
    listeners = tuple(each for each in project.listeners if waits and each.type == "http-callback")
    return replace(project, components=components, workflows=workflows, listeners=listeners)


@contextlib.asynccontextmanager
async def _answers(app: App) -> AsyncIterator[None]:
    """Take the answers that calls of the run may wait for."""
    if not app.project.listeners:
        yield
        return
    from model_compose.api.listeners import Ports, listening

    with Ports(app.project) as ports:
        async with listening(app, ports):
            yield


class _Loading(Observer):
    """Says on a terminal what takes so long."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._stages = Stages(lambda component, text: self._say(f"{component}: {text}"))

    def changed(self, component: str, state: State) -> None:
        """A component has a new state."""
        if state == "loading":
            self._say(f"loading {component}")

    def loading(self, model: str, stage: LoadStage) -> None:
        """A model says how far its load is."""
        self._stages(model, stage)

    def _say(self, text: str) -> None:
        if is_live(sys.stderr):
            self._meter.clear()
            say(paint(text, "dim", sys.stderr), sys.stderr)


def set_up_log(*, verbose: bool) -> None:
    """Log on stderr, and nothing that the error of the run says anyway."""
    screen = log.Screen(lambda: sys.stderr, log.LogText(sys.stderr))
    log.set_up(screen, level=logging.DEBUG if verbose else logging.CRITICAL)
