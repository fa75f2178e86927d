"""Does a job read what another one gives while it is being made, and do errors and ends go both ways?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.workflows.place import Bench, Echoes, bench, job, until

from model_compose.components.contract import CallContext
from model_compose.components.streams import InOrder, Stream
from model_compose.config.expression import Scope, render
from model_compose.config.schema import Action
from model_compose.errors import EngineError
from model_compose.types import plain
from model_compose.workflows.graph import Graph

WINDOW = 3


class Stages(Echoes):
    """`items N` gives a stream of items; a stream of items is a stream of the same, with `!`."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[int] = []
        self.seen: list[str] = []
        self.ends: list[str] = []
        self.breaks_at = -1
        self.step = asyncio.Event()
        self.step.set()

    async def call(self, action: Action, scope: Scope, context: CallContext, *, streaming: bool) -> Any:
        value = render(action.values["prompt"], scope)
        if isinstance(value, Stream):
            return self._second(value)
        if str(value).startswith("items ") and streaming:
            return self._first(int(str(value).split()[1]))
        return await super().call(action, scope, context, streaming=streaming)

    def _first(self, count: int) -> Stream:
        async def pieces() -> AsyncIterator[list[str]]:
            for i in range(count):
                await self.step.wait()
                if i == self.breaks_at:
                    raise EngineError("the first stage broke")
                self.made.append(i)
                yield [str(i)]

        return Stream(pieces(), close=self._closed("first"), items=True)

    def _second(self, stream: Stream) -> Stream:
        async def flat() -> AsyncIterator[Any]:
            async for pieces in stream.reader():
                for piece in pieces:
                    yield piece

        async def one(piece: str) -> str:
            self.seen.append(piece)
            if piece == "bad":
                raise EngineError("bad")
            await asyncio.sleep(0)
            return f"{piece}!"

        results = InOrder(flat(), one, WINDOW)

        async def close() -> None:
            await results.aclose()
            await self._closed("second")()
            await stream.aclose()

        return Stream(results, close=close, items=True)

    def _closed(self, name: str) -> Any:
        async def close() -> None:
            self.ends.append(name)

        return close


def stages(tmp_path: Path, *jobs: str, **more: str) -> tuple[Bench, Stages]:
    place = bench(tmp_path, *jobs, **more)
    place.echoes = found = Stages()
    return place, found


TWO = (job("a", "items 5"), job("b", "${jobs.a.output}"))


def pipes(place: Bench) -> dict[str, str]:
    workflow = next(iter(place.project.workflows.values()))
    names = [each.id for each in workflow.jobs]
    return {names[a]: names[b] for a, b in Graph(workflow, place.project).pipes.items()}


async def test_the_second_stage_begins_before_the_first_has_ended(tmp_path: Path) -> None:
    place, found = stages(tmp_path, *TWO)
    found.step.clear()
    run = asyncio.create_task(place.run(streaming=True))
    await until(lambda: run.done())
    output = await run
    assert (place.context.state("a"), place.context.state("b")) == ("processing", "processing")
    reader = output.reader()
    found.step.set()
    assert await anext(reader) == ["0!"]
    assert len(found.made) <= WINDOW + 1
    rest = [piece async for pieces in reader for piece in pieces]
    assert rest == ["1!", "2!", "3!", "4!"]
    assert (place.context.state("a"), place.context.state("b")) == ("completed", "completed")


async def test_the_first_stage_does_not_run_ahead_of_a_slow_reader(tmp_path: Path) -> None:
    place, found = stages(tmp_path, job("a", "items 1000"), job("b", "${jobs.a.output}"))
    output = await place.run(streaming=True)
    reader = output.reader()
    read = 0
    for _ in range(20):
        read += len(await anext(reader))
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(found.made) <= read + WINDOW + 1
    await output.aclose()
    assert {"first", "second"} <= set(found.ends)
    assert place.context.state("a") == place.context.state("b") == "cancelled"


async def test_three_stages_are_one_pipeline(tmp_path: Path) -> None:
    place, found = stages(tmp_path, *TWO, job("c", "${jobs.b.output as text}"))
    assert await place.run() == ["0!!", "1!!", "2!!", "3!!", "4!!"]
    assert found.seen.index("0!") < found.seen.index("4")
    assert {name: place.context.state(name) for name in "abc"} == dict.fromkeys("abc", "completed")


