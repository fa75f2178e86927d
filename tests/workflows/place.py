"""How do tests run the workflow of a file? With components that are made up, without an app.

What a job gives is told by its prompt, see `Echoes`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from tests.compose.apps import project_of

from model_compose.components.contract import CallContext, Callee
from model_compose.components.streams import Stream
from model_compose.config.expression import Scope, render
from model_compose.config.schema import Action, Project
from model_compose.drivers.contract import Outcome
from model_compose.errors import EngineError, InvalidInput
from model_compose.types import plain
from model_compose.workflows.context import JobState
from model_compose.workflows.graph import Graph
from model_compose.workflows.run import run_workflow

HEAD = """
component:
  id: echo
  type: model
  task: text-generation
  driver: echo
  prompt: ${input.prompt}
workflow:
  id: main
"""


class Nothing(msgspec.Struct, frozen=True):
    """A request without fields."""


class Context:
    """A run that remembers what it is told."""

    run_id = "the run"

    def __init__(self) -> None:
        self.admitted = False
        self.jobs: list[tuple[str, str]] = []
        self.told: list[tuple[str, str, int, str | None]] = []

    def job(self, name: str, state: JobState, *, attempt: int = 1, error: str | None = None) -> None:
        self.jobs.append((name, state))
        self.told.append((name, state, attempt, error))

    def served(self) -> None:
        pass

    def spent(self, outcome: Outcome) -> None:
        pass

    def progress(self, done: int, total: int) -> None:
        pass

    def state(self, name: str) -> str:
        return [state for job, state in self.jobs if job == name][-1]


class Echoes:
    """A component that gives its prompt; `wait NAME`, `fail`, `flaky N` and `stream N` do something else."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.ended: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.closed = 0

    def gate(self, name: str) -> asyncio.Event:
        return self.gates.setdefault(name, asyncio.Event())

    async def call(self, action: Action, scope: Scope, context: CallContext, *, streaming: bool) -> Any:
        value = render(action.values["prompt"], scope)
        prompt = str(value)
        self.began.append(prompt)
        word, _, rest = prompt.partition(" ")
        if word == "wait":
            await self.gate(rest).wait()
        if word == "fail":
            raise EngineError(f"{rest} failed")
        if word == "flaky" and self.began.count(prompt) <= int(rest):
            raise EngineError("not yet")
        if word == "invalid":
            raise InvalidInput("not like that", field="prompt")
        if word == "stream" and streaming:
            return Stream(self._pieces(int(rest)), close=self._close)
        self.ended.append(prompt)
        return value

    async def _pieces(self, count: int) -> AsyncIterator[list[str]]:
        for i in range(count):
            yield [f"{i} "]

    async def _close(self) -> None:
        self.closed += 1


class Bench:
    """Runs the workflow of a file."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.echoes = Echoes()
        self.context = Context()

    async def run(self, given: Mapping[str, Any] | None = None, *, streaming: bool = False) -> Any:
        workflow = next(iter(self.project.workflows.values()))
        components: Mapping[str, Callee] = {"echo": self.echoes}
        output = await run_workflow(
            Graph(workflow, self.project),
            self.project,
            components,
            given or {},
            self.context,
            streaming=streaming,
        )
        return plain(output)


def bench(tmp_path: Path, *jobs: str, **more: str) -> Bench:
    """A bench for jobs, each in one line of flow YAML."""
    lines = [f"  {key}: {value}" for key, value in more.items()]
    return Bench(
        project_of(HEAD + "\n".join([*lines, "  jobs:", *(f"    - {job}" for job in jobs)]), tmp_path)
    )


def job(name: str, prompt: str = "", **more: str) -> str:
    given = "".join(f", {key}: {value}" for key, value in more.items())
    return f"{{id: {name}, component: echo, input: {{prompt: '{prompt or name}'}}{given}}}"


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)
