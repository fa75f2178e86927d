"""Do jobs run in the order that they need, side by side where they may, and end together?

Components are made up here: what a job gives is told by its action's `do` in `Echoes`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.compose.apps import project_of
from tests.config.expressions import parsed

from model_compose.components.contract import CallContext, Callee
from model_compose.components.streams import Stream
from model_compose.config.expression import Scope, render
from model_compose.config.schema import Action, Job, Project, Workflow
from model_compose.config.template import compile_tree
from model_compose.drivers.contract import Outcome
from model_compose.errors import EngineError, InvalidInput
from model_compose.types import plain
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


class Context:
    """A run that remembers what it is told."""

    run_id = "the run"

    def __init__(self) -> None:
        self.admitted = False
        self.jobs: list[tuple[str, str]] = []

    def job(self, name: str, state: str) -> None:
        self.jobs.append((name, state))

    def served(self) -> None:
        pass

    def spent(self, outcome: Outcome) -> None:
        pass

    def progress(self, done: int, total: int) -> None:
        pass

    def state(self, name: str) -> str:
        return [state for job, state in self.jobs if job == name][-1]


class Echoes:
    """A component that gives its prompt; `wait NAME`, `fail` and `stream N` do something else."""

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
            workflow, self.project, components, given or {}, self.context, streaming=streaming
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


async def test_a_job_s_output_is_that_of_the_workflow(tmp_path: Path) -> None:
    place = bench(tmp_path, job("a", "hello ${input.who}"))
    assert await place.run({"who": "you"}) == "hello you"
    assert place.context.jobs == [("a", "processing"), ("a", "completed")]


async def test_a_job_gets_the_workflow_s_input_where_it_says_nothing(tmp_path: Path) -> None:
    place = bench(tmp_path, "{id: a, component: echo}")
    assert await place.run({"prompt": "as it came"}) == "as it came"


async def test_a_reference_to_a_job_is_a_dependency_on_it(tmp_path: Path) -> None:
    place = bench(tmp_path, job("c", "${jobs.b.output}c"), job("b", "${jobs.a.output}b"), job("a", "a"))
    assert await place.run() == "abc"
    assert place.echoes.ended == ["a", "ab", "abc"]


async def test_a_job_waits_for_what_it_says_it_depends_on(tmp_path: Path) -> None:
    place = bench(tmp_path, job("a", "wait a"), job("b", "b", depends_on="[a]"))
    run = asyncio.create_task(place.run())
    await _until(lambda: place.echoes.began == ["wait a"])
    place.echoes.gate("a").set()
    assert await run == "b"


async def test_jobs_that_need_nothing_start_together(tmp_path: Path) -> None:
    place = bench(tmp_path, *(job(name, f"wait {name}") for name in "abc"))
    run = asyncio.create_task(place.run())
    await _until(lambda: sorted(place.echoes.began) == ["wait a", "wait b", "wait c"])
    for name in "cab":
        place.echoes.gate(name).set()
    await run
    assert all(place.context.state(name) == "completed" for name in "abc")


async def test_a_failure_cancels_what_runs_and_starts_nothing_more(tmp_path: Path) -> None:
    place = bench(
        tmp_path,
        job("slow", "wait for ever"),
        job("bad", "fail it"),
        job("after", "${jobs.slow.output}"),
    )
    with pytest.raises(EngineError, match="it failed"):
        await place.run()
    assert place.context.state("bad") == "failed"
    assert place.context.state("slow") == "cancelled"
    assert "after" not in {name for name, _ in place.context.jobs}


async def test_cancelling_a_run_cancels_its_jobs(tmp_path: Path) -> None:
    place = bench(tmp_path, job("a", "wait a"), job("b", "wait b"))
    run = asyncio.create_task(place.run())
    await _until(lambda: len(place.echoes.began) == 2)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert [place.context.state(name) for name in "ab"] == ["cancelled", "cancelled"]


async def test_maps_of_several_last_jobs_are_merged_in_the_order_of_the_file(tmp_path: Path) -> None:
    place = bench(tmp_path, job("a", output="{a: '${output}', last: a}"), job("b", output="{last: b}"))
    assert await place.run() == {"a": "a", "last": "b"}


async def test_of_several_last_jobs_that_give_no_maps_the_last_one_counts(tmp_path: Path) -> None:
    assert await bench(tmp_path, job("a"), job("b"), job("c")).run() == "c"


async def test_a_workflow_s_own_output_is_made_of_its_jobs(tmp_path: Path) -> None:
    place = bench(
        tmp_path,
        job("a"),
        job("b"),
        output="{both: '${jobs.a.output}${jobs.b.output}', run: '${context.run_id}'}",
    )
    assert await place.run(streaming=True) == {"both": "ab", "run": "the run"}


async def test_a_job_s_own_output_is_made_of_its_component_s(tmp_path: Path) -> None:
    place = bench(tmp_path, job("a", "hello", output="{said: '${output}', of: '${input.who}'}"))
    assert await place.run({"who": "ann"}) == {"said": "hello", "of": "ann"}


# Repeats


async def test_a_repeated_job_runs_at_once_and_gives_a_list(tmp_path: Path) -> None:
    place = bench(tmp_path, job("a", "wait a", repeat_count="3"))
    run = asyncio.create_task(place.run())
    await _until(lambda: len(place.echoes.began) == 3)
    place.echoes.gate("a").set()
    assert await run == ["wait a"] * 3


@pytest.mark.parametrize("count", [1, None])
async def test_a_job_that_is_repeated_once_gives_its_value(tmp_path: Path, count: int | None) -> None:
    place = bench(tmp_path, job("a", "a", repeat_count="'${input.n}'"))
    assert await place.run({"n": count}) == "a"


@pytest.mark.parametrize("count", [0, -1, "two", True, 1.5, 10**9])
async def test_a_repeat_count_that_is_no_count_is_refused(tmp_path: Path, count: Any) -> None:
    place = bench(tmp_path, job("a", "a", repeat_count="'${input.n}'"))
    with pytest.raises(InvalidInput, match="`repeat_count` of job `a`"):
        await place.run({"n": count})


async def test_one_repeat_that_fails_cancels_the_others(tmp_path: Path) -> None:
    place = bench(tmp_path, job("a", "fail it", repeat_count="3"))
    with pytest.raises(EngineError, match="it failed"):
        await place.run()


# Streams


async def test_the_last_job_streams_when_it_is_asked_to(tmp_path: Path) -> None:
    place = bench(tmp_path, job("a", "first"), job("b", "stream 3", depends_on="[a]"))
    output = await place.run(streaming=True)
    assert isinstance(output, Stream)
    assert place.context.state("a") == "completed"
    assert place.context.state("b") == "processing"
    assert await output.collect() == "0 1 2 "


async def test_a_stream_is_collected_where_another_job_reads_it(tmp_path: Path) -> None:
    place = bench(tmp_path, job("a", "stream 2"), job("b", "<${jobs.a.output}>"))
    assert await place.run(streaming=True) == "<stream 2>"  # only the last one is asked to stream


async def test_several_last_jobs_cannot_stream(tmp_path: Path) -> None:
    place = bench(tmp_path, job("a", "stream 2"), job("b", "stream 3"))
    assert await place.run(streaming=True) == "stream 3"


async def test_a_stream_is_closed_when_the_run_is_cancelled_before_anybody_has_it(tmp_path: Path) -> None:
    place = bench(tmp_path, job("a", "first"), job("b", "stream 3", depends_on="[a]"))
    run = asyncio.create_task(place.run(streaming=True))
    await _until(lambda: "stream 3" in place.echoes.began)
    if not run.done():
        run.cancel()
    try:
        output = await run
    except asyncio.CancelledError:
        assert place.echoes.closed == 1
    else:
        await output.aclose()


@given(st.data())
def test_whatever_the_graph_every_job_runs_once_after_those_it_needs(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8))
    needs = [
        tuple(f"j{n}" for n in data.draw(st.sets(st.integers(0, i - 1), max_size=3))) if i else ()
        for i in range(count)
    ]
    order = data.draw(st.permutations(range(count)))
    asyncio.run(_graph(needs, order))


async def _graph(needs: list[tuple[str, ...]], order: list[int]) -> None:
    prompts = compile_tree(parsed("${input.prompt}"))
    action = Action("do", None, {"prompt": prompts}, default=True)  # type: ignore[arg-type]
    jobs = tuple(
        Job(f"j{i}", "echo", "do", compile_tree({"prompt": f"j{i}"}), depends_on=needs[i]) for i in order
    )

    class One:
        """A project with one component."""

        def action(self, name: str) -> Action:
            return action

    class Files:
        components = {"echo": One()}  # noqa: RUF012

    echoes, context = Echoes(), Context()
    await run_workflow(
        Workflow("main", jobs),
        Files(),  # type: ignore[arg-type]
        {"echo": echoes},
        {},
        context,
        streaming=False,
    )
    assert sorted(echoes.ended) == sorted(f"j{i}" for i in range(len(needs)))
    for i, before in enumerate(needs):
        began = context.jobs.index((f"j{i}", "processing"))
        assert all(context.jobs.index((name, "completed")) < began for name in before)


async def _until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)
