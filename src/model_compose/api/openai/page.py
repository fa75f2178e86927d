"""What of OpenAI's API does the API page show? The routes for which this project has a model."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from model_compose.api.names import WORKFLOW
from model_compose.api.openai.chat import ChatRequest
from model_compose.api.openai.completions import CompletionRequest
from model_compose.api.openai.embeddings import EmbeddingRequest
from model_compose.api.openai.images import ImageRequest
from model_compose.api.openai.models import CHAT, CLASSIFICATION, EMBEDDING, IMAGE, TEXT, Models
from model_compose.api.openai.rerank import RerankRequest
from model_compose.api.openai.responses import ResponseRequest
from model_compose.api.schemas import EVENTS, schema_of
from model_compose.compose.app import App

_ERRORS: Final = ("400", "404", "413", "429", "500", "503", "504")
_OWN: Final = "Parameters of the task under their own names, such as `top_k`, may stand beside."


class _Shown(msgspec.Struct, frozen=True):
    """A route: whose it is, the body that it takes, and an example of one but for its model."""

    tasks: tuple[str, ...]
    summary: str
    body: type[msgspec.Struct]
    example: dict[str, Any]
    streams: bool = False


_ROUTES: Final = {
    "/v1/chat/completions": _Shown(
        (CHAT, WORKFLOW),
        "Go on with a conversation.",
        ChatRequest,
        {"messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": 100},
        streams=True,
    ),
    "/v1/responses": _Shown(
        (CHAT, WORKFLOW),
        "Go on with a conversation, in the newer form.",
        ResponseRequest,
        {"input": "Why is the sky blue?", "max_output_tokens": 100},
        streams=True,
    ),
    "/v1/completions": _Shown(
        (TEXT,), "Go on with a text.", CompletionRequest, {"prompt": "Once upon a time"}, streams=True
    ),
    "/v1/embeddings": _Shown(
        (EMBEDDING,), "Turn texts into vectors.", EmbeddingRequest, {"input": ["a cat", "a dog"]}
    ),
    "/v1/rerank": _Shown(
        (CLASSIFICATION, EMBEDDING),
        "Put documents in order by how well they answer a query.",
        RerankRequest,
        {"query": "a small animal", "documents": ["a kitten", "a lorry"]},
    ),
    "/v1/images/generations": _Shown(
        (IMAGE,), "Paint what a text describes.", ImageRequest, {"prompt": "a lighthouse", "size": "512x512"}
    ),
}


def paths(app: App) -> dict[str, Any]:
    """The paths of an OpenAPI document."""
    listed = Models(app).listed()
    found: dict[str, Any] = {"/v1/models": {"get": _models()}} if listed else {}
    for path, shown in _ROUTES.items():
        names = [each["id"] for each in listed if each["task"] in shown.tasks]
        if names:
            found[path] = {"post": _post(shown, names)}
    return found


def _models() -> dict[str, Any]:
    answer = {"description": "The models.", "content": {"application/json": {"schema": {"type": "object"}}}}
    return {"summary": "Models, by the names that OpenAI's clients call them.", "responses": {"200": answer}}


def _post(shown: _Shown, names: list[str]) -> dict[str, Any]:
    schema = {**schema_of(shown.body), "additionalProperties": True}
    schema["properties"] = {**schema["properties"], "model": {"enum": names}}
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if shown.streams:
        content["text/event-stream"] = {"schema": EVENTS}
    body = {"schema": schema, "example": {"model": names[0], **shown.example}}
    return {
        "summary": shown.summary,
        "description": f"As OpenAI's API has it. {_OWN}",
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {
            "200": {"description": "The answer.", "content": content},
            **{status: _error() for status in _ERRORS},
        },
    }


def _error() -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/OpenAIError"}
    return {"description": "An error.", "content": {"application/json": {"schema": schema}}}


ERROR: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "what happened, and what to do"},
                "type": {"type": "string", "description": "such as `invalid_request_error`"},
                "param": {"type": ["string", "null"], "description": "which field of the request is wrong"},
                "code": {"type": ["string", "null"], "description": "a word for programs"},
            },
        }
    },
}
