"""What does an output get of each kind of answer, as a whole and piece by piece?"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.components.http_client.upstream import Asked, Connection, Handler, answers, streams, upstream
from tests.compose.apps import app_of, output_of, run_of, start

from model_compose.components.streams import Stream
from model_compose.errors import UpstreamError
from model_compose.types import Blob, Usage

SSE = "text/event-stream"
NDJSON = "application/x-ndjson"


def file_of(url: str, more: str) -> str:
    return f"component:\n  type: http-client\n  endpoint: {url}/v1/chat/completions\n" + "".join(
        f"  {line}\n" for line in more.strip().splitlines()
    )


async def output(handler: Handler, folder: Path, more: str = "") -> Any:
    """The whole output of a call."""
    async with upstream(handler) as server, app_of(file_of(server.url, more), folder) as app:
        return await output_of(app)


async def pieces(handler: Handler, folder: Path, more: str = "") -> list[Any]:
    """The pieces of an output that is a stream."""
    async with upstream(handler) as server, app_of(file_of(server.url, more), folder) as app:
        run, stream = await start(app, None, streaming=True)
        assert isinstance(stream, Stream)
        return [piece async for some in run.follow(stream) for piece in some]


def deltas(*texts: str, done: bool = True) -> list[bytes]:
    """A streamed chat completion."""
    found = [f"data: {json.dumps({'choices': [{'delta': {'content': t}}]})}\n\n".encode() for t in texts]
    return [*found, b"data: [DONE]\n\n"] if done else found


def lines(*values: Any) -> list[bytes]:
    return [json.dumps(value).encode() + b"\n" for value in values]


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        ("application/json", b'{"a": [1]}', {"a": [1]}),
        ("application/json; charset=utf-8", b"\xef\xbb\xbf[1]", [1]),
        ("application/problem+json", b"1", 1),
        ("application/json", b"", None),
        ("application/json", b'{"a": 1}\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        ("text/plain", "ü".encode(), "ü"),
        ("text/plain; charset=iso-8859-1", "ü".encode("latin-1"), "ü"),
        ("text/html; charset=nonsense", b"<p>", "<p>"),
        ("image/png", b"\x89PNG", Blob("image/png", b"\x89PNG")),
        ("application/octet-stream", b"\0", Blob("application/octet-stream", b"\0")),
    ],
)
async def test_a_whole_answer_is_what_its_type_says(
    kind: str, body: bytes, expected: Any, tmp_path: Path
) -> None:
    assert await output(answers(body, kind), tmp_path) == expected


async def test_an_output_names_what_it_wants(tmp_path: Path) -> None:
    more = "output: {response: '${response.response}', same: '${result.response}'}"
    found = await output(answers({"response": "hello"}), tmp_path, more)
    assert found == {"response": "hello", "same": "hello"}


@pytest.mark.parametrize("also", ["", "stream_format: json\n"])
async def test_events_are_pieces_of_an_output(also: str, tmp_path: Path) -> None:
    more = also + "output: ${response[].choices[0].delta.content}"
    found = await pieces(streams(SSE, *deltas("Hel", "", "lo")), tmp_path, more)
    assert found == ["Hel", "", "lo"]
    assert await output(streams(SSE, *deltas("Hel", "", "lo")), tmp_path, more) == "Hello"


async def test_the_last_event_counts_without_an_empty_line(tmp_path: Path) -> None:
    data = b"".join(deltas("a", "b", done=False)).rstrip()
    more = "output: ${response[].choices[0].delta.content}"
    assert await pieces(streams(SSE, data), tmp_path, more) == ["a", "b"]


async def test_nothing_counts_after_done_and_the_connection_is_used_again(tmp_path: Path) -> None:
    more = "output: ${response[].choices[0].delta.content}"
    data = [*deltas("a"), *deltas("late")]
    async with upstream(streams(SSE, *data)) as server, app_of(file_of(server.url, more), tmp_path) as app:
        assert [await output_of(app) for _ in range(2)] == ["a", "a"]
    assert server.connections == 1


async def test_a_server_that_does_not_hang_up_after_done_holds_nobody_up(tmp_path: Path) -> None:
    gone = asyncio.Event()

    async def handle(asked: Asked, connection: Connection) -> None:
        await connection.head(SSE)
        for each in deltas("a"):
            await connection.chunk(each)
        await connection.gone.wait()
        gone.set()

    more = "output: ${response[].choices[0].delta.content}"
    async with upstream(handle) as server, app_of(file_of(server.url, more), tmp_path) as app:
        assert await output_of(app) == "a"
        await gone.wait()


async def test_events_that_are_no_json_are_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = [b"data: {\n\n", *deltas("a")]
    more = "stream_format: json\noutput: ${response[].choices[0].delta.content}"
    assert await pieces(streams(SSE, *data), tmp_path, more) == ["a"]
    assert "1 events that are no JSON were skipped" in caplog.text


async def test_events_of_texts_are_texts(tmp_path: Path) -> None:
    data = b"data: one\n\ndata: two\ndata: lines\n\n"
    for more in ("output: ${response[]}", "stream_format: text\noutput: ${response[]}"):
        assert await pieces(streams(SSE, data), tmp_path, more) == ["one", "two\nlines"]
    assert await output(streams(SSE, data), tmp_path) == "onetwo\nlines"


@pytest.mark.parametrize("kind", [NDJSON, "application/json-lines", "application/jsonl", "application/json"])
@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_lines_of_json_are_pieces(kind: str, size: int, tmp_path: Path) -> None:
    data = b"".join(lines({"response": "안"}, {"response": "녕"}, {"response": "", "done": True}))
    chunks = [data[i : i + size] for i in range(0, len(data), size)]
    more = "stream_format: json\noutput: ${response[].response}"
    assert await pieces(streams(kind, *chunks), tmp_path, more) == ["안", "녕", ""]
    assert await pieces(streams(kind, *chunks), tmp_path, "output: ${response[].response}") == [
        "안",
        "녕",
        "",
    ]


async def test_lines_of_json_without_pieces_in_the_output_are_one_object(tmp_path: Path) -> None:
    said = [
        *(
            {"model": "m", "message": {"role": "assistant", "content": t}, "done": False}
            for t in ("Hel", "lo")
        ),
        {"model": "m", "message": {"role": "assistant", "content": ""}, "done": True, "eval_count": 2},
    ]
    more = """
