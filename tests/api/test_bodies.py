"""Bodies that are odd, or meant to harm: each has an answer, and none leaves anything behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.api.serving import ECHO, serving

URL = "/api/workflows/runs"
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
DEEP = b"[" * 700 + b"]" * 700

#: Gives a part of its input back, read as JSON.
PARSE = (
    ECHO
    + """
workflow:
  output: ${input.text as json}
  job: {component: echo, input: {prompt: hello}}
"""
)


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b'{"input": {"prompt": ' + DEEP + b"}}", JSON),
        (b'{"input": ' + DEEP + b"}", JSON),
        (b'{"wait_for_completion": false, "input": {"prompt": ' + DEEP + b"}}", JSON),
        (b"input[prompt]" + b"[a]" * 700 + b"=1", FORM),
    ],
    ids=["a field", "the input", "an asynchronous run", "a form"],
)
async def test_values_nested_too_deeply_are_the_callers_mistake(
    tmp_path: Path, content: bytes, headers: dict[str, str]
) -> None:
    async with serving(ECHO, tmp_path, state=tmp_path) as service:
        response = await service.client.post(URL, content=content, headers=headers)
        assert (response.status_code, response.json()["type"]) == (400, "bad_request")
        assert "nested too deeply" in response.json()["detail"]


async def test_brackets_in_a_text_are_no_nesting(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service:
        assert (await service.run("[" * 5000)).json()["output"] == "[" * 5000


async def test_an_output_that_cannot_be_written_fails_its_run_and_nobody_waits_for_ever(
    tmp_path: Path,
) -> None:
    deep = {"text": "[" * 600 + "]" * 600}
    async with serving(PARSE, tmp_path) as service:
        answer = await service.run(deep)
        only = await service.run(deep, output_only=True)
        events = await service.events(deep)
        assert service.app._runs == {}
    assert (answer.status_code, answer.json()["status"]) == (200, "failed")
    assert only.status_code == 500
    assert [name for name, _ in events] == ["error"]


async def test_an_integer_of_any_size_is_stored_and_comes_back(tmp_path: Path) -> None:
    async with serving(PARSE, tmp_path, state=tmp_path) as service:
        begun = (await service.run({"text": "9" * 40}, wait_for_completion=False)).json()
        run = service.app.running(begun["task_id"])
        if run is not None:
            await run.wait()
        answer = (await service.client.get(f"/api/tasks/{begun['task_id']}")).json()
    assert (answer["status"], answer["output"]) == ("completed", int("9" * 40))


@pytest.mark.parametrize("wait", [True, False])
async def test_an_integer_that_no_engine_can_hold_is_the_callers_mistake(tmp_path: Path, wait: bool) -> None:
    schema = {"type": "json_schema", "json_schema": {"schema": {"const": 10**40}}}
    async with serving(ECHO, tmp_path, state=tmp_path) as service:
        response = await service.run({"prompt": "x", "response_format": schema}, wait_for_completion=wait)
        assert (response.status_code, response.json()["type"]) == (422, "invalid_input")
        assert service.app._runs == {}


@pytest.mark.parametrize(
    ("content", "field"), [(b'{"input": {"temperature": 1e999}}', "input"), (b'{"input": 1e999}', "input")]
)
async def test_a_number_beyond_all_numbers_is_refused(tmp_path: Path, content: bytes, field: str) -> None:
    async with serving(ECHO, tmp_path) as service:
        response = await service.client.post(
            URL, content=content, headers={"Content-Type": "application/json"}
        )
    answer = response.json()
    assert (response.status_code, answer["field"], answer["detail"]) == (422, field, "number out of range")


@pytest.mark.parametrize("media_type", ["Application/JSON", "application/json; charset=utf-8"])
async def test_a_media_type_is_understood_however_it_is_written(tmp_path: Path, media_type: str) -> None:
    async with serving(ECHO, tmp_path) as service:
        response = await service.client.post(
            URL, content=b'{"input": "hello"}', headers={"Content-Type": media_type}
        )
    assert response.json()["output"] == "hello"


async def test_a_media_type_that_only_begins_like_json_is_refused(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service:
        response = await service.client.post(
            URL, content=b'{"input": "hello"}', headers={"Content-Type": "application/json5"}
        )
    assert response.status_code == 400


@pytest.mark.parametrize("given", ["0.5", "hot"])
async def test_numbers_in_a_form_are_numbers(tmp_path: Path, given: str) -> None:
    async with serving(ECHO, tmp_path) as service:
        response = await service.client.post(
            URL, data={"input[prompt]": "7", "input[temperature]": given, "input[do_sample]": "false"}
        )
    answer = response.json()
    if given == "hot":
        assert (response.status_code, answer["field"]) == (422, "temperature")
    else:
        assert answer["output"] == "7"


@pytest.mark.parametrize("content", [b"garbage", b"--x\r\nfoo\r\n\r\nbar\r\n--x--", b"--x\r\n", b""])
async def test_a_multipart_form_that_is_broken_is_refused(tmp_path: Path, content: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    async with serving(ECHO, tmp_path) as service:
        response = await service.client.post(URL, content=content, headers=headers)
    assert response.status_code in (400, 422)


async def test_the_limit_holds_for_a_body_that_comes_in_one_chunk(tmp_path: Path) -> None:
    async def piece() -> Any:
        yield b'{"input": "' + b"x" * 3000 + b'"}'

    async with serving(ECHO.replace("{port: 0}", "{port: 0, max_body: 2048}"), tmp_path) as service:
        response = await service.client.post(URL, content=piece(), headers=JSON)
    assert (response.status_code, response.json()["type"]) == (413, "body_too_large")
