"""Runs and tasks over HTTP, as spec §4 has them."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.api.serving import ECHO, IN_A_WORKER, parse_events, serving

from model_compose.errors import Overloaded, RequestTooLong

CHAT = ECHO.replace("text-generation", "chat-completion")
URL = "/api/workflows/runs"


# Answers


async def test_a_run_answers_with_its_output_and_cost(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service:
        response = await service.run({"prompt": "hello there"})
    answer = response.json()
    assert response.status_code == 200
    assert (answer["status"], answer["output"], answer["finish_reason"]) == (
        "completed",
        "hello there",
        "stop",
    )
    assert answer["usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 2,
        "total_tokens": 4,
        "cached_tokens": 0,
    }


@pytest.mark.parametrize(
    "given", ["hello", {"prompt": "hello"}, {"text": "hello"}], ids=["a bare text", "the field", "its alias"]
)
async def test_a_component_alone_takes_its_input_in_several_forms(tmp_path: Path, given: Any) -> None:
    async with serving(ECHO, tmp_path) as service:
        assert (await service.run(given)).json()["output"] == "hello"


async def test_a_conversation_is_answered(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": None}, {"role": "user", "content": "hello"}]
    async with serving(CHAT, tmp_path) as service:
        assert (await service.run({"messages": messages})).json()["output"] == "hello"


async def test_a_list_of_prompts_is_a_list_of_answers_in_order(tmp_path: Path) -> None:
    prompts = [f"number {i}" for i in range(20)]
    async with serving(ECHO, tmp_path) as service:
        assert (await service.run({"prompt": prompts})).json()["output"] == prompts


async def test_output_only_is_the_output_and_nothing_else(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service:
        response = await service.run("hello", output_only=True)
    assert response.json() == "hello"
    assert response.headers["x-task-id"]


async def test_forms_are_understood_like_json(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service:
        encoded = await service.client.post(URL, data={"input[prompt]": "hello", "output_only": "true"})
        multipart = await service.client.post(URL, files={"input[prompt]": (None, "hello")})
        a_file = await service.client.post(URL, files={"input[image]": ("a.png", b"x")})
    assert encoded.json() == "hello"
    assert multipart.json()["output"] == "hello"
    assert a_file.status_code == 422
    assert a_file.json()["field"] == "image"


# Streams


async def test_a_stream_is_asked_for_by_accept_or_in_the_body(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service:
        by_body = await service.events("chunks:3")
        response = await service.client.post(
            URL, json={"input": "chunks:3"}, headers={"Accept": "text/event-stream"}
        )
    assert by_body[:-1] == [("message", "0 "), ("message", "1 "), ("message", "2 ")]
    name, end = by_body[-1]
    assert (name, end["status"], end["usage"]["completion_tokens"]) == ("end", "completed", 3)
    assert parse_events(response.text)[:-1] == by_body[:-1]
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"


async def test_line_breaks_and_leading_spaces_of_a_piece_survive(tmp_path: Path) -> None:
    text = "  two\nlines\n\nand more\n"
    async with serving(ECHO, tmp_path) as service:
        events = await service.events(text)
    assert events[0] == ("message", text)


async def test_what_cannot_be_streamed_comes_as_one_piece(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service:
        events = await service.events({"prompt": ["a", "b"]})
    assert [name for name, _ in events] == ["message", "end"]
    assert json.loads(events[0][1]) == ["a", "b"]


@pytest.mark.process
async def test_an_error_in_the_middle_of_a_stream_is_its_last_event(tmp_path: Path) -> None:
    async with serving(IN_A_WORKER, tmp_path) as service:
        events = await service.events("fail")
    assert [name for name, _ in events] == ["error"]
    assert events[0][1] == {"detail": "RuntimeError: the engine is not in the mood", "type": "engine_error"}


async def test_a_file_that_streams_is_streamed_for_output_only_and_collected_otherwise(
    tmp_path: Path,
) -> None:
    text = ECHO + "  prompt: ${input.prompt}\n  streaming: true\n  output: <${result[]}>\n"
    async with serving(text, tmp_path) as service:
        collected = await service.run({"prompt": "chunks:2"})
        streamed = await service.run({"prompt": "chunks:2"}, output_only=True)
    assert collected.json()["output"] == "<0 ><1 >"
    assert [data for _, data in parse_events(streamed.text)][:2] == ["<0 >", "<1 >"]


@pytest.mark.process
async def test_ten_thousand_pieces_arrive_once_and_in_order(tmp_path: Path) -> None:
    async with serving(IN_A_WORKER, tmp_path) as service:
        events = await service.events("chunks:10000")
    assert [data for _, data in events[:-1]] == [f"{i} " for i in range(10000)]


# Mistakes of the caller: before a run exists, the status tells


@pytest.mark.parametrize(
    ("body", "status", "field", "says"),
    [
        ({"input": {"promt": "x"}}, 422, "promt", "did you mean `prompt`?"),
        ({"input": {"temperature": 1}}, 422, "prompt", "`prompt` or `text` is missing"),
        ({"input": {"prompt": "x", "temperature": "hot"}}, 422, "temperature", "number"),
        ({"input": {"prompt": "x", "top_k": -1}}, 422, "top_k", ">= 0"),
        ({"input": "x", "workflow_id": "nope"}, 404, None, "Workflow 'nope' not found."),
        ({"inptu": "x"}, 422, "inptu", "did you mean `input`?"),
        ({"input": "x", "callback_url": "http://x"}, 422, "callback_url", "not supported yet"),
        ({"input": "x", "stream": "yes"}, 422, "stream", "expected `bool`"),
        ({"input": "x", "wait_for_completion": False, "output_only": True}, 400, None, "wait_for_completion"),
    ],
)
async def test_a_wrong_request_is_told_what_and_where(
    tmp_path: Path, body: Any, status: int, field: str | None, says: str
) -> None:
    async with serving(ECHO, tmp_path) as service:
        response = await service.client.post(URL, json=body)
    answer = response.json()
    assert response.status_code == status
    assert answer.get("field") == field
    assert says in f"{answer['detail']} {answer.get('hint', '')}"


@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"", "application/json", 400),
        (b'{"input": ' + b"[" * 100_000, "application/json", 400),
        (b'{"input": ' + b"[" * 2000 + b"]" * 2000 + b"}", "application/json", 400),
        (b"hello", "text/plain", 400),
        (b"--x", "multipart/form-data", 400),
        (b"input=" + b"x" * 3000, "application/x-www-form-urlencoded", 413),
    ],
)
async def test_a_body_that_cannot_be_read_is_refused(
    tmp_path: Path, content: bytes, media_type: str, status: int
) -> None:
    text = ECHO.replace("{port: 0}", "{port: 0, max_body: 2048}") if status == 413 else ECHO
    async with serving(text, tmp_path) as service:
        response = await service.client.post(URL, content=content, headers={"Content-Type": media_type})
    assert response.status_code == status
    assert response.json()["type"] in ("bad_request", "body_too_large")


async def test_a_chunked_body_is_limited_too(tmp_path: Path) -> None:
    async def pieces() -> Any:
        for _ in range(100):
            yield b"x" * 1000

    async with serving(ECHO.replace("{port: 0}", "{port: 0, max_body: 2048}"), tmp_path) as service:
        response = await service.client.post(
            URL, content=pieces(), headers={"Content-Type": "application/json"}
        )
    assert response.status_code == 413


# Failures of a run


async def test_a_run_that_fails_is_a_failed_task_without_a_traceback(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service:
        response = await service.run("fail")
        only = await service.run("fail", output_only=True)
    answer = response.json()
    assert (response.status_code, answer["status"], answer["error_type"]) == (200, "failed", "engine_error")
    assert "Traceback" not in response.text
    assert only.status_code == 500


@pytest.mark.process
async def test_a_worker_that_dies_fails_its_requests_and_serves_the_next(tmp_path: Path) -> None:
    async with serving(IN_A_WORKER, tmp_path) as service:
        died = await service.run("crash", output_only=True)
        after = await service.run("hello")
    assert (died.status_code, died.json()["type"]) == (503, "worker_died")
    assert after.json()["output"] == "hello"


async def test_a_model_that_failed_to_load_is_503_with_the_reason(tmp_path: Path) -> None:
    async with serving(ECHO + "  options: {load_fails: no such weights}\n", tmp_path) as service:
        response = await service.run("hello")
        ready = await service.client.get("/readyz")
    assert (response.status_code, response.json()["type"]) == (503, "model_unavailable")
    assert "no such weights" in response.json()["detail"]
    assert ready.status_code == 503
    assert "not ready echo: failed" in ready.text


async def test_a_full_queue_is_429_with_retry_after(tmp_path: Path) -> None:
    text = ECHO + "  max_queue: 2\n  options: {slots: 1}\n"
    gate = tmp_path / "gate"
    async with serving(text, tmp_path) as service:
        held = [asyncio.create_task(service.run(f"wait:{gate}")) for _ in range(3)]
        await service.eventually(lambda: service.app.status()[0].waiting == 2, "two wait")
        refused = await service.run("hello")
        refused_later = await service.run("hello", wait_for_completion=False)
        gate.touch()
        answers = [response.json()["status"] for response in await asyncio.gather(*held)]
    assert refused.status_code == refused_later.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert answers == ["completed"] * 3


@pytest.mark.process
async def test_hundreds_of_requests_at_once_each_get_an_answer_or_429(tmp_path: Path) -> None:
    async with serving(IN_A_WORKER + "  max_queue: 64\n", tmp_path) as service:
        service.client._limits = None  # type: ignore[attr-defined]
        responses = await asyncio.gather(*(service.run(f"number {i}") for i in range(400)))
        idle = service.app.status()[0]
    codes = {response.status_code for response in responses}
    served = [r for r in responses if r.status_code == 200]
    assert codes <= {200, 429}
    assert all(r.json()["output"] == f"number {i}" for i, r in enumerate(responses) if r.status_code == 200)
    assert all("retry-after" in r.headers for r in responses if r.status_code == 429)
    assert len(served) >= 64
    assert (idle.waiting, idle.active) == (0, 0)


async def test_an_action_that_takes_too_long_is_504(tmp_path: Path) -> None:
    text = ECHO + "  prompt: ${input.prompt}\n  timeout: 50ms\n"
    async with serving(text, tmp_path) as service:
        response = await service.run({"prompt": f"wait:{tmp_path / 'never'}"}, output_only=True)
        events = await service.events({"prompt": f"wait:{tmp_path / 'never'}"})
        await service.eventually(lambda: service.app.status()[0].active == 0, "the slot is free")
    assert (response.status_code, response.json()["type"]) == (504, "timeout")
    assert events[-1][1]["type"] == "timeout"


# Leaving


@pytest.mark.process
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_a_client_that_leaves_frees_its_slot(tmp_path: Path, accept: str) -> None:
    async with serving(IN_A_WORKER, tmp_path) as service:
        address = urlsplit(service.url)
        body = json.dumps({"input": f"wait:{tmp_path / 'never'}"}).encode()
        sock = socket.create_connection((address.hostname, address.port))
        head = f"POST {URL} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        head += f"Accept: {accept}\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.sendall(head.encode() + body)
        await service.eventually(lambda: service.app.status()[0].active == 1, "it runs")
        sock.close()
        await service.eventually(lambda: service.app.status()[0].active == 0, "the slot is free")
        assert (await service.run("hello")).json()["output"] == "hello"


# Tasks


async def test_an_asynchronous_run_is_asked_for_by_its_id(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with serving(ECHO, tmp_path, state=tmp_path) as service:
        begun = (await service.run(f"wait:{gate}", wait_for_completion=False)).json()
        path = f"/api/tasks/{begun['task_id']}"
        early = await service.client.get(path)
        unfinished = await service.client.get(path, params={"output_only": "true"})
        gate.touch()
        run = service.app.running(begun["task_id"])
        if run is not None:
            await run.wait()
        finished = (await service.client.get(path)).json()
        only = await service.client.get(path, params={"output_only": "true"})
    assert begun["status"] == "pending"
    assert early.json()["status"] in ("pending", "processing")
    assert unfinished.status_code == 202
    assert (finished["status"], finished["output"]) == ("completed", f"wait:{gate}")
    assert only.json() == f"wait:{gate}"


async def test_a_finished_synchronous_run_can_be_asked_for_too(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service:
        answer = (await service.run("hello")).json()
        again = (await service.client.get(f"/api/tasks/{answer['task_id']}")).json()
        failed = (await service.run("fail")).json()["task_id"]
        only = await service.client.get(f"/api/tasks/{failed}", params={"output_only": "true"})
    assert again == answer
    assert only.status_code == 500


async def test_an_unknown_task_is_404(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service:
        answers = [
            await service.client.get("/api/tasks/nope"),
            await service.client.get("/api/tasks/nope/events"),
            await service.client.post("/api/tasks/nope/cancel"),
        ]
    assert [answer.status_code for answer in answers] == [404, 404, 404]


async def test_cancelling_a_task_ends_it_and_its_work(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service:
        begun = (await service.run(f"wait:{tmp_path / 'never'}", wait_for_completion=False)).json()
        await service.eventually(lambda: service.app.status()[0].active == 1, "it runs")
        answer = (await service.client.post(f"/api/tasks/{begun['task_id']}/cancel")).json()
        await service.eventually(lambda: service.app.status()[0].active == 0, "the slot is free")
    assert (answer["status"], answer["error_type"]) == ("cancelled", "cancelled")


async def test_who_waits_for_a_task_that_is_cancelled_is_told(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service:
        waiting = asyncio.create_task(service.run(f"wait:{tmp_path / 'never'}", output_only=True))
        await service.eventually(lambda: service.app.status()[0].active == 1, "it runs")
        (task_id,) = service.app._runs
        await service.client.post(f"/api/tasks/{task_id}/cancel")
        response = await waiting
    assert (response.status_code, response.json()["type"]) == (409, "cancelled")


async def test_a_task_can_be_watched(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with serving(ECHO, tmp_path, state=tmp_path) as service:
        begun = (await service.run(f"wait:{gate} chunks:2", wait_for_completion=False)).json()
        await service.eventually(lambda: service.app.status()[0].active == 1, "it runs")
        async with service.client.stream("GET", f"/api/tasks/{begun['task_id']}/events") as response:
            text = ""
            async for piece in response.aiter_text():
                text += piece
                gate.touch()
        late = await service.client.get(f"/api/tasks/{begun['task_id']}/events")
    events = parse_events(text)
    assert events[0][0] == "job"
    assert events[0][1]["state"] == "processing"
    assert [data for name, data in events if name == "chunk"] == ["0 ", "1 "]
    assert (events[-1][0], events[-1][1]["status"]) == ("end", "completed")
    assert [name for name, _ in parse_events(late.text)] == ["end"]


async def test_a_task_that_failed_is_told_with_the_status_of_its_error(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service:
        run, _ = service.app.begin(service.app.workflow(None), "hello")
        run.fail(RequestTooLong("too long", size=9, limit=8, hint="shorten it"))
        overloaded, _ = service.app.begin(service.app.workflow(None), "hello")
        overloaded.fail(Overloaded("the queue is full"))
        only = await service.client.get(f"/api/tasks/{run.id}?output_only=1")
        refused = await service.client.get(f"/api/tasks/{overloaded.id}?output_only=true")
    assert only.status_code == 413
    assert only.json() == {"detail": "too long", "type": "request_too_long", "hint": "shorten it"}
    assert refused.status_code == 429


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_a_task_is_not_shown_to_who_wants_something_else(tmp_path: Path, method: str) -> None:
    async with serving(ECHO, tmp_path) as service:
        task_id = (await service.run("hello")).json()["task_id"]
        answers = [
            await service.client.request(method, f"/api/tasks/{task_id}{path}") for path in ("", "/events")
        ]
    assert [answer.status_code for answer in answers] == [405, 405]


async def test_a_stream_of_a_run_that_fails_before_its_first_piece_is_a_stream_with_an_error(
    tmp_path: Path,
) -> None:
    text = ECHO + (
        "workflow:\n  jobs:\n"
        "    - {id: a, component: echo, input: {prompt: fail}}\n"
        "    - {id: b, component: echo, input: {prompt: '${jobs.a.output}'}}\n"
    )
    async with serving(text, tmp_path) as service:
        events = await service.events({})
    assert [(name, data["type"]) for name, data in events] == [("error", "engine_error")]