output:
  message: ${response.message.content}
  role: ${response.message.role}
  model: ${response.model}
  done: ${response.done}
  count: ${response.eval_count}
"""
    for _ in range(2):
        found = await output(streams(NDJSON, *lines(*said)), tmp_path, more)
        assert found == {"message": "Hello", "role": "assistant", "model": "m", "done": True, "count": 2}


async def test_a_text_is_concatenated_where_the_last_line_does_not_have_it(tmp_path: Path) -> None:
    data = lines({"response": "Hel"}, {"response": "lo"}, {"done": True})
    assert await output(streams(NDJSON, *data), tmp_path, "output: ${response.response}") == "Hello"


async def test_events_without_pieces_in_the_output_are_one_object(tmp_path: Path) -> None:
    more = "output: ${response.choices[0].delta.content}"
    assert await output(streams(SSE, *deltas("Hel", "lo")), tmp_path, more) == "Hello"
    usage = b'data: {"choices": [], "usage": {"prompt_tokens": 1}}\n\n'
    found = await output(streams(SSE, *deltas("Hel", "lo", done=False), usage), tmp_path, more)
    assert found == "Hello"


async def test_a_stream_is_passed_on_to_who_asks_for_one(tmp_path: Path) -> None:
    values = [{"a": 1}, {"a": 2}]
    assert await pieces(streams(NDJSON, *lines(*values)), tmp_path) == values
    assert await output(streams(NDJSON, *lines(*values)), tmp_path) == values


async def test_a_text_is_streamed_as_its_characters_come(tmp_path: Path) -> None:
    data = "안녕".encode()
    more = "stream_format: text\noutput: ${response[]}"
    found = await pieces(streams("text/plain", data[:2], data[2:4], data[4:]), tmp_path, more)
    assert "".join(found) == "안녕"


async def test_a_whole_completion_stands_for_a_streamed_one(tmp_path: Path) -> None:
    body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}}]}
    for also in ("", "stream_format: json\n"):
        more = also + "output: ${response[].choices[0].delta.content}"
        for data in (
            json.dumps(body).encode(),
            json.dumps(body, indent=1).encode(),
            json.dumps(body).encode() + b"\n",
        ):
            assert await pieces(answers(data), tmp_path, more) == ["hello"]
            assert await output(answers(data), tmp_path, more) == "hello"
    assert await output(answers(body), tmp_path, "output: ${response.choices[0].message.content}") == "hello"
    assert await output(answers(body), tmp_path, "stream_format: json") == {
        "choices": [{**body["choices"][0], "delta": body["choices"][0]["message"]}]
    }


async def test_the_items_of_a_list_are_pieces(tmp_path: Path) -> None:
    more = "output: ${response[].a}"
    assert await output(answers([{"a": 1}, {"b": 2}, {"a": 3}]), tmp_path, more) == [1, 3]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([b'{"response": "a"}\n', b'{"error": "out of memory"}\n'], "out of memory"),
        ([b'{"response": "a"}\n', b'{"error": {"message": "no", "code": 500}}\n'], "no"),
    ],
)
async def test_an_error_in_the_middle_of_lines_is_an_error(
    data: list[bytes], message: str, tmp_path: Path
) -> None:
    for more in ("output: ${response[].response}", "output: ${response.response}", ""):
        with pytest.raises(UpstreamError, match=f"failed while it answered: {message}$") as raised:
            await output(streams(NDJSON, *data), tmp_path, more)
        assert raised.value.upstream_status == 200


@pytest.mark.parametrize(
    "last",
    [
        b'event: error\ndata: {"error": "overloaded", "error_type": "generation"}\n\n',
        b"event: error\ndata: overloaded\n\n",
        b'data: {"error": {"message": "overloaded", "type": "x", "code": 500}}\n\n',
        b'data: {"object": "error", "message": "overloaded", "code": 400}\n\n',
        b'error: {"code": 500, "message": "overloaded"}\n\n',
    ],
)
async def test_an_error_in_the_middle_of_events_is_an_error(last: bytes, tmp_path: Path) -> None:
    more = "output: ${response[].choices[0].delta.content}"
    with pytest.raises(UpstreamError, match=r"failed while it answered: overloaded$"):
        await output(streams(SSE, *deltas("a", done=False), last), tmp_path, more)


async def test_a_piece_that_has_an_error_beside_other_things_is_a_piece(tmp_path: Path) -> None:
    data = lines({"row": 1, "error": "bad"}, {"row": 2, "error": None})
    assert await output(streams(NDJSON, *data), tmp_path) == [
        {"row": 1, "error": "bad"},
        {"row": 2, "error": None},
    ]


async def test_what_says_json_and_is_none_is_an_error(tmp_path: Path) -> None:
    for more in ("", "stream_format: json\noutput: ${response[].a}"):
        with pytest.raises(UpstreamError, match="sends what is no JSON"):
            await output(answers(b"<html>"), tmp_path, more)


@pytest.mark.parametrize(
    ("kind", "more"),
    [("application/json", ""), ("text/plain", ""), (SSE, "output: ${response[]}"), (NDJSON, "")],
)
async def test_a_response_is_bounded(kind: str, more: str, tmp_path: Path) -> None:
    async def handle(asked: Asked, connection: Connection) -> None:
        await connection.head(kind)
        while not connection.gone.is_set():
            await connection.chunk(b"data: " + b"x" * 10_000)

    with pytest.raises(UpstreamError, match="sends more than 100000 bytes") as raised:
        await output(handle, tmp_path, f"max_response: 100kB\n{more}")
    assert raised.value.hint is not None


async def test_usage_is_counted(tmp_path: Path) -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 2}}
    event = f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n".encode()
    for handler in (
        answers({"choices": [], "usage": usage}),
        streams(SSE, *deltas("a", done=False), event, b"data: [DONE]\n\n"),
    ):
        async with upstream(handler) as server, app_of(file_of(server.url, ""), tmp_path) as app:
            assert (await run_of(app)).usage == Usage(3, 5, 2)
