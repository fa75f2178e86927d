"""Endpoints of tasks: what they take, what they answer, and what they refuse."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx2
import pytest
from msgspec.structs import replace
from tests import models
from tests.api.serving import Service, parse_events, serving
from tests.api.test_files import FLIP
from tests.compose.apps import project_of

from model_compose.api.schemas import EXAMPLE_IMAGE
from model_compose.api.typed.endpoints import TAKEN, typed_tasks
from model_compose.compose.app import App
from model_compose.compose.catalog import BuiltIn
from model_compose.config.spec import TaskSpec
from model_compose.sources.progress import Silent

#: Models that answer with the question, one whose vectors tell the length of a text, one that gives a file as
#: it came, and one that turns pictures upside down.
FILE = """
controller: {port: 0}
components:
  - {id: chat, type: model, task: chat-completion, driver: echo, runtime: embedded, aliases: [gpt]}
  - {id: one, type: model, task: text-generation, driver: echo, runtime: embedded}
  - {id: two, type: model, task: text-generation, driver: echo, runtime: embedded}
  - {id: vectors, type: model, task: text-embedding, driver: echo, runtime: embedded}
  - id: flip
    type: model
    task: image-upscale
    implementation: ./flip.py:Flip
    runtime: embedded
workflow: {job: {component: chat}}
"""
PICTURE = base64.b64decode(EXAMPLE_IMAGE.partition(",")[2])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "flip.py").write_text(FLIP)
    return tmp_path


async def post(service: Service, word: str, *, accept: str = "*/*", **body: Any) -> httpx2.Response:
    return await service.client.post(f"/api/{word}", json=body, headers={"accept": accept})


async def refused(service: Service, word: str, **body: Any) -> dict[str, Any]:
    response = await post(service, word, **body)
    assert response.status_code == 422, response.text
    error: dict[str, Any] = response.json()
    return error


async def test_only_tasks_of_the_file_have_an_endpoint(folder: Path) -> None:
    async with serving(FILE, folder) as service:
        there = await post(service, "embed", text="four")
        missing = await post(service, "classify", text="four")
        by_get = await service.client.get("/api/embed")
    assert there.status_code == 200
    assert missing.status_code == 404
    assert (by_get.status_code, by_get.headers["allow"]) == (405, "POST")


async def test_a_result_has_all_that_is_known_and_a_list_gives_a_list(folder: Path) -> None:
    async with serving(FILE, folder) as service:
        one = (await post(service, "embed", text="four")).json()
        several = (await post(service, "embed", text=["four", "three"])).json()
        said = (await post(service, "chat", messages="hello you")).json()
    assert one == {"embedding": [4.0, 1.0, 2.0], "truncated": False}
    assert [each["embedding"][0] for each in several] == [4.0, 5.0]
    usage = {"prompt_tokens": 2, "completion_tokens": 2, "cached_tokens": 0}
    assert said == {"text": "hello you", "finish_reason": "stop", "usage": usage, "reasoning": ""}


async def test_a_model_is_named_where_several_do_the_task(folder: Path) -> None:
    async with serving(FILE, folder) as service:
        named = await post(service, "generate", prompt="hello", model="two")
        alias = await post(service, "chat", messages="hello", model="gpt")
        nobody = await refused(service, "generate", prompt="hello")
        unknown = await refused(service, "generate", prompt="hello", model="tow")
        other = await refused(service, "generate", prompt="hello", model="gpt")
    assert named.json()["text"] == alias.json()["text"] == "hello"
    assert (nobody["field"], nobody["hint"]) == ("model", "`one` or `two`")
    assert (unknown["field"], unknown["hint"]) == ("model", "did you mean `two`? valid: `one`, `two`")
    assert (other["field"], other["hint"]) == ("model", "ask `/chat`")


@pytest.mark.parametrize(
    ("word", "body", "field"),
    [
        ("embed", {}, "text"),
        ("embed", {"text": None}, "text"),
        ("embed", {"text": 5}, "text"),
        ("embed", {"text": ["a", 5]}, "text"),
        ("embed", {"text": "a", "normalise": True}, "normalise"),
        ("embed", {"text": "a", "normalize": "yes"}, "normalize"),
        ("embed", {"text": "a", "stream": "yes"}, "stream"),
        ("embed", {"text": "a", "model": 5}, "model"),
        ("chat", {"messages": "a", "temperature": 7}, "temperature"),
        ("chat", {"messages": [{"role": "robot", "content": "a"}]}, "messages[0].role"),
        ("chat", {"messages": [{"role": "tool", "content": None, "tool_calls": [{}]}]}, "messages"),
        ("chat", {"messages": "a", "adapters": {"x": "much"}}, "adapters.x"),
        ("upscale", {"image": "no image!"}, "image"),
        ("upscale", {"image": "http://127.0.0.1/a.png"}, "image"),
    ],
)
async def test_what_is_wrong_is_told_by_its_field(
    folder: Path, word: str, body: dict[str, Any], field: str
) -> None:
    async with serving(FILE, folder) as service:
        error = await refused(service, word, **body)
        assert not service.app._runs
    assert error["type"] == "invalid_input"
    assert error["field"].startswith(field.partition("[")[0].partition(".")[0])


@pytest.mark.parametrize("body", [b"[]", b"3", b'"text"', b"null", b"{", b"", b"[" * 500 + b"]" * 500])
async def test_a_body_that_is_no_object_is_refused(folder: Path, body: bytes) -> None:
    async with serving(FILE, folder) as service:
        headers = {"content-type": "application/json"}
        response = await service.client.post("/api/embed", content=body, headers=headers)
    assert (response.status_code, response.json()["type"]) == (400, "bad_request")


async def test_values_of_the_file_hold_where_a_request_has_none(folder: Path) -> None:
    more = "runtime: embedded\n    output_format: webp\n    output: {file: '${result.image}'}\nworkflow"
    async with serving(FILE.replace("runtime: embedded\nworkflow", more), folder) as service:
        usual = (await post(service, "upscale", image=EXAMPLE_IMAGE)).json()
        own = (await post(service, "upscale", image=EXAMPLE_IMAGE, output_format="png")).json()
    assert usual["image"].startswith("data:image/webp")  # the action's `output` is for workflows
    assert own["image"].startswith("data:image/png")


@pytest.mark.parametrize("accept", ["text/event-stream", "*/*"])
async def test_a_text_comes_as_events(folder: Path, accept: str) -> None:
    body = {} if "event" in accept else {"stream": True}
    async with serving(FILE, folder) as service:
        response = await post(service, "chat", accept=accept, messages="chunks:3", **body)
    *pieces, end = parse_events(response.text)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert pieces == [("message", "0 "), ("message", "1 "), ("message", "2 ")]
    assert (end[0], end[1]["status"], end[1]["finish_reason"]) == ("end", "completed", "stop")
    assert end[1]["task_id"] == response.headers["x-task-id"]


async def test_what_is_no_text_is_an_event_of_its_own(folder: Path) -> None:
    async with serving(FILE, folder) as service:
        response = await post(service, "chat", messages="call:look", stream=True)
    names = [name for name, _ in parse_events(response.text)]
    assert names == ["message", "more", "more", "end"]


async def test_a_result_that_is_no_stream_is_one_event(folder: Path) -> None:
    async with serving(FILE, folder) as service:
        response = await post(service, "embed", text="four", stream=True)
    (name, vector), (last, _) = parse_events(response.text)
    assert (name, last) == ("message", "end")
    assert vector == '{"embedding":[4.0,1.0,2.0],"truncated":false}'


async def test_a_failure_before_the_first_piece_has_its_status(folder: Path) -> None:
    async with serving(FILE, folder) as service:
        response = await post(service, "chat", messages="fail", stream=True)
        assert not service.app._runs
    assert (response.status_code, response.json()["type"]) == (500, "engine_error")


async def test_a_client_that_leaves_ends_the_work(folder: Path) -> None:
    async with serving(FILE, folder) as service:
        body = {"messages": f"touch:{folder}/begun wait:{folder}/never"}
        with pytest.raises(httpx2.ReadTimeout):
            await service.client.post("/api/chat", json=body, timeout=1)
        await service.eventually(lambda: not service.app._runs, "the run has ended")
        assert (folder / "begun").exists()
        assert (await post(service, "chat", messages="still there")).status_code == 200


# Images


@pytest.mark.parametrize("given", [EXAMPLE_IMAGE, EXAMPLE_IMAGE.partition(",")[2]])
async def test_an_image_in_json_gives_one_in_json(folder: Path, given: str) -> None:
    async with serving(FILE, folder) as service:
        answer = (await post(service, "upscale", image=given)).json()
        several = (await post(service, "upscale", image=[given, given])).json()
    assert answer.keys() == {"image", "width", "height"}
    assert answer["image"].startswith("data:image/png;base64,")
    assert several == [answer, answer]


async def test_an_upload_gives_the_image_itself_where_that_is_asked_for(folder: Path) -> None:
    files = {"image": ("a.png", PICTURE, "image/png")}
    async with serving(FILE, folder) as service:
        form = {"output_format": "jpeg", "output_quality": "50", "model": "flip"}
        headers = {"accept": "image/*"}
        image = await service.client.post("/api/upscale", files=files, data=form, headers=headers)
        as_json = await service.client.post("/api/upscale", files=files, data=form)
        wrong = await service.client.post("/api/upscale", files=files, data={"output_quality": "many"})
        strange = await service.client.post("/api/upscale", files=files, data={"output_qualty": "5"})
    assert image.headers["content-type"] == "image/jpeg"
    assert image.content.startswith(b"\xff\xd8\xff")
    assert as_json.json()["width"] == 32
    assert (wrong.status_code, wrong.json()["field"]) == (422, "output_quality")
    assert (strange.status_code, strange.json()["field"]) == (422, "output_qualty")


async def test_several_images_are_a_list_whatever_is_asked_for(folder: Path) -> None:
    async with serving(FILE, folder) as service:
        files = [("image", ("a.png", PICTURE, "image/png")), ("image", ("b.png", PICTURE, "image/png"))]
        answer = await service.client.post("/api/upscale", files=files, headers={"accept": "image/png"})
    assert len(answer.json()) == 2


async def test_texts_of_a_form_are_what_the_fields_want(folder: Path) -> None:
    async with serving(FILE, folder) as service:
        vector = await service.client.post("/api/embed", data={"text": "four", "normalize": "true"})
        stream = await service.client.post("/api/chat", data={"messages": "a", "stream": "true"})
    assert vector.json()["embedding"][0] == 4.0
    assert parse_events(stream.text)[0] == ("message", "a")


# Adapters


@pytest.mark.process
@pytest.mark.model
async def test_an_adapter_is_named_with_its_component(tmp_path: Path) -> None:
    file = f"""
