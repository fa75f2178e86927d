"""How does a component that is no model come to life?"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

from model_compose.about import install_command
from model_compose.components.callbacks import Callbacks
from model_compose.components.contract import Component, Setting, Workflows
from model_compose.components.media import Media
from model_compose.config.schema import Component as Declared
from model_compose.config.schema import Project
from model_compose.config.spec import Catalog, ComponentSpec
from model_compose.errors import DriverMissing
from model_compose.runtime.host import named
from model_compose.runtime.model import State
from model_compose.runtime.process import Reaper


def require(project: Project, catalog: Catalog) -> None:
    """Raise DriverMissing, with the command that installs it, when a component's library is not there."""
    for declared in project.components.values():
        spec = _spec(declared, catalog)
        needs = spec.needs(declared.config) if spec.needs is not None else None
        missing = [name for name in needs.modules if importlib.util.find_spec(name) is None] if needs else []
        if needs and missing:
            raise DriverMissing(
                f"component `{declared.id}` needs `{missing[0]}`, which is not installed",
                hint=install_command(needs.extra),
            )


def component(
    declared: Declared,
    catalog: Catalog,
    *,
    folder: Path,
    state: Path | None,
    scratch: Path,
    media: Media,
    workflows: Workflows,
    reaper: Reaper,
    changed: Callable[[str, State], None],
    callbacks: Callbacks,
) -> Component:
    """The component that a file declares."""
    heard = functools.partial(changed, declared.id)
    setting = Setting(declared, folder, state, scratch, media, workflows, reaper, heard, callbacks)
    made: Component = named(_spec(declared, catalog).implementation)(setting)
    return made


def commands(project: Project, catalog: Catalog) -> Iterator[tuple[str, str, str]]:
    """What the components run on this machine: the component, the key of the file, the command."""
    for name, declared in project.components.items():
        spec = _spec(declared, catalog)
        for key, command in spec.commands(declared.config) if spec.commands is not None else ():
            yield name, key, command


async def clean(project: Project, catalog: Catalog, state: Path) -> None:
    """Have every component clean up when the service has ended for good. Raises what one of them raises."""
    for declared in project.components.values():
        spec = _spec(declared, catalog)
        if spec.clean is not None:
            await named(spec.clean)(declared, project.folder, state)


def _spec(declared: Declared, catalog: Catalog) -> ComponentSpec:
    spec = catalog.component(declared.type)
    assert spec is not None  # a project that can run has been looked at
    return spec
