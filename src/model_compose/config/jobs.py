"""What do the jobs of a workflow call, and what do they give each other?"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from model_compose.config.components import Components
from model_compose.config.expression import references
from model_compose.config.mistakes import Mistakes
from model_compose.config.read import WRONG, Reader
from model_compose.config.references import (
    CONTEXT,
    Known,
    check_references,
    compiled,
    names_of_output,
    results,
)
from model_compose.config.schema import (
    DEFAULT,
    SYNTHESISED_COMPONENT,
    SYNTHESISED_JOB,
    Action,
    Component,
    Job,
    JobKeys,
    Tree,
    default_of,
)
from model_compose.config.shape import Ids
from model_compose.config.template import Map
from model_compose.config.tree import Node, at_key, locate, locate_key
from model_compose.errors import did_you_mean

_TREES = ("input", "output", "repeat_count")


class _Call(msgspec.Struct, frozen=True):
    """A job of which is known what it calls, while nobody has looked at its references yet."""

    job: Job
    node: Node
    action: Action | None

    def trees(self) -> Iterator[tuple[str, Node, Tree]]:
        """Key, node and compiled tree of each value that may refer to something."""
        for key in _TREES:
            node = at_key(self.node, key)
            if node is not None:
                yield key, node, getattr(self.job, key)

    def result(self) -> Known:
        """What is known of the output of its action."""
        return names_of_output(self.action.output, self.action.spec.result) if self.action else None

    def output(self) -> Known:
        """What is known of its own output."""
        if self.job.repeat_count != 1:
            return None
        return self.result() if self.job.output is UNSET else names_of_output(self.job.output, None)


class Jobs:
    """Reads the jobs of one workflow; `unnamed` is what messages call one without an id.

    sources  what the workflow's own `output` can refer to, once they have been read
    nodes    where each of them is
    """

    def __init__(
        self, workflow: str, unnamed: str, components: Components, reader: Reader, mistakes: Mistakes
    ) -> None:
        self.sources: dict[str, Known] = {"input": None, "context": CONTEXT}
        self.nodes: dict[str, Node] = {}
        self._workflow = workflow
        self._unnamed = unnamed
        self._components = components
        self._reader = reader
        self._mistakes = mistakes
        self._ids = Ids("job", SYNTHESISED_JOB, mistakes, dots=False)

    def read(self, nodes: list[Node]) -> dict[str, Job]:
        """Those jobs that can be read."""
        names = [self._ids.add(node) for node in nodes]
        for name, node in zip(names, nodes, strict=True):
            if name is not None:
                self.nodes.setdefault(name, node)
        read = [self._call(node, name) for node, name in zip(nodes, names, strict=True)]
        calls = [call for call in read if call is not None]
        outputs: dict[str, Known] = {name: {"output": None} for name in self.nodes}
        outputs |= {call.job.id: {"output": call.output()} for call in calls}
        self.sources["jobs"] = None if self._ids.incomplete else outputs
        jobs: dict[str, Job] = {}
        for call in calls:
            job = self._complete(call)
            if job.id:
                jobs.setdefault(job.id, job)
        return jobs

    # What it calls

    def _call(self, node: Node, name: str | None) -> _Call | None:
        where = self._unnamed if name in (None, SYNTHESISED_JOB) else f"job `{name}`"
        if self._reader.comes_later(node, "type", JobKeys, where):
            return None  # its other keys are not known here
        node = self._without_alternatives(node)
        keys = self._reader.struct(node, JobKeys, where, "job")
        if keys is WRONG:
            return None
        component = self._component(keys.component, node, name or "")
        action = self._action(component, keys.action, node) if component and component.type else None
        trees = {key: compiled(at, self._mistakes) for key in _TREES if (at := at_key(node, key)) is not None}
        called = component.id if component else ""
        job = Job(name or "", called, keys.action, depends_on=self._waits_for(keys, node), **trees)
        return _Call(job, node, action)

    def _without_alternatives(self, node: Node) -> Node:
        """A job without the lists inside its `depends_on`, which are noted."""
        wanted = at_key(node, "depends_on")
        if wanted is None or not isinstance(wanted.value, tuple) or not isinstance(node.value, dict):
            return node
        for item in wanted.value:
            if isinstance(item.value, tuple):
                self._mistakes.later("a list inside `depends_on` (any one of these jobs)", item)
        names = tuple(item for item in wanted.value if not isinstance(item.value, tuple))
        entry = replace(node.value["depends_on"], node=replace(wanted, value=names))
        return replace(node, value={**node.value, "depends_on": entry})

    def _component(self, wanted: object, node: Node, job: str) -> Component | None:
        at = locate(node, ["component"])
        if isinstance(at.value, dict) and at is not node:
            return self._components.inline(at, f"{self._workflow}:{job}")
        if at.lost:
            return None
        if wanted == DEFAULT:
            return self._default_component(at)
        if not isinstance(wanted, str):
            self._mistakes.add("`component` is neither an id nor a component", at)
            return None
        if wanted not in self._components.declared:
            if not self._components.incomplete:
                named = [name for name in self._components.declared if name != SYNTHESISED_COMPONENT]
                hint = did_you_mean(wanted, named) or "give the `id` to a component"
                self._mistakes.add(f"there is no component `{wanted}`", at, hint=hint)
            return None
        return self._components.found[wanted]

    def _default_component(self, at: Node) -> Component | None:
        found = self._components.default()
        if found is None and not self._components.incomplete:
            declared = self._components.declared
            if declared:
                names = ", ".join(f"`{name}`" for name in declared)
                hint = f"write `component:` with one of {names}, or mark one of them `default: true`"
                self._mistakes.add("no component is named here, and none is the default", at, hint=hint)
            else:
                hint = "declare it under `components:`"
                self._mistakes.add("a component is called here, and there is none", at, hint=hint)
        return found

    def _action(self, component: Component, wanted: str, node: Node) -> Action | None:
        names = [action.id for action in component.actions]
        at = locate(node, ["action"])
        if wanted != DEFAULT:
            if wanted in names:
                return component.action(wanted)
            message = f"component `{component.id}` has no action `{wanted}`"
            self._mistakes.add(message, at, hint=did_you_mean(wanted, names))
            return None
        found = default_of(component.actions)
        if found is None and not at.lost:
            message = f"component `{component.id}` has several actions, and none is the default"
            hint = f"write `action:` with one of {', '.join(f'`{name}`' for name in names)}"
            self._mistakes.add(message, at, hint=hint)
        return found

    def _waits_for(self, keys: JobKeys, node: Node) -> tuple[str, ...]:
        names = (keys.depends_on,) if isinstance(keys.depends_on, str) else keys.depends_on
        at = locate(node, ["depends_on"])
        for name, item in zip(names, at.value if isinstance(at.value, tuple) else (at,), strict=False):
            if not (name in self.nodes or self._ids.incomplete):
                hint = did_you_mean(name, self.nodes.keys() - {SYNTHESISED_JOB})
                self._mistakes.add(f"there is no job `{name}`", item, hint=hint)
        return tuple(name for name in names if name in self.nodes)

    # What it refers to

    def _complete(self, call: _Call) -> Job:
        """A job with the jobs that its references make it wait for, its references looked at."""
        waits_for = list(call.job.depends_on)
        for key, node, tree in call.trees():
            sources = {**self.sources, **results(call.result())} if key == "output" else self.sources
            check_references(node, tree, sources, self._mistakes)
            waits_for += [str(r.path[0]) for r in references(tree) if r.source == "jobs" and r.path]
        self._check_input(call)
        return replace(call.job, depends_on=tuple(n for n in dict.fromkeys(waits_for) if n in self.nodes))

    def _check_input(self, call: _Call) -> None:
        """Note keys of the `input` that the action does not look at."""
        given = call.job.input
        taken = _inputs(call.action) if call.action else None
        keys = given.constants if isinstance(given, Map) else given if isinstance(given, dict) else {}
        if taken is None:
            return
        for key in keys:
            if key not in taken:
                at = locate_key(call.node, ["input", key])
                message = f"the action takes no `{key}` from its input"
                self._mistakes.add(message, at, hint=did_you_mean(key, taken) or "it takes no input")


def _inputs(action: Action) -> set[str] | None:
    """The keys of its input that an action looks at; None if it takes the input as a whole."""
    found = set()
    for tree in (*action.values.values(), action.output):
        for reference in references(tree):
            if reference.key == "input":
                if not reference.path or not isinstance(reference.path[0], str):
                    return None
                found.add(reference.path[0])
    return found
