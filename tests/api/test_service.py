"""What the service says of itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.api.serving import ADMIN, ECHO, IN_A_WORKER, serving

IN_WORKERS = """
controller: {port: 0, base_path: /v2}
components:
  - {id: eager, type: model, task: text-generation, driver: echo}
  - {id: lazy, type: model, task: text-generation, driver: echo, preload: false}
workflows:
  - id: say
    title: Say it
    default: true
    component: eager
    input:
      prompt: ${input.what as text @(description what to say)}
  - {id: whisper, component: lazy}
"""
TWO = IN_WORKERS.replace("driver: echo", "driver: echo, runtime: embedded")


async def test_workflows_are_listed_under_the_base_path(tmp_path: Path) -> None:
    async with serving(TWO, tmp_path) as service:
        listed = (await service.client.get("/v2/workflows")).json()
        full = (await service.client.get("/v2/workflows", params={"include_schema": "true"})).json()
        elsewhere = await service.client.get("/api/workflows")
    assert listed == [{"workflow_id": "say", "title": "Say it", "default": True}, {"workflow_id": "whisper"}]
    assert full[0]["input"][0]["name"] == "what"
    assert elsewhere.status_code == 404


async def test_a_schema_comes_from_the_references_of_the_file(tmp_path: Path) -> None:
    async with serving(TWO, tmp_path) as service:
        schema = (await service.client.get("/v2/workflows/say/schema")).json()
        unknown = await service.client.get("/v2/workflows/sya/schema")
    (field,) = schema["input"]
    assert (field["name"], field["type"], field["required"]) == ("what", "text", True)
    assert field["description"] == "what to say"
    assert unknown.status_code == 404
    assert unknown.json()["detail"] == "Workflow not found."
    assert "did you mean `say`?" in unknown.json()["hint"]


async def test_an_input_that_is_missing_is_named_as_the_file_names_it(tmp_path: Path) -> None:
    async with serving(TWO, tmp_path) as service:
        response = await service.client.post("/v2/workflows/runs", json={"input": {}})
    assert response.status_code == 422
    assert response.json()["detail"] == "`what` is missing in the input"


async def test_readiness_has_a_line_for_each_component_and_counts_a_lazy_one_as_ready(tmp_path: Path) -> None:
    async with serving(TWO, tmp_path) as service:
        ready = await service.client.get("/readyz")
        live = await service.client.get("/livez")
        health = await service.client.get("/v2/health")
    assert ready.status_code == live.status_code == 200
    assert ready.text.splitlines() == ["ok eager: ready", "ok lazy: unloaded", "ready"]
    assert health.json() == {"status": "ok"}


@pytest.mark.process
async def test_it_is_not_ready_while_a_model_loads(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    text = IN_WORKERS.replace("id: lazy", f"id: lazy, options: {{load_waits_for: {gate}}}")
    async with serving(text, tmp_path) as service:
        waiting = asyncio.create_task(
            service.client.post("/v2/workflows/runs", json={"workflow_id": "whisper", "input": "psst"})
        )
        await service.eventually(lambda: service.app.pool.state("lazy") == "loading", "it loads")
        await service.eventually(lambda: service.app.status()[1].loading, "it says how far it is")
        during = await service.client.get("/readyz")
        shown = (await service.client.get("/v2/components")).json()
        other = await service.client.post("/v2/workflows/runs", json={"input": {"what": "hello"}})
        gate.touch()
        answer = await waiting
    assert during.status_code == 503
    assert "not ready lazy: loading weights 40%" in during.text
    assert shown[1]["state"] == "loading"
    assert shown[1]["loading"] == {"stage": "weights", "done": 2, "total": 5}
    assert shown[0]["loading"] is None
    assert other.json()["output"] == "hello"
    assert answer.json()["output"] == "psst"


async def test_while_it_stops_it_is_not_ready_and_takes_no_runs(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service:
        service.app.draining = True
        answers = [
            await service.client.get("/readyz"),
            await service.client.get("/api/health"),
            await service.run("x"),
        ]
    assert [answer.status_code for answer in answers] == [503, 503, 503]


async def test_metrics_have_vllms_names_and_count_what_happened(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service:
        await service.run("two words")
        await service.events("chunks:3")
        await service.run("fail")
        text = (await service.client.get("/metrics")).text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines['vllm:prompt_tokens_total{model_name="echo"}'] == "3.0"
    assert lines['vllm:generation_tokens_total{model_name="echo"}'] == "5.0"
    assert lines['vllm:request_success_total{finished_reason="stop",model_name="echo"}'] == "2.0"
    assert lines['vllm:num_requests_running{model_name="echo"}'] == "0.0"
    assert lines['vllm:time_to_first_token_seconds_count{model_name="echo"}'] == "1.0"
    assert lines['model_compose_model_state{model_name="echo",state="ready"}'] == "1.0"
    assert lines['model_compose_request_errors_total{model_name="echo",type="engine_error"}'] == "1.0"
    assert lines['model_compose_runs_total{status="completed",workflow="__workflow__"}'] == "2.0"
    assert float(lines["process_resident_memory_bytes"]) > 0


@pytest.mark.process
async def test_components_are_shown_with_their_state(tmp_path: Path) -> None:
    async with serving(IN_WORKERS, tmp_path) as service:
        eager, lazy = (await service.client.get("/v2/components")).json()
    assert (eager["name"], eager["state"], lazy["state"]) == ("eager", "ready", "unloaded")
    assert eager["memory"]["host"] > 0
    assert eager["pid"] > 0


@pytest.mark.process
async def test_a_component_is_stopped_and_restarted_by_whoever_has_the_token(tmp_path: Path) -> None:
    headers = {"Authorization": f"Bearer {ADMIN}"}
    async with serving(IN_A_WORKER, tmp_path) as service:
        client, pool = service.client, service.app.pool
        before = pool.status()[0].pid
        stopped = await client.post("/api/components/echo/stop", headers=headers)
        await service.eventually(lambda: pool.state("echo") == "unloaded", "it stops")
        refused = await service.run("hello")
        await client.post("/api/components/echo/restart", headers=headers)
        await service.eventually(lambda: pool.state("echo") == "ready", "it is back")
        after = pool.status()[0].pid
        answer = await service.run("hello")
        unknown = await client.post("/api/components/ehco/stop", headers=headers)
    assert stopped.status_code == 202
    assert refused.status_code == 503
    assert refused.json()["detail"] == "`echo` is stopped"
    assert answer.json()["output"] == "hello"
    assert before != after
    assert unknown.status_code == 404


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": ADMIN}])
async def test_without_the_token_nobody_stops_anything(tmp_path: Path, headers: dict[str, str]) -> None:
    async with serving(ECHO, tmp_path) as service:
        response = await service.client.post("/api/components/echo/stop", headers=headers)
        assert service.app.pool.state("echo") == "ready"
    assert response.status_code == 403


async def test_unknown_routes_and_methods_are_told_in_json(tmp_path: Path) -> None:
    async with serving(ECHO, tmp_path) as service:
        nowhere = await service.client.get("/nowhere")
        method = await service.client.get("/api/workflows/runs")
    assert (nowhere.status_code, nowhere.json()["type"]) == (404, "not_found")
    assert method.status_code == 405