controller: {{port: 0}}
component:
  id: latin
  type: model
  task: chat-completion
  model: {models.tiny_chat()}
  peft_adapters:
    - {{name: arr, model: {models.tiny_lora("arr")}}}
    - {{name: ahoy, model: {models.tiny_lora("ahoy")}}}
"""
    async with serving(file, tmp_path) as service:
        body: dict[str, Any] = {"messages": "Salve", "max_output_length": 8, "temperature": 0}
        arr = (await post(service, "chat", model="latin:arr", **body)).json()
        ahoy = (await post(service, "chat", model="latin:ahoy", **body)).json()
        both = await refused(service, "chat", model="latin:arr", adapters={"ahoy": 1}, **body)
    assert "arr" in arr["text"]
    assert "ahoy" in ahoy["text"]
    assert both["field"] == "adapters"


def test_every_task_has_a_word_of_its_own() -> None:
    catalog = BuiltIn()
    words = [spec.verb for name in catalog.tasks() if (spec := catalog.task(name)) is not None]
    assert len(set(words)) == len(words)
    assert TAKEN.isdisjoint(words)


async def test_a_task_without_a_word_or_with_one_that_is_taken_is_called_by_its_name(folder: Path) -> None:
    app = App(project_of(FILE, folder), _Other(), progress=lambda _: Silent())
    assert [typed.word for typed in typed_tasks(app)] == [
        *("chat-completion", "text-generation", "embed", "upscale")
    ]


class _Other(BuiltIn):
    """A catalog with a task that has no word, and with two that want one that is taken."""

    def task(self, name: str) -> TaskSpec | None:
        spec = super().task(name)
        words = {"chat-completion": None, "text-generation": "workflows"}
        return spec if spec is None or name not in words else replace(spec, verb=words[name])
