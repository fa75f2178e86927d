from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.components.calling import Workflows, component_of
from tests.compose.apps import app_of, output_of, project_of

from model_compose.components.streams import Stream
from model_compose.errors import ConfigErrors, InvalidInput, TimedOut

INNER = """
components:
  - {id: outer, type: workflow, workflow: inner%s}
  - {id: words, type: text-splitter, by: word, chunk_size: 3, text: "${input.text}"}
workflows:
  - {id: inner, component: words}
  - {id: main, default: true, component: outer}
"""


def stream(*texts: str, closed: list[bool]) -> Stream:
    async def pieces() -> AsyncIterator[list[Any]]:
        for text in texts:
            yield [text]

    async def close() -> None:
        closed.append(True)

    return Stream(pieces(), close=close)


async def test_it_passes_its_input_on_and_gives_what_the_workflow_gives(tmp_path: Path) -> None:
    workflows = Workflows()
    workflows.gives = {"a": 1}
    async with component_of(INNER % "", tmp_path, workflows) as component:
        assert await component.call({"text": "hello"}) == {"a": 1}
    assert workflows.calls == [("inner", {"text": "hello"}, False)]


async def test_the_file_may_say_what_goes_in_and_what_comes_out(tmp_path: Path) -> None:
    workflows = Workflows()
    workflows.gives = {"a": 1}
    keys = ", input: {text: '${input.q}'}, output: '${output.a}'"
    async with component_of(INNER % keys, tmp_path, workflows) as component:
        assert await component.call({"q": "hello"}) == 1
    assert workflows.calls == [("inner", {"text": "hello"}, False)]


async def test_a_stream_stays_one_and_keeps_its_place(tmp_path: Path) -> None:
    workflows, closed = Workflows(), list[bool]()
    workflows.gives = stream("a", "b", closed=closed)
    async with component_of(INNER % ", max_concurrent_count: 1", tmp_path, workflows) as component:
        first = await component.call({}, streaming=True)
        second = asyncio.ensure_future(component.call({}))
        reader = first.reader()
        assert await anext(reader) == ["a"]
        assert (len(workflows.calls), second.done()) == (1, False)
        workflows.gives = "done"
        assert [piece async for piece in reader] == [["b"]]
        assert closed == [True]
        assert await second == "done"


async def test_where_no_stream_is_wanted_it_is_collected(tmp_path: Path) -> None:
    workflows = Workflows()
    workflows.gives = stream("a", "b", closed=[])
    async with component_of(INNER % "", tmp_path, workflows) as component:
        assert await component.call({}) == "ab"


async def test_a_timeout_ends_the_workflow(tmp_path: Path) -> None:
    class Endless(Workflows):
        ended = False

        async def call(self, name: str, given: Any, context: Any, *, streaming: bool) -> Any:
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.ended = True

    workflows = Endless()
    async with component_of(INNER % ", timeout: 10ms", tmp_path, workflows) as component:
        with pytest.raises(TimedOut):
            await component.call({})
    assert workflows.ended


async def test_it_runs_in_a_project(tmp_path: Path) -> None:
    async with app_of(INNER % "", tmp_path) as app:
        assert await output_of(app, {"text": "one two"}) == ["one", "two"]
        with pytest.raises(InvalidInput, match="`text`"):
            await output_of(app, {})


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        ("iner", "there is no workflow `iner`"),
        ("main", "component `outer` calls workflow `main`, which calls it again, without an end"),
    ],
)
def test_a_workflow_that_is_not_there_or_never_ends_is_a_mistake(
    tmp_path: Path, inner: str, message: str
) -> None:
    with pytest.raises(ConfigErrors) as told:
        project_of((INNER % "").replace("workflow: inner", f"workflow: {inner}"), tmp_path)
    (error,) = told.value.errors
    assert error.message == message
    assert error.place is not None
    assert error.place.line == 3
