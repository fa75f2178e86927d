from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest
from tests.api.openai.clients import ECHO, post, refused, served
from tests.compose.apps import project_of

from model_compose.errors import ConfigErrors

HELLO: Any = [{"role": "user", "content": "hello you"}]

WORKFLOWS = """
controller: {port: 0}
components:
  - {id: chat, type: model, task: chat-completion, driver: echo, runtime: embedded}
  - {id: text, type: model, task: text-generation, driver: echo, runtime: embedded}
workflows:
  - id: polite
    job: {component: chat, input: {messages: "${input.messages}", temperature: "${input.temperature}"}}
  - id: about
    jobs:
      - id: ask
        component: text
        input: {prompt: "Tell me about ${input.prompt} in ${input.language | English}"}
  - id: wrapped
    job: {component: text, input: {prompt: "${input.prompt}"}, output: {said: "${output}"}}
  - id: other
    job: {component: text, input: {prompt: "${input.topic}"}}
"""


async def test_everything_that_can_be_called_is_listed(tmp_path: Path) -> None:
    async with served(ECHO, tmp_path) as (_, client):
        listed = {model.id: model.model_dump() async for model in client.models.list()}
        one = await client.models.retrieve("gpt-4o-mini")
    assert list(listed) == ["chat", "gpt-4o-mini", "text", "vectors"]
    assert listed["chat"]["object"] == "model"
    assert listed["chat"]["task"] == "chat-completion"
    assert listed["gpt-4o-mini"]["root"] == "chat"
    assert one.id == "gpt-4o-mini"


async def test_a_component_without_an_id_is_listed_under_the_one_it_has(tmp_path: Path) -> None:
    model = "{type: model, task: chat-completion, driver: echo, runtime: embedded}"
    text = f"controller: {{port: 0}}\ncomponent: {model}"
    async with served(text, tmp_path) as (_, client):
        listed = [model.id async for model in client.models.list()]
        answers = [
            await client.chat.completions.create(model=name, messages=HELLO)
            for name in ("__component__", "__workflow__")
        ]
    assert listed == ["__component__"]
    assert [answer.choices[0].message.content for answer in answers] == ["hello you"] * 2


async def test_an_alias_is_answered_under_its_own_name(tmp_path: Path) -> None:
    async with served(ECHO, tmp_path) as (_, client):
        answer = await client.chat.completions.create(model="gpt-4o-mini", messages=HELLO)
    assert answer.model == "gpt-4o-mini"


async def test_a_model_that_is_not_there_is_404_with_the_code_that_clients_know(tmp_path: Path) -> None:
    async with served(ECHO, tmp_path) as (_, client):
        with pytest.raises(openai.NotFoundError) as raised:
            await client.chat.completions.create(model="chatt", messages=HELLO)
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("a/b")
    assert raised.value.code == "model_not_found"
    assert raised.value.param == "model"
    assert "did you mean `chat`?" in str(raised.value)


async def test_a_model_for_something_else_is_refused_with_where_to_ask(tmp_path: Path) -> None:
    async with served(ECHO, tmp_path) as (service, _):
        chat = await refused(service, "chat/completions", model="text", messages=HELLO)
        text = await refused(service, "completions", model="chat", prompt="a")
        vectors = await refused(service, "embeddings", model="chat", input="a")
    assert "task: chat-completion" in chat["message"]
    assert "/v1/chat/completions" in text["message"]
    assert "/v1/chat/completions" in vectors["message"]
    assert {chat["param"], text["param"], vectors["param"]} == {"model"}


async def test_workflows_that_take_messages_or_a_prompt_are_models(tmp_path: Path) -> None:
    async with served(WORKFLOWS, tmp_path) as (_, client):
        listed = {model.id: model.model_dump() async for model in client.models.list()}
        polite = await client.chat.completions.create(model="polite", messages=HELLO, temperature=0.5)
        about = await client.chat.completions.create(
            model="about", messages=HELLO, extra_body={"language": "Latin"}
        )
        text = await client.completions.create(model="about", prompt="cats")
        wrapped = await client.completions.create(model="wrapped", prompt="cats")
    assert list(listed) == ["chat", "text", "polite", "about", "wrapped"]
    assert listed["about"]["task"] == "workflow"
    assert polite.choices[0].message.content == "hello you"
    assert polite.usage is not None
    assert polite.usage.total_tokens == 4
    assert about.choices[0].message.content == "Tell me about hello you in Latin"
    assert text.choices[0].text == "Tell me about cats in English"
    assert wrapped.choices[0].text == '{"said":"cats"}'


