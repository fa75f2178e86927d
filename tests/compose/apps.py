"""How do tests get an app that runs workflows with echo models? From YAML, without HTTP."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from model_compose.components.streams import Stream
from model_compose.compose.app import App, Observer
from model_compose.compose.catalog import BuiltIn
from model_compose.compose.run import Run
from model_compose.config.environment import Environment
from model_compose.config.project import load_project
from model_compose.config.schema import Project
from model_compose.sources.progress import Silent

#: An echo model in this process; more keys of the component may follow.
ECHO = """
component:
  id: echo
  type: model
  task: text-generation
  driver: echo
  runtime: embedded
"""


class Seen(Observer):
    """An observer that remembers which runs ended."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def run_ended(self, run: Run) -> None:
        self.runs.append(run)


def project_of(text: str, folder: Path) -> Project:
    path = folder / "model-compose.yml"
    path.write_text(textwrap.dedent(text))
    return load_project([path], Environment({}), BuiltIn())


@contextlib.asynccontextmanager
async def app_of(
    text: str, folder: Path, *, state: Path | None = None, observer: Observer | None = None
) -> AsyncIterator[App]:
    """An app until the end of the block; it may still be loading."""
    project = project_of(text, folder)
    async with App(project, BuiltIn(), progress=lambda _: Silent(), state=state, observer=observer) as app:
        yield app


async def start(
    app: App, given: Any, workflow: str | None = None, *, streaming: bool = False
) -> tuple[Run, Any]:
    """Execute a run; -> it, and what it gives, a `Stream` maybe."""
    chosen = app.workflow(workflow)
    run, value = app.begin(chosen, given)
    return run, await app.execute(run, chosen, value, streaming=streaming)


async def run_of(app: App, given: Any = None, workflow: str | None = None) -> Run:
    """A run that has ended well; what it streams is collected."""
    run, output = await start(app, given, workflow)
    if isinstance(output, Stream):
        async for _ in run.follow(output):
            pass
    return run


async def output_of(app: App, given: Any = None, workflow: str | None = None) -> Any:
    """The output of a run. Raises what the run fails with."""
    from model_compose.types import plain

    return plain((await run_of(app, given, workflow)).output)
