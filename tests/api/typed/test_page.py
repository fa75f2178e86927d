"""Endpoints of tasks on the API page: schemas from the file, and examples that run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from tests import models, tiny_diffusion, tiny_vision
from tests.api.serving import Service, serving
from tests.api.test_files import FLIP
from tests.api.typed.test_endpoints import FILE

JSON = "application/json"


async def document(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = (await service.client.get("/openapi.json")).json()
    return found


def typed_paths(found: dict[str, Any], *words: str) -> dict[str, Any]:
    return {word: found["paths"][f"/api/{word}"]["post"] for word in words}


def examples(operation: dict[str, Any]) -> Iterator[Any]:
    for example in operation["requestBody"]["content"][JSON]["examples"].values():
        yield example["value"]


async def assert_examples_run(service: Service, *words: str) -> dict[str, Any]:
    """Every example of these endpoints is as its schema says, and so is its answer; -> the last answers."""
    answers = {}
    for word, operation in typed_paths(await document(service), *words).items():
        taken = operation["requestBody"]["content"][JSON]["schema"]
        given = operation["responses"]["200"]["content"][JSON]["schema"]
        for example in examples(operation):
            Draft202012Validator(taken).validate(example)
            response = await service.client.post(f"/api/{word}", json=example, timeout=100)
            assert response.status_code == 200, (word, response.text)
            Draft202012Validator(given).validate(response.json())
            answers[word] = response.json()
    return answers


async def test_every_example_runs(tmp_path: Path) -> None:
    (tmp_path / "flip.py").write_text(FLIP)
    async with serving(FILE, tmp_path) as service:
        answers = await assert_examples_run(service, "chat", "generate", "embed", "upscale")
        operations = typed_paths(await document(service), "generate")
    assert answers["chat"]["text"] == "Why is the sky blue?"
    assert len(answers["embed"]) == 2
    assert [each["model"] for each in examples(operations["generate"])] == ["one", "two"]


@pytest.mark.process
@pytest.mark.model
async def test_every_example_runs_on_real_models(tmp_path: Path) -> None:
    file = f"""
controller: {{port: 0}}
components:
  - {{id: chat, type: model, task: chat-completion, model: {models.tiny_chat()}}}
  - {{id: text, type: model, task: text-generation, model: {models.tiny_chat()}}}
  - {{id: vectors, type: model, task: text-embedding, driver: custom, model: {models.minilm_onnx()}}}
  - {{id: language, type: model, task: text-classification, model: {models.langid()}}}
  - {{id: people, type: model, task: face-embedding, architecture: yunet-sface,
      model: {models.yunet_sface()}}}
  - {{id: larger, type: model, task: image-upscale, architecture: real-esrgan,
      model: {models.animevideov3()}}}
  - {{id: words, type: model, task: image-to-text, model: {tiny_vision.captioner("git", tmp_path / "git")}}}
  - {{id: painter, type: model, task: image-generation, architecture: sdxl,
      model: {tiny_diffusion.sdxl(tmp_path / "sdxl")}}}
"""
    words = ("chat", "generate", "embed", "classify", "faces", "upscale", "caption", "generate-image")
    async with serving(file, tmp_path) as service:
        answers = await assert_examples_run(service, *words)
    assert answers["upscale"]["width"] == 4 * 32
    assert answers["faces"]["faces"] == []
    assert {len(each["probabilities"]) for each in answers["classify"]} == {12}


async def test_schemas_have_descriptions_defaults_and_limits_and_what_the_file_says(tmp_path: Path) -> None:
    (tmp_path / "flip.py").write_text(FLIP)
    file = FILE.replace("aliases: [gpt]", "aliases: [gpt], max_output_length: 20")
    async with serving(file, tmp_path) as service:
        found = await document(service)
    operations = typed_paths(found, "chat", "generate", "upscale")
    chat = operations["chat"]["requestBody"]["content"][JSON]["schema"]
    assert chat["properties"]["model"]["anyOf"] == [{"enum": ["chat", "gpt"]}, {"type": "null"}]
    assert chat["required"] == ["messages"]
    assert chat["additionalProperties"] is False
    length = chat["properties"]["max_output_length"]
    assert (length["type"], length["default"], length["minimum"]) == (["integer", "null"], 20, 1)
    assert length["description"].startswith("most new tokens")
    assert "The file says `max_output_length` for `chat`" in operations["chat"]["description"]
    several = operations["generate"]["requestBody"]["content"][JSON]["schema"]["oneOf"]
    assert [each["properties"]["model"]["enum"] for each in several] == [["one"], ["two"]]
    assert all("model" in each["required"] for each in several)
    form = operations["upscale"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["image"]["format"] == "binary"
    assert set(operations["upscale"]["responses"]["200"]["content"]) == {JSON, "image/*", "text/event-stream"}