async def test_a_workflow_streams_what_its_last_job_streams(tmp_path: Path) -> None:
    async with served(WORKFLOWS, tmp_path) as (_, client):
        stream = await client.chat.completions.create(
            model="about", messages=[{"role": "user", "content": "chunks:3"}], stream=True
        )
        streamed = [chunk.choices[0].delta.content async for chunk in stream]
        whole = await client.completions.create(model="wrapped", prompt="cats", stream=True)
        texts = [chunk.choices[0].text async for chunk in whole]
    assert streamed == ["", "0 ", "1 ", "2 ", None]
    assert texts == ['{"said":"cats"}', ""]


@pytest.mark.parametrize(
    ("workflow", "more", "says"),
    [
        ("about", {"temperature": 0.5}, "takes no `temperature`"),
        ("about", {"max_tokens": 5}, "takes no `max_tokens`"),
        ("about", {"tools": [{"type": "function", "function": {"name": "a"}}]}, "takes no `tools`"),
        ("about", {"n": 2}, "takes no `n`"),
        ("about", {"langauge": "Latin"}, "did you mean `language`?"),
        ("about", {"messages": [*HELLO, *HELLO]}, "takes one `prompt`"),
        ("other", {}, "no model `other`"),
    ],
)
async def test_what_a_workflow_does_not_take_is_refused(
    workflow: str, more: dict[str, Any], says: str, tmp_path: Path
) -> None:
    async with served(WORKFLOWS, tmp_path) as (service, _):
        response = await post(service, "chat/completions", **{"model": workflow, "messages": HELLO, **more})
    assert response.status_code in (400, 404)
    assert says in response.json()["error"]["message"]


async def test_a_name_of_both_means_the_component_where_it_can_do_it(tmp_path: Path) -> None:
    text = """
controller: {port: 0}
components:
  - {id: a, type: model, task: chat-completion, driver: echo, runtime: embedded}
  - {id: b, type: model, task: text-embedding, driver: echo, runtime: embedded}
workflows:
  - {id: a, job: {component: a, input: {messages: "workflow ${input.prompt}"}}}
  - {id: b, job: {component: a, input: {messages: "workflow ${input.prompt}"}}}
"""
    async with served(text, tmp_path) as (_, client):
        a = await client.chat.completions.create(model="a", messages=HELLO)
        b = await client.chat.completions.create(model="b", messages=HELLO)
        vectors = await client.embeddings.create(model="b", input="abc", encoding_format="float")
    assert a.choices[0].message.content == "hello you"
    assert b.choices[0].message.content == "workflow hello you"
    assert vectors.data[0].embedding[0] == 3


async def test_paths_that_are_not_there_are_told_in_the_envelope(tmp_path: Path) -> None:
    async with served(ECHO, tmp_path) as (service, _):
        unknown = await service.client.post("/v1/chat/completion", json={})
        wrong = await service.client.get("/v1/chat/completions")
    assert unknown.status_code == 404
    assert "did you mean `/v1/chat/completions`?" in unknown.json()["error"]["message"]
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "POST"
    assert wrong.json()["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("aliases", "says"),
    [
        ("[b]", "`b` is the id of a component already"),
        ("[w]", "`w` is the id of a workflow already"),
        ("[x, x]", "`x` is an alias of component `a` already"),
        ("[y]", "`y` is an alias of component `b` already"),
        ("['']", "cannot be an alias"),
        ("[' x']", "cannot be an alias"),
        ("['b:x']", "means an adapter of component `b`"),
    ],
)
def test_an_alias_is_one_models_and_nothing_else(aliases: str, says: str, tmp_path: Path) -> None:
    text = f"""
components:
  - {{id: b, type: model, task: chat-completion, driver: echo, aliases: [y]}}
  - {{id: a, type: model, task: chat-completion, driver: echo, aliases: {aliases}}}
workflows:
  - {{id: w, jobs: [{{id: one, component: a}}, {{id: two, component: b}}]}}
"""
    with pytest.raises(ConfigErrors) as raised:
        project_of(text, tmp_path)
    (error,) = raised.value.errors
    assert says in str(error)
    assert error.place is not None
    assert error.place.line == 4
