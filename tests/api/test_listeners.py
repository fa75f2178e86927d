"""Answers and events from outside, over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from tests.api.serving import ECHO, Service, serving

from model_compose.api.listeners import Ports, listening
from model_compose.errors import ServiceError, UpstreamError

TRIGGER = ECHO + "listener: {type: http-trigger, port: 0, path: /go%s}\n"
CALLBACK = ECHO + "listener: {type: http-callback, port: 0, path: /done, identify_by: '${item.id}'%s}\n"


class Heard(msgspec.Struct):
    """A service with a listener, and a client for that."""

    service: Service
    client: httpx2.AsyncClient

    async def waiting(self, name: str) -> asyncio.Task[Any]:
        """Somebody who waits for an answer."""
        task = asyncio.create_task(self.service.app.callbacks.wait(name, 20))
        await asyncio.sleep(0)
        return task

    async def output(self, task_id: str) -> Any:
        """What a run gives, once it has ended."""
        run = self.service.app.running(task_id)
        if run is not None:
            await run.wait()
        return (await self.service.app.record(task_id)).output


@contextlib.asynccontextmanager
async def hearing(text: str, folder: Path) -> AsyncIterator[Heard]:
    async with serving(text, folder) as service:
        with Ports(service.app.project) as ports:
            async with listening(service.app, ports):
                port = ports.sockets[0].getsockname()[1]
                async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                    yield Heard(service, client)


# Triggers


async def test_a_trigger_starts_a_run_and_says_which(tmp_path: Path) -> None:
    async with hearing(TRIGGER % "", tmp_path) as heard:
        response = await heard.client.post("/go", json={"prompt": "hello"})
        assert response.status_code == 202
        task_id = response.json()["task_id"]
        assert response.json() == {"task_id": task_id, "task_ids": [task_id]}
        assert await heard.output(task_id) == "hello"


async def test_the_file_says_what_the_workflow_gets(tmp_path: Path) -> None:
    more = ", input: {prompt: '${body.issue.title} by ${query.who}'}"
    async with hearing(TRIGGER % more, tmp_path) as heard:
        response = await heard.client.post("/go?who=me", json={"issue": {"title": "A bug"}})
        assert await heard.output(response.json()["task_id"]) == "A bug by me"


async def test_a_query_or_a_form_is_as_good_as_a_body(tmp_path: Path) -> None:
    async with hearing(TRIGGER % ", method: GET", tmp_path) as heard:
        response = await heard.client.get("/go", params={"prompt": "hello"})
        assert await heard.output(response.json()["task_id"]) == "hello"
    async with hearing(TRIGGER % "", tmp_path) as heard:
        response = await heard.client.post("/go", data={"prompt": "hello"})
        assert await heard.output(response.json()["task_id"]) == "hello"


async def test_a_list_starts_a_run_for_each_item(tmp_path: Path) -> None:
    more = ", bulk: true, item: '${body.events}', input: {prompt: '${item.x}'}"
    async with hearing(TRIGGER % more, tmp_path) as heard:
        response = await heard.client.post("/go", json={"events": [{"x": "a"}, {"x": "b"}]})
        assert [await heard.output(each) for each in response.json()["task_ids"]] == ["a", "b"]
        assert "task_id" not in response.json()


async def test_a_wrong_item_refuses_the_whole_list(tmp_path: Path) -> None:
    async with hearing(TRIGGER % ", bulk: true", tmp_path) as heard:
        response = await heard.client.post("/go", json=[{"prompt": "a"}, {"promt": "b"}])
        assert response.status_code == 422
        assert response.json()["detail"] == "item 1: unknown field `promt` in the input"
        assert not heard.service.app._runs
        response = await heard.client.post("/go", json={"prompt": "a"})
        assert response.json()["detail"] == "the body is no list, and this path takes one"


@pytest.mark.parametrize(
    ("request_", "status", "detail"),
    [
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "the body is not JSON"),
        ({"content": b"[" * 1000 + b"]" * 1000}, 400, "the body is nested too deeply"),
        ({"content": b"a", "headers": {"content-type": "text/plain"}}, 400, "the body has media type"),
        ({"json": {"promt": "a"}}, 422, "unknown field `promt` in the input"),
        ({"json": {}}, 422, "`prompt` or `text` is missing in the input"),
        ({"content": b" " * 3000}, 413, "the body is larger than 2048 bytes"),
        ({"json": {}, "headers": {"origin": "https://evil.example"}}, 403, "web pages from"),
        ({"json": {}, "headers": {"host": "evil.example"}}, 403, "`evil.example` is not a name"),
    ],
)
async def test_what_is_refused(tmp_path: Path, request_: dict[str, Any], status: int, detail: str) -> None:
    async with hearing(TRIGGER % ", max_body: 2048", tmp_path) as heard:
        response = await heard.client.post("/go", **request_)
        assert (response.status_code, response.json()["detail"][: len(detail)]) == (status, detail)


async def test_other_paths_and_methods_are_told(tmp_path: Path) -> None:
    async with hearing(TRIGGER % "", tmp_path) as heard:
        assert (await heard.client.post("/og")).status_code == 404
        response = await heard.client.get("/go")
        assert (response.status_code, response.headers["allow"]) == (405, "POST")
        assert (await heard.client.get("/api/tasks/x")).status_code == 404  # it is not the API


async def test_a_trigger_asks_for_the_keys_of_the_service(tmp_path: Path) -> None:
    text = TRIGGER.replace("{port: 0}", "{port: 0, api_keys: [{key: a-long-key, name: ann}]}", 1) % ""
    async with hearing(text, tmp_path) as heard:
        assert (await heard.client.post("/go", json={"prompt": "a"})).status_code == 401
        headers = {"authorization": "Bearer a-long-key"}
        response = await heard.client.post("/go", json={"prompt": "a"}, headers=headers)
        assert response.status_code == 202
        await heard.output(response.json()["task_id"])
        assert (await heard.service.app.record(response.json()["task_id"])).owner == "ann"


async def test_a_service_that_stops_takes_no_events(tmp_path: Path) -> None:
    async with hearing(TRIGGER % "", tmp_path) as heard:
        heard.service.app.draining = True
        assert (await heard.client.post("/go", json={"prompt": "a"})).status_code == 503


# Callbacks


async def test_an_answer_reaches_the_call_that_waits_for_it(tmp_path: Path) -> None:
    async with hearing(CALLBACK % ", result: '${item.data}'", tmp_path) as heard:
        waiting = await heard.waiting("7")
        response = await heard.client.post("/done", json={"id": 7, "data": {"a": 1}})
        assert (response.status_code, response.json()) == (200, {"accepted": 1, "ignored": 0})
        assert await waiting == {"a": 1}


async def test_an_answer_may_come_before_somebody_waits(tmp_path: Path) -> None:
    async with hearing(CALLBACK % "", tmp_path) as heard:
        await heard.client.post("/done", json={"id": "x"})
        assert await (await heard.waiting("x")) == {"id": "x"}


async def test_a_status_says_whether_it_is_done_failed_or_under_way(tmp_path: Path) -> None:
    more = ", status: '${item.code}', success_when: [done, 200], fail_when: [failed]"
    async with hearing(CALLBACK % more, tmp_path) as heard:
        first, second = await heard.waiting("a"), await heard.waiting("b")
        response = await heard.client.post("/done", json={"id": "a", "code": "working"})
        assert response.json() == {"accepted": 0, "ignored": 1}
        assert not first.done()
        await heard.client.post("/done", json={"id": "a", "code": "200"})
        assert (await first)["code"] == "200"
        await heard.client.post("/done", json={"id": "b", "code": "failed", "why": "no luck"})
        with pytest.raises(UpstreamError) as error:
            await second
        assert error.value.message == "the callback says `failed`"
        assert "no luck" in str(error.value.upstream_body)


async def test_many_answers_may_come_together(tmp_path: Path) -> None:
    async with hearing(CALLBACK % ", bulk: true, item: '${body.all}'", tmp_path) as heard:
        first, second = await heard.waiting("a"), await heard.waiting("b")
        response = await heard.client.post("/done", json={"all": [{"id": "a"}, {"id": "b"}]})
        assert response.json() == {"accepted": 2, "ignored": 0}
        assert (await first, await second) == ({"id": "a"}, {"id": "b"})


async def test_an_answer_that_names_no_call_is_refused(tmp_path: Path) -> None:
    async with hearing(CALLBACK % ", bulk: true", tmp_path) as heard:
        first = await heard.waiting("a")
        response = await heard.client.post("/done", json=[{"id": "a"}, {}])
        assert (response.status_code, response.json()["field"]) == (422, "identify_by")
        assert not first.done()
        first.cancel()


# Ports


async def test_a_port_that_is_taken_is_told_with_what_to_change(tmp_path: Path) -> None:
    async with hearing(TRIGGER % "", tmp_path) as heard:
        port = heard.client.base_url.port
        assert port is not None
        project = heard.service.app.project
        (listener,) = project.listeners
        taken = msgspec.structs.replace(listener, port=port)
        with (
            pytest.raises(ServiceError) as error,
            Ports(msgspec.structs.replace(project, listeners=(listener, taken))),
        ):
            pass
        assert error.value.hint is not None
        assert "`port` of the http-trigger listener" in error.value.hint
