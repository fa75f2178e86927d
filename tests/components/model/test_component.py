"""Does a call to a model become the requests that it means, and their results its output?"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.compose.apps import ECHO, app_of, output_of, run_of, start
from tests.runtime.pools import eventually, files

from model_compose.components.model.component import LISTED, WINDOW
from model_compose.components.streams import Stream
from model_compose.errors import Cancelled, EngineError, InvalidInput, ModelComposeError, Overloaded, TimedOut
from model_compose.runtime.call import Call
from model_compose.runtime.pool import ModelPool
from model_compose.types import Usage, plain


def echo(*lines: str) -> str:
    return ECHO + "".join(f"  {line}\n" for line in lines)


async def test_a_text_is_one_request(tmp_path: Path) -> None:
    async with app_of(ECHO, tmp_path) as app:
        run = await run_of(app, "hello you")
        assert plain(run.output) == "hello you"
        assert run.usage == Usage(2, 2)
        assert run.finish_reason == "stop"


async def test_a_list_is_one_request_for_each_item_in_order(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(3 * WINDOW)]
    async with app_of(ECHO, tmp_path) as app:
        run = await run_of(app, {"prompt": texts})
        assert plain(run.output) == texts
        assert run.usage == Usage(2 * len(texts), 2 * len(texts))


async def test_the_longest_of_a_list_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted: list[str] = []
    submit = ModelPool.submit

    def noted(pool: ModelPool, model: str, request: Any, **more: Any) -> Call:
        submitted.append(request.prompt)
        return submit(pool, model, request, **more)

    monkeypatch.setattr(ModelPool, "submit", noted)
    texts = ["a", "a b c", "a b", "c", "a b c d"]
    async with app_of(ECHO, tmp_path) as app:
        assert await output_of(app, {"prompt": texts}) == texts
    assert submitted == ["a b c d", "a b c", "a b", "a", "c"]


async def test_a_list_of_one_is_answered_with_a_list(tmp_path: Path) -> None:
    async with app_of(ECHO, tmp_path) as app:
        assert await output_of(app, {"prompt": ["one"]}) == ["one"]


async def test_an_empty_list_is_refused(tmp_path: Path) -> None:
    async with app_of(ECHO, tmp_path) as app:
        with pytest.raises(InvalidInput, match="`prompt` is an empty list") as raised:
            await output_of(app, {"prompt": []})
        assert raised.value.field == "prompt"


async def test_of_a_long_list_only_a_window_waits_at_once(tmp_path: Path) -> None:
    (go,) = files(tmp_path, "go")
    async with app_of(echo("options: {slots: 2}"), tmp_path) as app:
        running = asyncio.create_task(run_of(app, {"prompt": [f"wait:{go}"] * (2 * WINDOW)}))
        await eventually(lambda: app.status()[0].active == 2, "it runs")
        status = app.status()[0]
        assert status.active + status.waiting == WINDOW
        go.touch()
        assert len((await running).output) == 2 * WINDOW


async def test_a_model_that_computes_batches_gets_lists_of_a_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted: list[Any] = []
    submit = ModelPool.submit

    def noted(pool: ModelPool, model: str, request: Any, **more: Any) -> Call:
        submitted.append(request)
        return submit(pool, model, request, **more)

    monkeypatch.setattr(ModelPool, "submit", noted)
    text = ECHO.replace("text-generation", "text-embedding")
    texts = ["x" * (i % 7 + 1) for i in range(3 * LISTED + 1)]
    async with app_of(text, tmp_path) as app:
        await app.pool.until(app.settled)
        run = await run_of(app, {"text": texts})
        assert [vector[0] for vector in plain(run.output)] == [len(each) for each in texts]
        assert run.usage == Usage(sum(map(len, texts)))
    assert sum(len(each) if isinstance(each, list) else 1 for each in submitted) == len(texts)
    assert len(submitted) < len(texts) / 8


async def test_one_item_that_fails_fails_the_list_and_ends_its_other_requests(tmp_path: Path) -> None:
    (never,) = files(tmp_path, "never")
    async with app_of(ECHO, tmp_path) as app:
        with pytest.raises(EngineError, match="not in the mood"):
            await output_of(app, {"prompt": [f"wait:{never}", "fail", f"wait:{never}"]})
        await eventually(lambda: app.status()[0].active == 0, "the others are withdrawn")


async def test_a_conversation_is_one_request_and_a_list_of_them_several(tmp_path: Path) -> None:
    text = ECHO.replace("text-generation", "chat-completion")
    one = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]
    other = [{"role": "user", "content": "again"}]
    async with app_of(text, tmp_path) as app:
        assert await output_of(app, {"messages": one}) == "hello"
        assert await output_of(app, {"messages": [one, other]}) == ["hello", "again"]


# Values


async def test_null_is_as_good_as_not_given(tmp_path: Path) -> None:
    async with app_of(ECHO, tmp_path) as app:
        assert await output_of(app, {"prompt": "hello", "seed": None, "temperature": None}) == "hello"
        with pytest.raises(InvalidInput, match="`prompt` or `text` is missing"):
            await output_of(app, {"prompt": None})


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"prompt": "x", "temperature": "hot"}, "temperature"),
        ({"prompt": "x", "top_k": -1}, "top_k"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": ["x", 3]}, "prompt"),
        ({"prompt": "x", "response_format": {"type": "prose"}}, "response_format.type"),
        (
            {"prompt": "x", "response_format": {"type": "json_schema", "json_schema": {}}},
            "response_format.json_schema.schema",
        ),
        ({"prompt": "x", "stop_sequences": ["a", 2]}, "stop_sequences[1]"),
    ],
)
async def test_a_wrong_value_is_refused_by_the_name_of_its_field(
    tmp_path: Path, given: dict[str, Any], field: str
) -> None:
    async with app_of(ECHO, tmp_path) as app:
        with pytest.raises(InvalidInput) as raised:
            await output_of(app, given)
    assert raised.value.field == field
    assert f"`{field}`" in str(raised.value)


async def test_the_file_s_values_are_taken_where_the_request_has_none(tmp_path: Path) -> None:
    text = echo("prompt: ${input.who | nobody} says hi", "seed: ${input.seed as integer}")
    async with app_of(text, tmp_path) as app:
        assert await output_of(app, {}) == "nobody says hi"
        assert await output_of(app, {"who": "ann", "seed": "7"}) == "ann says hi"


async def test_an_output_is_made_of_the_result(tmp_path: Path) -> None:
    text = echo(
        "prompt: ${input.prompt}",
        "output: {said: '${result.text}', as: '${input.name}', stop: '${result.finish_reason}'}",
    )
    async with app_of(text, tmp_path) as app:
        assert await output_of(app, {"prompt": "hi", "name": "n"}) == {
            "said": "hi",
            "as": "n",
            "stop": "stop",
        }


async def test_an_output_over_items_is_a_list_for_a_list(tmp_path: Path) -> None:
    text = echo("prompt: ${input.prompt}", "output: {said: '${result[].text}'}")
    async with app_of(text, tmp_path) as app:
        assert await output_of(app, {"prompt": ["a", "b"]}) == [{"said": "a"}, {"said": "b"}]


# Streams


async def pieces_of(run: Any, output: Any) -> list[Any]:
    assert isinstance(output, Stream)
    return [plain(piece) async for some in run.follow(output) for piece in some]


async def pieces(app: Any, given: Any, *, streaming: bool) -> list[Any]:
    run, output = await start(app, given, streaming=streaming)
    return await pieces_of(run, output)


async def test_a_caller_who_asks_for_a_stream_gets_one(tmp_path: Path) -> None:
    async with app_of(ECHO, tmp_path) as app:
        run, output = await start(app, "chunks:3", streaming=True)
        assert not run.ended
        assert await pieces_of(run, output) == ["0 ", "1 ", "2 "]
        assert run.status == "completed"
        assert plain(run.output) == "0 1 2 "
        assert run.usage == Usage(1, 3)


async def test_what_the_file_streams_is_a_stream_and_a_list_never_is(tmp_path: Path) -> None:
    text = echo("prompt: ${input.prompt}", "streaming: true")
    async with app_of(text, tmp_path) as app:
        run, output = await start(app, {"prompt": "chunks:2"})
        assert await pieces_of(run, output) == ["0 ", "1 "]
        assert await output_of(app, {"prompt": ["a", "b"]}) == ["a", "b"]


async def test_pieces_are_rendered_one_by_one(tmp_path: Path) -> None:
    text = echo("prompt: ${input.prompt}", "output: 'piece ${result[].text}of it'")
    async with app_of(text, tmp_path) as app:
        run, output = await start(app, {"prompt": "chunks:2"}, streaming=True)
        assert await pieces_of(run, output) == ["piece 0 of it", "piece 1 of it"]
        assert run.output == "piece 0 of itpiece 1 of it"


async def test_closing_a_stream_frees_the_slot(tmp_path: Path) -> None:
    (never,) = files(tmp_path, "never")
    async with app_of(echo("options: {slots: 1}"), tmp_path) as app:
        run, output = await start(app, f"chunks:2 wait:{never}", streaming=True)
        pieces = run.follow(output)
        await anext(pieces)
        await pieces.aclose()
        assert run.status == "cancelled"
        assert await output_of(app, "after") == "after"


async def test_closing_a_stream_that_nobody_read_frees_the_slot(tmp_path: Path) -> None:
    (never,) = files(tmp_path, "never")
    async with app_of(echo("options: {slots: 1}"), tmp_path) as app:
        run, output = await start(app, f"wait:{never}", streaming=True)
        assert isinstance(output, Stream)
        await output.aclose()
        run.fail(Cancelled("nobody wants it"))
        assert await output_of(app, "after") == "after"


async def test_an_error_in_the_middle_of_a_stream_ends_the_run_with_it(tmp_path: Path) -> None:
    async with app_of(ECHO, tmp_path) as app:
        run, output = await start(app, "chunks:2 fail", streaming=True)
        with pytest.raises(EngineError, match="not in the mood"):
            await pieces_of(run, output)
        assert run.status == "failed"


# Limits


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("many", [False, True], ids=["one", "list"])
async def test_a_timeout_ends_the_call_and_frees_the_slot(
    tmp_path: Path, streaming: bool, many: bool
) -> None:
    (never,) = files(tmp_path, "never")
    text = echo("prompt: ${input.prompt}", "timeout: 100ms", "options: {slots: 1}")
    prompt = f"chunks:1 wait:{never}"
    async with app_of(text, tmp_path) as app:
        await app.pool.until(app.ready)
        with pytest.raises(TimedOut, match="timeout"):
            await pieces(app, {"prompt": [prompt] if many else prompt}, streaming=streaming)
        await eventually(lambda: app.status()[0].active == 0, "the slot is free")


async def test_a_timeout_that_does_not_run_out_changes_nothing(tmp_path: Path) -> None:
    text = echo("prompt: ${input.prompt}", "timeout: 20s")
    async with app_of(text, tmp_path) as app:
        assert await output_of(app, {"prompt": "hello"}) == "hello"
        run, output = await start(app, {"prompt": "chunks:3"}, streaming=True)
        assert len(await pieces_of(run, output)) == 3


async def test_a_run_that_finds_the_queue_full_is_refused_and_a_list_that_is_in_waits(tmp_path: Path) -> None:
    (go,) = files(tmp_path, "go")
    async with app_of(echo("max_queue: 2", "options: {slots: 1}"), tmp_path) as app:
        await app.pool.until(app.ready)
        running = asyncio.create_task(run_of(app, {"prompt": [f"wait:{go}"] * 10}))
        await eventually(lambda: app.status()[0].waiting == 9, "the list waits, beyond the limit")
        with pytest.raises(Overloaded) as raised:
            await run_of(app, "late")
        assert raised.value.retry_after_s >= 1
        with pytest.raises(Overloaded):
            await run_of(app, {"prompt": ["late", "too"]})
        assert app.status()[0].waiting == 9
        go.touch()
        assert len((await running).output) == 10


async def test_a_stream_that_is_refused_is_refused_at_once(tmp_path: Path) -> None:
    async with app_of(echo("options: {load_fails: no weights}"), tmp_path) as app:
        await app.pool.until(app.settled)
        with pytest.raises(ModelComposeError, match="no weights"):
            await start(app, "hello", streaming=True)
