"""Do jobs run in the order that they need, side by side where they may, and end together?"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.config.expressions import parsed
from tests.workflows.place import Context, Echoes, Nothing, bench, job, until

from model_compose.components.streams import Stream
from model_compose.config.schema import Action, Call, Job, Workflow
from model_compose.config.spec import ActionSpec
from model_compose.config.template import compile_tree
from model_compose.errors import EngineError, InvalidInput
from model_compose.workflows.graph import Graph
from model_compose.workflows.run import run_workflow


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
    await until(lambda: place.echoes.began == ["wait a"])
    place.echoes.gate("a").set()
    assert await run == "b"


async def test_jobs_that_need_nothing_start_together(tmp_path: Path) -> None:
    place = bench(tmp_path, *(job(name, f"wait {name}") for name in "abc"))
    run = asyncio.create_task(place.run())
    await until(lambda: sorted(place.echoes.began) == ["wait a", "wait b", "wait c"])
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
    await until(lambda: len(place.echoes.began) == 2)
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
    await until(lambda: len(place.echoes.began) == 3)
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
    await until(lambda: "stream 3" in place.echoes.began)
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
    action = Action("do", ActionSpec(Nothing), {"prompt": prompts}, default=True)
    jobs = tuple(
        Job(f"j{i}", Call("echo", "do", compile_tree({"prompt": f"j{i}"})), depends_on=needs[i])
        for i in order
    )

    class One:
        """A project with one component."""

        def action(self, name: str) -> Action:
            return action

    class Files:
        components = {"echo": One()}  # noqa: RUF012

    echoes, context = Echoes(), Context()
    await run_workflow(
        Graph(Workflow("main", jobs), Files()),  # type: ignore[arg-type]
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
