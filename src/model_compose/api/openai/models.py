"""What can a client name as `model`?

Model components by their ids, their aliases, and `component:adapter` for one of their LoRA adapters; and
workflows that take `messages` or a `prompt`. A name that a component and a workflow share means the
component, where that can do what is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from model_compose.api.openai.errors import ModelNotFound
from model_compose.components.model.spec import adapter_name
from model_compose.compose.app import App, calling
from model_compose.compose.models import Model as Declared
from model_compose.config.expression import Reference
from model_compose.config.schema import DEFAULT, SYNTHESISED_WORKFLOW, Workflow
from model_compose.config.spec import fields_of
from model_compose.errors import InvalidInput, did_you_mean
from model_compose.workflows.inputs import WorkflowInputs

CHAT: Final = "chat-completion"
TEXT: Final = "text-generation"
EMBEDDING: Final = "text-embedding"
CLASSIFICATION: Final = "text-classification"
IMAGE: Final = "image-generation"
WORKFLOW: Final = "workflow"

_SERVED: Final = frozenset({CHAT, TEXT, EMBEDDING, CLASSIFICATION, IMAGE})
_OWNER: Final = "model-compose"
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


class Model(msgspec.Struct, frozen=True):
    """Something that answers to a name.

    name      as the client calls it
    task      what it does; `workflow` for one
    workflow  what is run
    inputs    what that takes
    root      the id of what is behind the name
    said      fields of its request for which the file has a value
    adapters  weights of the component's adapters that the name stands for
    """

    name: str
    task: str
    workflow: Workflow
    inputs: WorkflowInputs
    root: str
    said: frozenset[str] = frozenset()
    adapters: dict[str, float] | None = None

    @property
    def is_workflow(self) -> bool:
        """Whether a workflow answers, and no single model."""
        return self.task == WORKFLOW

    def about(self, created: int) -> dict[str, Any]:
        """It in a list of models."""
        parent = {} if self.name == self.root else {"root": self.root}
        return {
            "id": self.name,
            "object": "model",
            "created": created,
            "owned_by": _OWNER,
            "task": self.task,
            **parent,
        }


class Models:
    """Everything in a project that has a name for clients of OpenAI's API."""

    def __init__(self, app: App) -> None:
        self._created = int(time.time())
        self._components: dict[str, Model] = {}
        for declared in app.models:
            for model in _names(app, declared):
                self._components.setdefault(model.name, model)
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


def _names(app: App, declared: Declared) -> Iterator[Model]:
    """A component by each of its names."""
    workflow = app.direct[declared.name]
    direct = declared.component.direct
    assert direct is not None
    said = frozenset(
        n for n, t in direct.values.items() if isinstance(t, Reference) and t.default is not UNSET
    )
    plain = Model(declared.name, declared.task.name, workflow, app.takes(workflow), declared.name, said)
    for name in (declared.name, *declared.component.aliases):
        yield replace(plain, name=name)
    if "adapters" in {field.name for field in fields_of(declared.task.request)}:
        for i, adapter in enumerate(declared.config.peft_adapters):
            weight = adapter.weight if isinstance(adapter.weight, int | float) else 1.0
            name = adapter_name(adapter, i)
            yield replace(plain, name=f"{declared.name}:{name}", adapters={name: float(weight)})


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
