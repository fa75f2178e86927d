"""How do tests call a component alone? From YAML, without an app or a workflow."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
from tests.compose.apps import project_of

from model_compose.components.callbacks import Callbacks
from model_compose.components.contract import Component, Setting
from model_compose.components.media import Media
from model_compose.compose.catalog import BuiltIn
from model_compose.config.expression import Scope
from model_compose.config.schema import DEFAULT
from model_compose.runtime.host import named
from model_compose.runtime.process import Reaper
from model_compose.types import plain


class Context:
    """A run that is not there."""

    run_id = "run"
    admitted = False

    def served(self) -> None: ...

    def spent(self, outcome: Any) -> None: ...

    def progress(self, done: int, total: int) -> None: ...


class Workflows:
    """Workflows that are one function."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, bool]] = []
        self.gives: Any = None

    async def call(self, name: str, given: Any, context: Any, *, streaming: bool) -> Any:
        self.calls.append((name, given, streaming))
        return self.gives


class Called(msgspec.Struct):
    """A component under test."""

    component: Component
    setting: Setting

    async def call(
        self, given: Any = None, action: str = DEFAULT, *, streaming: bool = False, context: Any = None
    ) -> Any:
        """What an action gives, a `Stream` maybe."""
        declared = self.setting.declared.action(action)
        scope = Scope({"input": given, "context": {"run_id": "run", "task_id": "run"}})
        context = context or Context()
        return plain(await self.component.call(declared, scope, context, streaming=streaming))


@contextlib.asynccontextmanager
async def component_of(text: str, folder: Path, workflows: Any = None) -> AsyncIterator[Called]:
    """The first component of a file, until the end of the block."""
    project = project_of(text, folder)
    declared = next(iter(project.components.values()))
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    setting = Setting(
        declared,
        project.folder,
        None,
        scratch,
        Media.of(project),
        workflows or Workflows(),
        Reaper(scratch),
        lambda state: None,
        Callbacks(),
    )
    spec = BuiltIn().component(declared.type)
    assert spec is not None
    component: Component = named(spec.implementation)(setting)
    await component.start()
    try:
        yield Called(component, setting)
    finally:
        await component.close()
        await setting.reaper.close()