async def test_an_error_of_the_first_stage_is_that_of_the_second_and_of_the_run(tmp_path: Path) -> None:
    place, found = stages(tmp_path, *TWO)
    found.breaks_at = 2
    with pytest.raises(EngineError, match="the first stage broke"):
        await place.run()
    assert (place.context.state("a"), place.context.state("b")) == ("failed", "failed")
    assert {"first", "second"} <= set(found.ends)


async def test_an_error_of_the_second_stage_ends_the_first(tmp_path: Path) -> None:
    place, found = stages(
        tmp_path,
        job("a", "items 1000", output="'${result[] as text}'"),
        "{id: f, type: filter, input: '${jobs.a.output}', where: {input: '${item}', operator: lt, value: 3}}",
    )
    with pytest.raises(Exception, match="`lt` cannot compare"):
        await place.run()
    assert len(found.made) < 10
    assert found.ends
    assert (place.context.state("a"), place.context.state("f")) == ("cancelled", "failed")


async def test_cancelling_the_run_ends_every_stage(tmp_path: Path) -> None:
    place, found = stages(tmp_path, *TWO)
    found.step.clear()
    run = asyncio.create_task(place.run())
    await until(lambda: ("b", "processing") in place.context.jobs)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert {"first", "second"} <= set(found.ends)
    assert (place.context.state("a"), place.context.state("b")) == ("cancelled", "cancelled")


async def test_a_filter_and_a_for_each_are_stages_too(tmp_path: Path) -> None:
    place, found = stages(
        tmp_path,
        job("a", "items 6"),
        "{id: f, type: filter, input: '${jobs.a.output}',"
        " where: {input: '${index}', operator: gt, value: 2}}",
        "{id: e, type: for-each, input: '${jobs.f.output}', max_concurrent_count: 1, batch_size: 2,"
        " do: {component: echo, input: {prompt: '${item}'}}}",
    )
    assert pipes(place) == {"a": "f", "f": "e"}
    assert await place.run() == ["3", "4", "5"]
    assert await place.run(streaming=True) is not None
    assert found.ends


async def test_a_stage_that_is_tried_again_before_its_first_piece_streams(tmp_path: Path) -> None:
    place, found = stages(
        tmp_path, job("a", "items 3", retry="{max_retry_count: 2, delay: 0}"), job("b", "${jobs.a.output}")
    )
    found.breaks_at = 0
    with pytest.raises(EngineError, match="the first stage broke"):
        await place.run()
    assert [state for name, state in place.context.jobs if name == "a"].count("retrying") == 2
    assert not [name for name, _ in place.context.jobs if name == "b"]


@pytest.mark.parametrize(
    ("jobs", "found"),
    [
        (TWO, {"a": "b"}),
        ((*TWO, job("c", "${jobs.a.output}")), {}),  # two readers
        ((*TWO, job("c", "c", depends_on="a")), {}),  # one that waits for its end
        ((TWO[0], job("b", "<${jobs.a.output}>")), {}),  # a part of a text
        ((TWO[0], job("b", "${jobs.a.output as json}")), {}),
        ((TWO[0], job("b", "${jobs.a.output | x}")), {}),
        ((TWO[0], job("b", "${jobs.a.output}", repeat_count="2")), {}),
        ((TWO[0], job("b", "${jobs.a.output}", retry="1")), {}),  # it could not be read again
        ((*TWO[:1], job("c"), job("b", "${jobs.a.output}", depends_on="c")), {}),  # it may begin much later
        (
            (job("c"), job("a", "items ${jobs.c.output}"), job("b", "${jobs.a.output}", depends_on="c")),
            {"a": "b"},
        ),
    ],
)
def test_a_stream_goes_to_one_job_that_wants_all_of_it(
    tmp_path: Path, jobs: tuple[str, ...], found: dict[str, str]
) -> None:
    assert pipes(bench(tmp_path, *jobs)) == found


def test_a_stream_that_the_workflow_gives_too_is_collected(tmp_path: Path) -> None:
    assert pipes(bench(tmp_path, *TWO, output="'${jobs.a.output}'")) == {}


async def test_what_cannot_stream_is_passed_on_as_a_whole(tmp_path: Path) -> None:
    place, _ = stages(tmp_path, job("a", "plain"), job("b", "${jobs.a.output}"))
    assert await place.run() == "plain"


async def test_what_is_last_in_a_stream_of_items_is_a_list(tmp_path: Path) -> None:
    place, _ = stages(tmp_path, job("a", "items 3"))
    output = await place.run(streaming=True)
    assert plain(await output.collect()) == ["0", "1", "2"]
