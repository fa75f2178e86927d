"""What can a client name as `model`?

Model components by their ids, their aliases, and `component:adapter` for one of their LoRA adapters; and
workflows that take `messages` or a `prompt`. A name that a component and a workflow share means the
component, where that can do what is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from model_compose.api.names import WORKFLOW, Model, models_by_name
from model_compose.api.openai.errors import ModelNotFound
from model_compose.compose.app import App, calling
from model_compose.config.schema import DEFAULT, SYNTHESISED_WORKFLOW
from model_compose.errors import InvalidInput, did_you_mean

CHAT: Final = "chat-completion"
TEXT: Final = "text-generation"
EMBEDDING: Final = "text-embedding"
CLASSIFICATION: Final = "text-classification"
IMAGE: Final = "image-generation"

_SERVED: Final = frozenset({CHAT, TEXT, EMBEDDING, CLASSIFICATION, IMAGE})
_CONVERSES: Final = frozenset({"messages", "prompt"})

#: Where what a task does is served, for those who ask at the wrong door.
_DOORS: Final = {
    CHAT: "/v1/chat/completions",
    TEXT: "/v1/completions",
    EMBEDDING: "/v1/embeddings",
    CLASSIFICATION: "/v1/rerank",
    IMAGE: "/v1/images/generations",
    WORKFLOW: "/v1/chat/completions",
}


class Models:
    """Everything in a project that has a name for clients of OpenAI's API."""

    def __init__(self, app: App) -> None:
        self._created = int(time.time())
        self._components = models_by_name(app)
        self._workflows = {
            name: Model(name, WORKFLOW, workflow, app.inputs[name], name)
            for name, workflow in app.project.workflows.items()
            if app.inputs[name].keys & _CONVERSES and workflow.jobs != calling(name, DEFAULT)
        }

    def listed(self) -> list[dict[str, Any]]:
        """All of them, those of components first."""
        models = [model for model in self._components.values() if model.task in _SERVED]
        models += [
            workflow
            for name, workflow in self._workflows.items()
            if name not in self._components and name != SYNTHESISED_WORKFLOW
        ]
        return [model.about(self._created) for model in models]

    def one(self, name: str) -> dict[str, Any]:
        """One of them. Raises ModelNotFound."""
        model = self._components.get(name) or self._workflows.get(name)
        if model is None:
            raise self._not_found(name)
        return model.about(self._created)

    def find(self, name: str, *tasks: str) -> Model:
        """What does one of these tasks under a name. Raises ModelNotFound, InvalidInput."""
        component, workflow = self._components.get(name), self._workflows.get(name)
        if component is not None and component.task in tasks:
            return component
        if workflow is not None and WORKFLOW in tasks:
            return workflow
        found = component or workflow
        if found is None:
            raise self._not_found(name)
        raise InvalidInput(
            f"`{name}` does not do this: {_what(found)}", field="model", hint=_way_out(found, tasks)
        )

    def _not_found(self, name: str) -> ModelNotFound:
        names = [each["id"] for each in self.listed()]
        return ModelNotFound(f"there is no model `{name}`", hint=did_you_mean(name, names))


def _what(model: Model) -> str:
    return "it is a workflow" if model.is_workflow else f"its task is `{model.task}`"


def _way_out(model: Model, tasks: Sequence[str]) -> str:
    if model.task == TEXT and CHAT in tasks:
        return f"write `task: {CHAT}` in the file, or ask {_DOORS[TEXT]}"
    if model.task == CHAT and TEXT in tasks:
        return f"ask {_DOORS[CHAT]}, or write `task: {TEXT}` in the file"
    if model.task in _DOORS:
        return f"ask {_DOORS[model.task]}"
    return "run its workflow by the native API"
