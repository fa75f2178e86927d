"""Do workflows run as parts of others, stream to each other, and tell of their jobs?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.compose.apps import app_of, output_of, project_of, run_of, start

from model_compose.components.streams import Stream
from model_compose.compose.run import Run
from model_compose.errors import Cancelled, ConfigErrors, EngineError, InvalidInput, WorkflowError
from model_compose.types import plain
from model_compose.workflows.context import JobContext

ECHO = "- {id: echo, type: model, task: text-generation, driver: echo, runtime: embedded}"

NESTED = f"""
components:
  {ECHO}
  - {{id: inner, type: workflow, workflow: polite}}
workflows:
  - id: main
    default: true
    jobs:
      - {{id: first, component: inner, input: {{name: "${{input.name}}"}}}}
      - {{id: last, component: echo, input: {{prompt: "<${{jobs.first.output}}>"}}}}
  - id: polite
    jobs:
      - {{id: greet, component: echo, input: {{prompt: "dear ${{input.name}}"}}}}
      - {{id: close, component: echo, input: {{prompt: "${{jobs.greet.output}}!"}}}}
"""

PIPE = f"""
components:
  {ECHO}
  - {{id: split, type: text-splitter, by: sentence}}
workflow:
  id: pipe
  jobs:
    - {{id: write, component: echo, input: {{prompt: "${{input.text}}"}}}}
    - {{id: cut, component: split, input: {{text: "${{jobs.write.output}}"}}}}
    - {{id: say, component: echo, input: {{prompt: "${{jobs.cut.output}}"}}}}
"""


async def test_a_workflow_is_a_part_of_another(tmp_path: Path) -> None:
    async with app_of(NESTED, tmp_path) as app:
        run = await run_of(app, {"name": "ann"})
        assert _plain(run) == "<dear ann!>"
        record = await app.record(run.id)
        assert record.jobs is not None
        assert {name: job.state for name, job in record.jobs.items()} == dict.fromkeys(
            ("first", "first/greet", "first/close", "last"), "completed"
        )
        assert all(job.attempts == 1 and job.started and job.finished for job in record.jobs.values())


def _plain(run: Run) -> Any:

    return plain(run.output)


async def test_its_input_is_looked_at(tmp_path: Path) -> None:
    text = NESTED.replace('{name: "${input.name}"}', '{nam: "${input.name}"}')
    async with app_of(text, tmp_path) as app:
        with pytest.raises(InvalidInput, match="unknown field `nam` in the input"):
            await output_of(app, {"name": "ann"})


async def test_what_fails_inside_is_told_of_both(tmp_path: Path) -> None:
    text = NESTED.replace("dear", "fail")
    async with app_of(text, tmp_path) as app:
        workflow = app.workflow(None)
        run, value = app.begin(workflow, {"name": "ann"})
        with pytest.raises(EngineError):
            await app.execute(run, workflow, value, streaming=False)
        states = {name: job.state for name, job in run.jobs.items()}
        assert states == {"first": "failed", "first/greet": "failed"}
        assert run.jobs["first"].error


def test_a_workflow_that_calls_itself_is_a_mistake(tmp_path: Path) -> None:
    text = f"""
components:
  {ECHO}
  - {{id: again, type: workflow, workflow: b}}
workflows:
  - {{id: a, jobs: [{{id: j, component: echo}}]}}
  - {{id: b, jobs: [{{id: j, component: again, input: {{}}}}]}}
"""
    with pytest.raises(ConfigErrors) as caught:
        project_of(text, tmp_path)
    assert "calls workflow `b`, which calls it again" in str(caught.value.errors[0])


async def test_workflows_call_each_other_only_so_deep(tmp_path: Path) -> None:
    async with app_of(NESTED, tmp_path) as app:
        deep = JobContext(Run("main", lambda _: None), "j", 17)
        with pytest.raises(WorkflowError, match="more than 16 deep"):
            await app.call("polite", {"name": "x"}, deep, streaming=False)


async def test_jobs_of_a_pipeline_stream_to_each_other(tmp_path: Path) -> None:
    async with app_of(PIPE, tmp_path) as app:
        assert await output_of(app, {"text": "One is here. Two is there. Three."}) == [
            "One is here.",
            "Two is there.",
            "Three.",
        ]
        run, output = await start(app, {"text": "One is here. Two is there."}, streaming=True)
        assert isinstance(output, Stream)
        assert {name: job.state for name, job in run.jobs.items()} == dict.fromkeys(
            ("write", "cut", "say"), "processing"
        )
        pieces = [piece async for some in run.follow(output) for piece in some]
        assert len(pieces) == 2
        assert {job.state for job in run.jobs.values()} == {"completed"}


async def test_a_pipeline_that_nobody_reads_any_more_ends(tmp_path: Path) -> None:
    async with app_of(PIPE, tmp_path) as app:
        run, output = await start(app, {"text": "One is here. " * 200}, streaming=True)
        reading = run.follow(output)
        await anext(reading)
        await reading.aclose()
        assert isinstance(run.error, Cancelled)
        assert {job.state for job in run.jobs.values()} <= {"cancelled", "completed"}
        assert run.jobs["say"].state == "cancelled"
        await app.until(app.settled)
        assert app.status()[0].active == 0
