"""Is the service as its OpenAPI document says? Schemathesis sends what that allows, and what it does not."""

from __future__ import annotations

import asyncio
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from tests.api.serving import serving
from tests.api.test_files import FLIP

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # those of its own imports
    import schemathesis
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        ignored_auth,
        negative_data_rejection,
        response_headers_conformance,
        response_schema_conformance,
        status_code_conformance,
        unsupported_method,
    )

#: The same, which refuses what is no picture.
FLIP_PICTURES = FLIP.replace(
    "        return Image.open(io.BytesIO(request.image.data))\n",
    "        from model_compose.errors import InvalidInput\n\n"
    "        try:\n"
    "            return Image.open(io.BytesIO(request.image.data))\n"
    "        except OSError:\n"
    "            raise InvalidInput('it is no picture', field='image') from None\n",
)
KEY = "a-key-of-somebody-who-uses"
FILE = """
controller: {port: 0, api_keys: [%s]}
components:
  - {id: chat, type: model, task: chat-completion, driver: echo, runtime: embedded, aliases: [gpt]}
  - {id: one, type: model, task: text-generation, driver: echo, runtime: embedded}
  - {id: two, type: model, task: text-generation, driver: echo, runtime: embedded}
  - {id: vectors, type: model, task: text-embedding, driver: echo, runtime: embedded}
  - {id: flip, type: model, task: image-upscale, implementation: ./flip.py:Flip, runtime: embedded}
workflows:
  - {id: say, default: true, job: {component: one, input: {prompt: "${input.what as text}"}}}
  - {id: talk, job: {component: chat}}
  - id: tell
    jobs:
      - {id: first, component: one, input: {prompt: "${input.a as text} ${input.n as integer | 1}"}}
      - {id: then, component: vectors, input: {text: "${jobs.first.output}"}}
    output: {vector: "${jobs.then.output}", word: "${input.word as select/a,b | a}"}
  - {id: larger, job: {component: flip, input: {image: "${input.image as image}"}}}
"""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    ignored_auth,
    unsupported_method,
]
#: What a run takes is looked at when its workflow uses it: one that nobody waits for fails later.
LATER = "POST /api/workflows/runs"


def hold(document: dict[str, Any], url: str, examples: int) -> Counter[str]:
    """Ask every operation; -> how often each was."""
    asked: Counter[str] = Counter()
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        operation: Any = found.ok()  # type: ignore[union-attr]  # an error has none, and fails the test
        asked[operation.label] += _ask(operation, GenerationMode.POSITIVE, CHECKS, url, examples)
        if operation.label == "GET /livez":
            continue  # it takes nothing that could be wrong
        checks = CHECKS if operation.label == LATER else [*CHECKS, negative_data_rejection]
        asked[operation.label] += _ask(operation, GenerationMode.NEGATIVE, checks, url, examples)
    return asked


def _ask(operation: Any, mode: GenerationMode, checks: list[Any], url: str, examples: int) -> int:
    count = 0

    @seeded(1)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def holds(case: Any) -> None:
        nonlocal count
        count += 1
        headers = {"Authorization": f"Bearer {KEY}"}
        response = case.call(base_url=url, headers=headers, timeout=20)
        case.validate_response(response, checks=checks, headers=headers)

    holds()
    return count


async def test_the_document_is_right(tmp_path: Path) -> None:
    (tmp_path / "flip.py").write_text(FLIP_PICTURES)
    async with serving(FILE % KEY, tmp_path) as service:
        answer = await service.client.get("/openapi.json", headers={"X-API-Key": KEY})
        asked = await asyncio.to_thread(hold, answer.json(), service.url, 3)
        assert not service.app._runs
        paths = answer.json()["paths"]
    assert len(asked) == sum(len(operations) for operations in paths.values())
