from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest
from tests.api.openai.clients import ECHO, events, post, refused, served

HELLO: Any = [{"role": "user", "content": "hello you"}]
CHAT = "chat/completions"


async def test_a_conversation_goes_on(tmp_path: Path) -> None:
    async with served(ECHO, tmp_path) as (_, client):
        answer = await client.chat.completions.create(model="chat", messages=HELLO)
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == "chat"
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content == "hello you"
    assert choice.message.tool_calls is None
    assert choice.finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (2, 4)


async def test_a_stream_comes_word_by_word_and_ends_with_its_reason(tmp_path: Path) -> None:
    async with served(ECHO, tmp_path) as (_, client):
        stream = await client.chat.completions.create(
            model="chat", messages=[{"role": "user", "content": "chunks:3"}], stream=True
        )
        chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].delta.content for c in chunks[1:-1]] == ["0 ", "1 ", "2 "]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert {c.usage for c in chunks} == {None}
    assert len({c.id for c in chunks}) == 1


async def test_the_usage_of_a_stream_comes_last_if_it_is_asked_for(tmp_path: Path) -> None:
    async with served(ECHO, tmp_path) as (service, _):
        options = {"include_usage": True}
        response = await post(
            service, CHAT, model="chat", messages=HELLO, stream=True, stream_options=options
        )
    *chunks, last = events(response.text)
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 4


async def test_fields_that_change_nothing_are_accepted(tmp_path: Path) -> None:
    harmless = {
        "user": "me",
        "metadata": {"a": "b"},
        "store": False,
        "parallel_tool_calls": True,
        "modalities": ["text"],
        "service_tier": "auto",
        "logit_bias": {},
        "n": 1,
        "logprobs": False,
        "tools": None,
        "stop": [],
    }
    async with served(ECHO, tmp_path) as (service, _):
        response = await post(service, CHAT, model="chat", messages=HELLO, **harmless)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("temprature", 1, "did you mean `temperature`?"),
        ("store", True, "not kept"),
        ("parallel_tool_calls", False, "the model decides"),
        ("modalities", ["audio"], "text"),
        ("logit_bias", {"1": 5}, "in every model"),
        ("functions", [], "`tools`"),
        ("reasoning_effort", "low", "cannot be steered"),
        ("top_logprobs", 2, "needs `logprobs: true`"),
        ("stream_options", {"include_usage": True}, "needs `stream: true`"),
        ("stream_options", {"includeusage": True}, "unknown field `includeusage`"),
        ("tool_choice", "required", "needs `tools`"),
        ("tools", [{"type": "web_search"}], "`web_search`"),
        ("tools", [{"type": "function", "function": {}}], "tools[0].function.name"),
        ("messages", [], "length >= 1"),
        ("messages", ["hello"], "messages[0]"),
        ("messages", [{"role": "king", "content": "a"}], "messages[0].role"),
        ("messages", [{"role": "user", "content": "a", "mood": 1}], "mood"),
        ("temperature", "hot", "temperature"),
        ("temperature", 9, "temperature"),
        ("max_tokens", 0, "max_tokens"),
        ("n", 65, "`n`"),
        ("seed", -1, "seed"),
        ("top_k", -1, "top_k"),
        ("response_format", {"type": "yaml"}, "response_format"),
        ("response_format", {"type": "json_schema"}, "json_schema"),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_its_name(
    field: str, value: Any, says: str, tmp_path: Path
) -> None:
    async with served(ECHO, tmp_path) as (service, _):
        error = await refused(service, CHAT, **{"model": "chat", "messages": HELLO, field: value})
    assert says in error["message"]
    assert field in error["param"] or error["param"] in error["message"]


async def test_a_field_given_under_both_of_its_names_is_refused(tmp_path: Path) -> None:
    both = {"max_tokens": 5, "max_completion_tokens": 5}
    async with served(ECHO, tmp_path) as (service, _):
        error = await refused(service, CHAT, model="chat", messages=HELLO, **both)
    assert error["message"].startswith("`max_completion_tokens` and `max_tokens` say the same")


async def test_images_in_a_conversation_are_refused_where_they_stand(tmp_path: Path) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}
    content = [{"type": "text", "text": "what is this?"}, image]
    async with served(ECHO, tmp_path) as (service, _):
        error = await refused(service, CHAT, model="chat", messages=[{"role": "user", "content": content}])
    assert error["param"] == "messages[0].content[1]"
    assert "an image" in error["message"]


async def test_parts_of_text_are_one_text(tmp_path: Path) -> None:
    content = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    async with served(ECHO, tmp_path) as (service, _):
        response = await post(service, CHAT, model="chat", messages=[{"role": "user", "content": content}])
    assert response.json()["choices"][0]["message"]["content"] == "a b"


async def test_an_answer_can_be_sent_back_as_it_came(tmp_path: Path) -> None:
    async with served(ECHO, tmp_path) as (_, client):
        first = await client.chat.completions.create(model="chat", messages=HELLO)
        messages: Any = [*HELLO, first.choices[0].message, {"role": "user", "content": "and now?"}]
        second = await client.chat.completions.create(model="chat", messages=messages)
    assert second.choices[0].message.content == "and now?"


