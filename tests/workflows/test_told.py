"""Does the workflow's own output stream, with a text around what the last job gives?"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.compose.apps import app_of, output_of, start

from model_compose.components.streams import Stream
from model_compose.types import plain

FILE = """
component: {{id: echo, type: model, task: text-generation, driver: echo, runtime: embedded}}
workflow:
  jobs:
    - {{id: a, component: echo, input: {{prompt: "first"}}}}
    - {{id: b, component: echo, input: {{prompt: "chunks:3"}}, depends_on: [a]}}
  output: {output}
"""


@pytest.mark.parametrize(
    ("output", "pieces"),
    [
        ('"${jobs.b.output}"', ["0 ", "1 ", "2 "]),
        ('"${jobs.a.output}: ${jobs.b.output}(${input.x | end})"', ["first: ", "0 ", "1 ", "2 ", "(end)"]),
        ('"-> ${jobs.b.output}"', ["-> ", "0 ", "1 ", "2 "]),
    ],
)
async def test_a_text_around_a_stream_is_a_stream(tmp_path: Path, output: str, pieces: list[str]) -> None:
    async with app_of(FILE.format(output=output), tmp_path) as app:
        run, stream = await start(app, {}, streaming=True)
        assert isinstance(stream, Stream)
        got = [plain(piece) for some in [some async for some in run.follow(stream)] for piece in some]
        assert got == pieces
        assert plain(run.output) == "".join(pieces)
        assert {name: timing.state for name, timing in run.jobs.items()} == {
            "a": "completed",
            "b": "completed",
        }
        assert await output_of(app, {}) == "".join(pieces)


@pytest.mark.parametrize(
    "output",
    [
        '{x: "${jobs.b.output}"}',
        '"${jobs.b.output} ${jobs.b.output}"',
        '"${jobs.a.output}"',
        '"${jobs.b.output as list}"',
    ],
)
async def test_anything_else_is_a_value(tmp_path: Path, output: str) -> None:
    async with app_of(FILE.format(output=output), tmp_path) as app:
        run, value = await start(app, {}, streaming=True)
        assert not isinstance(value, Stream)
        assert run.status == "completed"
