from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest
from tests.api.openai.clients import served

from model_compose import errors
from model_compose.api.openai.errors import ModelNotFound, envelope, status

KEYS = """
controller: {port: 0, api_keys: [{name: me, key: "0123456789abcdef"}]}
component: {id: chat, type: model, task: chat-completion, driver: echo, runtime: embedded}
"""


@pytest.mark.parametrize(
    ("error", "code", "word", "kind"),
    [
        (errors.BadRequest("no"), 400, "bad_request", "invalid_request_error"),
        (errors.InvalidInput("no", field="a"), 400, "invalid_input", "invalid_request_error"),
        (errors.Unsupported("no"), 400, "unsupported", "invalid_request_error"),
        (
            errors.RequestTooLong("no", size=2, limit=1),
            400,
            "context_length_exceeded",
            "invalid_request_error",
        ),
        (errors.Unauthorized("no"), 401, "unauthorized", "authentication_error"),
        (errors.Forbidden("no"), 403, "forbidden", "permission_error"),
        (ModelNotFound("no"), 404, "model_not_found", "invalid_request_error"),
        (errors.BodyTooLarge("no"), 413, "body_too_large", "invalid_request_error"),
        (errors.Overloaded("no"), 429, "rate_limit_exceeded", "rate_limit_error"),
        (errors.ModelUnavailable("no"), 503, "model_unavailable", "server_error"),
        (errors.WorkerDied("no"), 503, "worker_died", "server_error"),
        (errors.TimedOut("no"), 504, "timeout", "server_error"),
        (errors.EngineError("no"), 500, "engine_error", "server_error"),
    ],
)
def test_errors_have_the_status_and_the_words_that_clients_know(
    error: errors.ModelComposeError, code: int, word: str, kind: str
) -> None:
    assert status(error) == code
    found = envelope(error)["error"]
    assert (found["code"], found["type"], found["message"]) == (word, kind, "no")


def test_a_field_is_told_by_the_name_that_the_client_has_for_it() -> None:
    error = errors.InvalidInput(
        "`text[3]`: expected an integer; `texts` is fine", field="text[3]", hint="no `text`"
    )
    found = envelope(error, {"text": "input"})["error"]
    assert found["param"] == "input[3]"
    assert found["message"] == "`input[3]`: expected an integer; `texts` is fine (no `input`)"


def test_what_is_not_ours_is_not_explained() -> None:
    found: Any = envelope(ValueError("secret"))["error"]
    assert "secret" not in str(found)
    assert status(ValueError()) == 500


async def test_a_key_is_asked_for_in_the_form_that_the_client_understands(tmp_path: Path) -> None:
    async with served(KEYS, tmp_path) as (_, client):
        with pytest.raises(openai.AuthenticationError) as raised:
            await client.models.list()
        known = client.with_options(api_key="0123456789abcdef")
        listed = [model.id async for model in known.models.list()]
    assert raised.value.code == "unauthorized"
    assert listed == ["chat"]