async def test_a_constant_of_the_file_is_the_default_and_its_templates_do_not_count(tmp_path: Path) -> None:
    text = """
controller: {port: 0}
component:
  id: chat
  type: model
  task: chat-completion
  driver: echo
  runtime: embedded
  max_output_length: 7
  messages:
    - {role: system, content: Be brief.}
    - {role: user, content: "Say it: ${input.what}"}
  output: {said: "${result}"}
"""
    async with served(text, tmp_path) as (service, client):
        answer = await client.chat.completions.create(model="chat", messages=HELLO)
        declared = service.app.project.components["chat"].direct
    assert answer.choices[0].message.content == "hello you"
    assert declared is not None
    assert declared.values["max_output_length"].default == 7


async def test_an_error_of_the_engine_is_500(tmp_path: Path) -> None:
    async with served(ECHO, tmp_path) as (_, client):
        with pytest.raises(openai.InternalServerError) as raised:
            await client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "fail"}])
    assert raised.value.code == "engine_error"


async def test_an_error_before_the_first_word_has_its_status_in_a_stream_too(tmp_path: Path) -> None:
    async with served(ECHO, tmp_path) as (_, client):
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(
                model="chat", messages=[{"role": "user", "content": "fail"}], stream=True
            )


async def test_an_error_after_the_first_word_is_the_last_event(tmp_path: Path) -> None:
    async with served(ECHO, tmp_path) as (_, client):
        stream = await client.chat.completions.create(
            model="chat", messages=[{"role": "user", "content": "chunks:2 fail"}], stream=True
        )
        said = [(await anext(stream)).choices[0].delta.content for _ in range(3)]
        with pytest.raises(openai.APIError, match="the engine is not in the mood"):
            await anext(stream)
    assert said == ["", "0 ", "1 "]


async def test_a_client_that_leaves_a_stream_ends_the_work(tmp_path: Path) -> None:
    content = f"chunks:2 wait:{tmp_path}/never"
    async with served(ECHO, tmp_path) as (service, client):
        stream = await client.chat.completions.create(
            model="chat", messages=[{"role": "user", "content": content}], stream=True
        )
        await anext(stream)
        await stream.close()
        await service.eventually(lambda: not service.app.component("chat").status().active, "it has ended")
        task_id = stream.response.headers["x-task-id"]
        task = (await service.client.get(f"/api/tasks/{task_id}")).json()
    assert task["status"] == "cancelled"


async def test_a_client_that_leaves_before_the_answer_ends_the_work(tmp_path: Path) -> None:
    content = f"touch:{tmp_path}/begun wait:{tmp_path}/never"
    async with served(ECHO, tmp_path) as (service, client):
        with pytest.raises(openai.APITimeoutError):
            await client.with_options(timeout=0.5).chat.completions.create(
                model="chat", messages=[{"role": "user", "content": content}]
            )
        await service.eventually(lambda: not service.app.component("chat").status().active, "it has ended")


async def test_a_run_that_somebody_cancels_says_so_and_is_not_tried_again(tmp_path: Path) -> None:
    content = f"chunks:1 wait:{tmp_path}/never"
    async with served(ECHO, tmp_path) as (service, client):
        stream = await client.chat.completions.create(
            model="chat", messages=[{"role": "user", "content": content}], stream=True
        )
        await anext(stream)
        task_id = stream.response.headers["x-task-id"]
        await service.client.post(f"/api/tasks/{task_id}/cancel")
        await anext(stream)
        with pytest.raises(openai.APIError, match="cancelled by request"):
            await anext(stream)


async def test_a_full_queue_says_when_to_try_again(tmp_path: Path) -> None:
    text = """
controller: {port: 0}
component:
  {id: chat, type: model, task: chat-completion, driver: echo, runtime: embedded, max_queue: 1, batch_size: 1}
"""
    async with served(text, tmp_path) as (service, client):
        content = f"chunks:1 wait:{tmp_path}/go"
        busy = await client.chat.completions.create(
            model="chat", messages=[{"role": "user", "content": content}], stream=True
        )
        waiting = [
            service.client.build_request("POST", f"/v1/{CHAT}", json={"model": "chat", "messages": HELLO})
        ]
        import asyncio

        queued = asyncio.create_task(service.client.send(waiting[0]))
        await service.eventually(lambda: service.app.component("chat").status().waiting, "one waits")
        with pytest.raises(openai.RateLimitError) as raised:
            await client.chat.completions.create(model="chat", messages=HELLO)
        (tmp_path / "go").touch()
        assert (await queued).status_code == 200
        async for _ in busy:
            pass
    assert raised.value.code == "rate_limit_exceeded"
    assert int(raised.value.response.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"{}", "application/json", 400),
        (b"{}", "text/plain", 400),
        (b"\xff", "application/json", 400),
        (b'{"model":"chat","messages":' + b"[" * 500 + b"]" * 500 + b"}", "application/json", 400),
        (b'{"x":"' + b"x" * (33 << 20) + b'"}', "application/json", 413),
    ],
)
async def test_bodies_that_cannot_be_read_are_refused_in_the_envelope(
    body: bytes, kind: str, status: int, tmp_path: Path
) -> None:
    async with served(ECHO, tmp_path) as (service, _):
        response = await service.client.post(f"/v1/{CHAT}", content=body, headers={"content-type": kind})
    assert response.status_code == status
    assert response.json()["error"]["message"]
