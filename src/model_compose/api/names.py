"""By which names does a client call models, and what does each of them stand for?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from model_compose.components.model.spec import adapter_name
from model_compose.compose.app import App
from model_compose.compose.models import Model as Declared
from model_compose.config.expression import Reference
from model_compose.config.schema import Workflow
from model_compose.config.spec import fields_of
from model_compose.workflows.inputs import WorkflowInputs

WORKFLOW: Final = "workflow"

_OWNER: Final = "model-compose"


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


def models_by_name(app: App) -> dict[str, Model]:
    """The model components of a project by their ids, their aliases, and `component:adapter`."""
    found: dict[str, Model] = {}
    for declared in app.models:
        for model in _names(app, declared):
            found.setdefault(model.name, model)
    return found


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
