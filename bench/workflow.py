"""What does the workflow engine spend on a job?

Workflows of 1,000 jobs that do nothing, one after the other and side by side; and a for-each over 10,000
items, of which 32 are under way, whose memory is looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

from bench.processes import ECHO
from bench.stats import Report
from model_compose.compose.app import App
from model_compose.compose.catalog import BuiltIn
from model_compose.config.environment import Environment
from model_compose.config.project import load_project
from model_compose.sources.progress import Silent

JOBS = 1000
ITEMS = 10_000
ROUNDS = 15

HEAD = "component: {id: echo, type: model, task: text-generation, driver: echo, runtime: embedded}\n"


async def main(report: Report) -> None:
    sys.path.insert(0, str(ECHO))  # where the echo driver is installed, so to speak
    report.title("What the workflow engine adds to a job")
    links = ("1", *(f"'${{jobs.j{i}.output}}'" for i in range(JOBS - 1)))
    chain = [f"{{id: j{i}, type: filter, input: {given}}}" for i, given in enumerate(links)]
    between = [f"j{i}" for i in range(1, JOBS - 1)]
    fan = [
        "{id: j0, type: filter, input: 1}",
        *(f"{{id: {name}, type: filter, input: '${{jobs.j0.output}}'}}" for name in between),
        f"{{id: end, type: filter, input: 1, depends_on: [{', '.join(between)}]}}",
    ]
    calls = [f"{{id: j{i}, component: echo, input: {{prompt: x}}}}" for i in range(JOBS)]
    report.single("chain of 1,000 jobs that do nothing, a job", await _timed(chain), "µs", at_most=150)
    report.single("1,000 of them side by side, a job", await _timed(fan), "µs", at_most=150)
    report.single("(1,000 calls of an echo model side by side)", await _timed(calls), "µs")
    await _memory(report)


@contextlib.asynccontextmanager
async def _app(workflow: str) -> AsyncIterator[App]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model-compose.yml"
        path.write_text(HEAD + workflow)
        project = load_project([path], Environment({}), BuiltIn())
        async with App(project, BuiltIn(), progress=lambda _: Silent()) as app:
            await app.until(app.settled)
            yield app


async def _run(app: App, given: object) -> object:
    workflow = app.workflow(None)
    run, value = app.begin(workflow, given)
    return await app.execute(run, workflow, value, streaming=False)


async def _timed(jobs: list[str]) -> list[float]:
    text = "workflow:\n  jobs:\n" + "".join(f"    - {job}\n" for job in jobs)
    times = []
    async with _app(text) as app:
        await _run(app, {})
        for _ in range(ROUNDS):
            began = time.perf_counter()
            await _run(app, {})
            times.append((time.perf_counter() - began) / len(jobs) * 1e6)
    return times


async def _memory(report: Report) -> None:
    """Memory while a tenth of the items is done, beside that when nearly all are, without the results."""
    do = "{input: {prompt: x}, output: 1}"
    job = f"workflow: {{job: {{id: e, type: for-each, input: '${{input.texts}}', do: {do}}}}}\n"
    found: dict[int, int] = {}
    tasks = []
    async with _app(job) as app:
        await _run(app, {"texts": ["x"] * 100})
        workflow = app.workflow(None)
        run, value = app.begin(workflow, {"texts": ["x"] * ITEMS})

        def look(done: int, total: int) -> None:
            if done in (total // 10, total * 9 // 10):
                found[done] = tracemalloc.get_traced_memory()[0]
                tasks.append(len(asyncio.all_tasks()))

        run.on_progress = look
        tracemalloc.start()
        await app.execute(run, workflow, value, streaming=False)
        tracemalloc.stop()
    early, late = found.values()
    report.single(
        "for-each over 10,000: growth from a tenth to nine", [(late - early) / 1e3], "KB", at_most=200
    )
    report.single("(tasks meanwhile)", [float(n) for n in tasks], "")
