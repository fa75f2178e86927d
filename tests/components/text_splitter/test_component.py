from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.components.calling import component_of
from tests.compose.apps import project_of

from model_compose.components.streams import Stream
from model_compose.errors import ConfigErrors, InvalidInput

SPLIT = "component: {type: text-splitter, by: sentence, text: '${input.text}'}"
OVERLAPPING = "component: {type: text-splitter, by: '${input.by}', chunk_overlap: 10}"


class Told:
    """A stream of texts that notes how far it was read, and whether it was closed."""

    def __init__(self, *texts: Any) -> None:
        self.read = 0
        self.closed = False
        self.stream = Stream(self._pieces(texts), close=self._close)

    async def _pieces(self, texts: tuple[Any, ...]) -> AsyncIterator[list[Any]]:
        for text in texts:
            self.read += 1
            yield [text]

    async def _close(self) -> None:
        self.closed = True


async def test_a_text_is_a_list_of_chunks(tmp_path: Path) -> None:
    async with component_of(SPLIT, tmp_path) as splitter:
        assert await splitter.call({"text": "One. Two."}) == ["One.", "Two."]
        assert await splitter.call({"text": " "}) == []


async def test_a_list_of_texts_is_a_list_of_lists(tmp_path: Path) -> None:
    async with component_of(SPLIT, tmp_path) as splitter:
        assert await splitter.call({"text": ["One. Two.", "Three."]}) == [["One.", "Two."], ["Three."]]


async def test_a_stream_is_a_stream_whose_chunks_come_when_they_are_complete(tmp_path: Path) -> None:
    source = Told("One", ". Tw", "o. Th", "ree.")
    async with component_of(SPLIT, tmp_path) as splitter:
        stream = await splitter.call({"text": source.stream})
        reader = stream.reader()
        assert await anext(reader) == ["One."]
        assert source.read == 2
        assert [piece for pieces in [some async for some in reader] for piece in pieces] == ["Two.", "Three."]
        assert source.closed


async def test_the_chunks_of_a_stream_together_are_a_list(tmp_path: Path) -> None:
    text = SPLIT.replace("}'}", "}', output: '${result[]}'}")
    async with component_of(text, tmp_path) as splitter:
        stream = await splitter.call({"text": Told("One. Two.").stream})
        assert await stream.collect() == ["One.", "Two."]
        assert await splitter.call({"text": "One. Two."}) == ["One.", "Two."]


async def test_an_action_that_streams_gives_a_stream_of_a_text(tmp_path: Path) -> None:
    async with component_of(SPLIT.replace("}'}", "}', streaming: true}"), tmp_path) as splitter:
        stream = await splitter.call({"text": "One. Two. " * 100_000})
        assert len(await anext(stream.reader())) > 1
        await stream.aclose()


async def test_closing_it_closes_what_it_reads(tmp_path: Path) -> None:
    source = Told("One. Two")
    async with component_of(SPLIT, tmp_path) as splitter:
        stream = await splitter.call({"text": source.stream})
        await stream.aclose()
        assert (source.closed, source.read) == (True, 0)


async def test_a_wrong_request_closes_what_it_would_have_read(tmp_path: Path) -> None:
    source = Told("One. Two")
    async with component_of(OVERLAPPING, tmp_path) as splitter:
        with pytest.raises(InvalidInput, match="needs a `chunk_size`"):
            await splitter.call({"text": source.stream, "by": "sentence"})
    assert source.closed


async def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    async with component_of(SPLIT, tmp_path) as splitter:
        with pytest.raises(InvalidInput, match=r"`text\[1\]`: expected text"):
            await splitter.call({"text": ["One.", 2]})
        with pytest.raises(InvalidInput, match="`text` is missing"):
            await splitter.call({})
        stream = await splitter.call({"text": Told({"a": 1}).stream})
        with pytest.raises(InvalidInput, match="`text`: expected text"):
            await stream.collect()


async def test_long_texts_do_not_hold_up_the_loop(tmp_path: Path) -> None:
    async with component_of(SPLIT, tmp_path) as splitter:
        call = asyncio.ensure_future(splitter.call({"text": "One two three. " * 50_000}))
        turns = 0
        while not call.done():
            await asyncio.sleep(0)
            turns += 1
        assert len(call.result()) == 50_000
        assert turns > 3


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("by: sentence, separators: [a]", "`separators` are for `by: recursive`, not for `sentence`"),
        ("by: paragraph, chunk_overlap: 3", "`chunk_overlap` needs a `chunk_size`"),
        ("chunk_size: 10, chunk_overlap: 10", "`chunk_overlap` is 10, and a chunk has only 10"),
        ("by: token", "`token` as `by` of the component is known, and not supported yet"),
        ("chunk_size: 0", "`chunk_size` of the component: expected"),
    ],
)
def test_mistakes_are_found_when_the_file_is_read(tmp_path: Path, keys: str, message: str) -> None:
    with pytest.raises(ConfigErrors) as told:
        project_of(f"component: {{type: text-splitter, {keys}}}", tmp_path)
    assert told.value.errors[0].message.startswith(message)
