"""What does a file say of a component that is a whole workflow?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET

from model_compose.config.expression import Template
from model_compose.config.grammar import parse
from model_compose.config.schema import DEFAULT
from model_compose.config.spec import ActionSpec, Catalog, ComponentSpec, Report, doc


class WorkflowConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow of this file."""

    workflow: Annotated[str, doc("the id of the workflow that it runs; default: the default one")] = DEFAULT


class WorkflowCall(msgspec.Struct, frozen=True, kw_only=True):
    """Run the workflow."""

    input: Annotated[Any, doc("what the workflow gets; default: what the action gets")] = UNSET


def _action(config: WorkflowConfig, catalog: Catalog, report: Report) -> ActionSpec:
    whole = parse("${input}")
    assert isinstance(whole, Template)
    return ActionSpec(WorkflowCall, chunk=Any, given={"input": whole.whole}, fixed=("input",))


def _calls(config: WorkflowConfig) -> Mapping[str, str]:
    return {config.workflow: "workflow"}


SPEC = ComponentSpec(
    "workflow",
    "Runs a workflow of this file, as a part of another.",
    WorkflowConfig,
    _action,
    "model_compose.components.workflow.component:WorkflowComponent",
    calls=_calls,
    requests=(WorkflowCall,),
)
