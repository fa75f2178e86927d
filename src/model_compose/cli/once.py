"""How does a workflow run to its end inside the command that asks for it?"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from model_compose.cli import log
from model_compose.cli.downloads import Stages, shown_on
from model_compose.cli.meter import Meter
from model_compose.cli.terminal import is_live, paint, say
from model_compose.components.streams import Stream
from model_compose.compose.app import App, Observer
from model_compose.compose.run import Run
from model_compose.config.schema import Project, Workflow
from model_compose.config.spec import Catalog
from model_compose.errors import ModelComposeError
from model_compose.runtime.model import LoadStage, State


async def run_once(
    project: Project, catalog: Catalog, name: str | None, given: Any, show: Callable[[list[Any]], None] | None
) -> Run:
    """Load what a workflow needs, run it and unload; -> the run, which may have failed.

    show  takes the pieces of a stream as they come; None: no stream is asked for
    Raises NotFound and InvalidInput before anything is loaded, and DriverMissing. Cancelling it ends
    the run and every worker.
    """
    downloads = shown_on(sys.stderr, lambda component, text: say(f"{component}: {text}", sys.stderr))
    workflow = App(project, catalog, progress=downloads).workflow(name)
    meter = Meter(sys.stderr)
    app = App(_needed(project, workflow), catalog, progress=downloads, observer=_Loading(meter))
    app.inputs[workflow.id].accept(given)
    async with app:
        run, value = app.begin(workflow, given)
        run.on_progress = meter
        with meter, contextlib.suppress(ModelComposeError):  # the run keeps it
            result = await app.execute(run, workflow, value, streaming=show is not None)
            if isinstance(result, Stream):
                async with contextlib.aclosing(run.follow(result)) as stream:
                    async for pieces in stream:
                        if show is not None:
                            meter.clear()
                            show(pieces)
    return run


def _needed(project: Project, workflow: Workflow) -> Project:
    """The project with this workflow and the components that it calls, and nothing else."""
    called = dict.fromkeys(job.component for job in workflow.jobs)
    components = {name: project.components[name] for name in called}
    return replace(project, components=components, workflows={workflow.id: workflow})


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
