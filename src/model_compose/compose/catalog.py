"""Which tasks, drivers and component types are there?

Built-in ones are the folders of `tasks/`, `drivers/` and `components/` that have a `spec.py` with a
`SPEC`. Other packages add theirs by entry point (`model_compose.tasks`, `model_compose.drivers`,
`model_compose.components`, and `model_compose.families` with names such as `image-upscale/my-net`), looked
up only when a file names something that is not built in.
"""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from model_compose.config.spec import ComponentSpec, DriverSpec, TaskSpec
from model_compose.errors import ServiceError
from model_compose.sources.spec import Source

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Spec = TypeVar("Spec", ComponentSpec, TaskSpec, DriverSpec)

_PACKAGE: Final = Path(__file__).parents[1]

#: Types of components that files of this format may have, and that we do not do yet.
_LATER: Final = frozenset(("mcp-server", "mcp-client", "model-trainer", "datasets", "image-processor"))


class BuiltIn:
    """A `Catalog` of what ships with us and of what installed packages add."""

    def component(self, name: str) -> ComponentSpec | None:
        """A component type."""
        return _found("components", name, ComponentSpec)

    def task(self, name: str) -> TaskSpec | None:
        """A task."""
        return _found("tasks", name, TaskSpec)

    def driver(self, name: str) -> DriverSpec | None:
        """A driver."""
        return _found("drivers", name, DriverSpec)

    def components(self) -> tuple[str, ...]:
        """Names of component types."""
        return _folders("components")

    def tasks(self) -> tuple[str, ...]:
        """Names of tasks."""
        return _folders("tasks")

    def drivers(self) -> tuple[str, ...]:
        """Names of drivers."""
        return _folders("drivers")

    def infer_task(self, source: Source) -> str | None:
        """Nobody looks at weights here."""
        return None

    def family(self, task: str, name: str) -> str | None:
        """What an installed package adds as `architecture` of a task; it is imported in the worker only."""
        from importlib.metadata import entry_points

        for point in entry_points(group="model_compose.families", name=f"{task}/{name}"):
            return point.value
        return None

    def later(self, name: str) -> bool:
        """Whether a component type is known and not supported yet."""
        return name in _LATER


class Installed(BuiltIn):
    """The same, whose lists of names also have what installed packages add: for those who want all of it.

    A check does not: looking for packages takes time, and a file says which of them it wants.
    """

    def components(self) -> tuple[str, ...]:
        """Names of component types."""
        return _with_points("components")

    def tasks(self) -> tuple[str, ...]:
        """Names of tasks."""
        return _with_points("tasks")

    def drivers(self) -> tuple[str, ...]:
        """Names of drivers."""
        return _with_points("drivers")


def _with_points(kind: str) -> tuple[str, ...]:
    from importlib.metadata import entry_points

    names = dict.fromkeys((*_folders(kind), *sorted(entry_points(group=f"model_compose.{kind}").names)))
    return tuple(names)


@functools.cache
def _folders(kind: str) -> tuple[str, ...]:
    return tuple(sorted(path.parent.name.replace("_", "-") for path in (_PACKAGE / kind).glob("*/spec.py")))


@functools.cache
def _found(kind: str, name: str, wanted: type[Spec]) -> Spec | None:
    if name in _folders(kind):
        spec = importlib.import_module(f"model_compose.{kind}.{name.replace('-', '_')}.spec").SPEC
        assert isinstance(spec, wanted)
        return spec
    from importlib.metadata import entry_points  # takes 40 ms, and most files name nothing of others

    for point in entry_points(group=f"model_compose.{kind}", name=name):
        return _of_package(point, wanted)
    return None


def _of_package(point: EntryPoint, wanted: type[Spec]) -> Spec:
    """What another package brings. Raises ServiceError if it is not what it says."""
    try:
        spec = point.load()
    except (ImportError, AttributeError) as error:
        raise ServiceError(f"`{point.name}` of another package cannot be loaded: {error}") from error
    if not isinstance(spec, wanted):
        raise ServiceError(f"`{point.value}`, which should be `{point.name}`, is no `{wanted.__name__}`")
    return spec
