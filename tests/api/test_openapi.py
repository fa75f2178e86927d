"""The API page, whose schemas come from the workflows."""

from __future__ import annotations

from pathlib import Path

from tests.api.serving import serving
from tests.api.test_service import TWO


async def test_the_input_of_each_workflow_is_in_the_document(tmp_path: Path) -> None:
    async with serving(TWO, tmp_path) as service:
        document = (await service.client.get("/openapi.json")).json()
    body = document["paths"]["/v2/workflows/runs"]["post"]["requestBody"]["content"]["application/json"][
        "schema"
    ]
    assert [one["properties"]["workflow_id"] for one in body["oneOf"]] == [
        {"const": "say"},
        {"const": "whisper"},
    ]
    say = document["components"]["schemas"]["Input-say"]
    assert say["required"] == ["what"]
    assert say["properties"]["what"] == {"type": "string", "description": "what to say"}
    assert say["additionalProperties"] is False


async def test_the_input_of_a_component_alone_names_its_parameters_and_what_is_enough(tmp_path: Path) -> None:
    async with serving(TWO, tmp_path) as service:
        schemas = (await service.client.get("/openapi.json")).json()["components"]["schemas"]
    whole, short = schemas["Input-whisper"]["anyOf"]
    assert whole["anyOf"] == [{"required": ["prompt"]}, {"required": ["text"]}]
    assert whole["properties"]["temperature"]["maximum"] == 5
    assert short["type"] == "string"


async def test_each_workflow_has_an_example_that_works(tmp_path: Path) -> None:
    async with serving(TWO, tmp_path) as service:
        document = (await service.client.get("/openapi.json")).json()
        content = document["paths"]["/v2/workflows/runs"]["post"]["requestBody"]["content"][
            "application/json"
        ]
        examples = [example["value"] for example in content["examples"].values()]
        answers = [await service.client.post("/v2/workflows/runs", json=each) for each in examples]
    assert [example["workflow_id"] for example in examples] == ["say", "whisper"]
    assert [answer.json()["status"] for answer in answers] == ["completed", "completed"]


async def test_every_documented_path_exists(tmp_path: Path) -> None:
    async with serving(TWO, tmp_path) as service:
        document = (await service.client.get("/openapi.json")).json()
        answers = {}
        for path, operations in document["paths"].items():
            for method in operations:
                url = path.replace("{workflow_id}", "say").replace("{task_id}", "none")
                answers[method, path] = (await service.client.request(method, url)).status_code
    assert not {key for key, status in answers.items() if status in (405, 500)}
    assert {key for key, status in answers.items() if status == 404} == {
        (method, path) for method, path in answers if "{task_id}" in path
    }


async def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    async with serving(TWO, tmp_path) as service:
        page = (await service.client.get("/docs")).text
        files = [
            await service.client.get(f"/docs/{name}") for name in ("swagger-ui-bundle.js", "swagger-ui.css")
        ]
    assert "http://" not in page
    assert "https://" not in page
    assert [file.status_code for file in files] == [200, 200]
