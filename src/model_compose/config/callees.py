"""Which action does a job call?"""

from __future__ import annotations

from model_compose.config.components import Components
from model_compose.config.mistakes import Mistakes
from model_compose.config.schema import DEFAULT, SYNTHESISED_COMPONENT, Action, Component, default_of
from model_compose.config.tree import Node, locate
from model_compose.errors import did_you_mean


class Callees:
    """Finds what the jobs of one workflow call, and takes in components that stand inside of them."""

    def __init__(self, workflow: str, components: Components, mistakes: Mistakes) -> None:
        self._workflow = workflow
        self._components = components
        self._mistakes = mistakes

    def component(self, wanted: object, node: Node, job: str) -> Component | None:
        """What a map names under `component`; None if that is nothing, which is noted."""
        at = locate(node, ["component"])
        if isinstance(at.value, dict) and at is not node:
            return self._components.inline(at, f"{self._workflow}:{job}")
        if at.lost:
            return None
        if wanted == DEFAULT:
            return self._default(at)
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

    def _default(self, at: Node) -> Component | None:
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

    def action(self, component: Component, wanted: str, node: Node) -> Action | None:
        """What a map names under `action`; None if that is nothing, which is noted."""
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
