"""Which components and workflows does a workflow reach, through workflows that components call?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from model_compose.config.mistakes import Mistakes
from model_compose.config.schema import DEFAULT, SYNTHESISED_WORKFLOW, Component, Workflow, default_of
from model_compose.config.spec import Catalog
from model_compose.config.tree import Node, locate
from model_compose.errors import did_you_mean


class Reach(msgspec.Struct, frozen=True):
    """Ids of components and of workflows, in the order in which they are come to."""

    components: tuple[str, ...]
    workflows: tuple[str, ...]


def reached(
    names: Iterable[str],
    workflows: Mapping[str, Workflow],
    components: Mapping[str, Component],
    catalog: Catalog,
) -> Reach:
    """What runs of these workflows may use, the workflows themselves included."""
    found: dict[str, None] = {}
    used: dict[str, None] = {}
    waiting = [name for name in names if name in workflows]
    while waiting:
        name = waiting.pop(0)
        if name in found:
            continue
        found[name] = None
        for component in _called(workflows[name]):
            used[component] = None
            if component in components:
                waiting += [w for w in _workflows(components[component], workflows, catalog) if w]
    return Reach(tuple(used), tuple(found))


def check_calls(
    workflows: Mapping[str, Workflow],
    components: Mapping[str, Component],
    nodes: Mapping[str, Node],
    catalog: Catalog,
    mistakes: Mistakes,
) -> None:
    """Note components that call workflows which are not there, or that come back to where they began."""
    for name, component in components.items():
        wrong = False
        for wanted, key in _calls(component, catalog).items():
            at = locate(nodes[name], [key]) if name in nodes else None
            if at is None or at.lost:
                continue
            if _resolved(wanted, workflows) is None:
                wrong = True
                named = workflows.keys() - {SYNTHESISED_WORKFLOW}
                message = f"there is no workflow `{wanted}`"
                if wanted == DEFAULT:
                    message = "no workflow is named here, and none is the default"
                mistakes.add(message, at, hint=did_you_mean(wanted, named) or "declare it under `workflows:`")
        if not wrong:
            _check_recursion(name, component, workflows, components, nodes, catalog, mistakes)


def _check_recursion(
    name: str,
    component: Component,
    workflows: Mapping[str, Workflow],
    components: Mapping[str, Component],
    nodes: Mapping[str, Node],
    catalog: Catalog,
    mistakes: Mistakes,
) -> None:
    for wanted, key in _calls(component, catalog).items():
        target = _resolved(wanted, workflows)
        if target is None or name not in nodes:
            continue
        if name in reached([target], workflows, components, catalog).components:
            message = f"component `{name}` calls workflow `{target}`, which calls it again, without an end"
            hint = "let one of the workflows call something else"
            mistakes.add(message, locate(nodes[name], [key]), hint=hint)


def _called(workflow: Workflow) -> Iterable[str]:
    return [job.call.component for job in workflow.jobs if job.call is not None]


def _calls(component: Component, catalog: Catalog) -> Mapping[str, str]:
    spec = catalog.component(component.type) if component.type else None
    return {} if spec is None or spec.calls is None else spec.calls(component.config)


def _workflows(component: Component, workflows: Mapping[str, Workflow], catalog: Catalog) -> list[str | None]:
    return [_resolved(name, workflows) for name in _calls(component, catalog)]


def _resolved(name: str, workflows: Mapping[str, Workflow]) -> str | None:
    if name != DEFAULT:
        return name if name in workflows else None
    found = default_of(tuple(workflows.values()))
    return None if found is None else found.id
