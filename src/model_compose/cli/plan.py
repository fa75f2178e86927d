"""What would `up` do? For `up --dry-run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_compose.cli.options import Selection
from model_compose.cli.terminal import columns
from model_compose.sources.disk import size_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model_compose.compose.models import Model
    from model_compose.config.schema import Project
    from model_compose.config.spec import Catalog
    from model_compose.sources.spec import LoadedSource, Source


def plan(selection: Selection) -> list[str]:
    """Lines that say what would be served. Looks at the disk, and changes nothing.

    Raises ConfigErrors, and DriverMissing as `up` would.
    """
    from model_compose.cli.state import root_url
    from model_compose.compose.models import memory_budget, models_of, require_drivers

    catalog = selection.looking(download=False)
    project = selection.project(catalog)
    models = models_of(project, catalog)
    require_drivers(models)
    controller = project.controller
    url = (
        root_url(controller.host, controller.port, tls=controller.tls is not None)
        if controller.port
        else f"a free port of {controller.host}"
    )
    header = ["COMPONENT", "LOADED", "TASK", "DRIVER", "ON DISK", "WEIGHTS"]
    return [
        f"would listen on {url}, with the API under {controller.base_path or '/'}",
        f"would keep all models together within {size_text(memory_budget(project)['host'])} of memory",
        f"would offer the workflows {', '.join(project.workflows)}",
        "",
        *columns([header, *(_row(model, project) for model in models)]),
        *_commands(project, catalog),
    ]


def _commands(project: Project, catalog: Catalog) -> Iterator[str]:
    """What the components of the file run here, each command as it stands."""
    from model_compose.compose import components

    for name, key, command in components.commands(project, catalog):
        first, *others = command.split("\n")
        yield from ("", f"`{key}` of {name} runs", f"  {first}", *(f"  {line}" for line in others))


def _row(model: Model, project: Project) -> list[str]:
    from model_compose.sources.fetch import locate

    when = "at start" if model.config.preload else "at the first request"
    sources = list(model.sources())
    found = [locate(source, base_dir=project.folder) for source in sources]
    return [
        *(model.name, when, model.task.name, model.driver.name),
        ", ".join(_size(*each) for each in zip(sources, found, strict=True)) or "-",
        ", ".join(map(str, sources)) or "-",
    ]


def _size(source: Source, found: LoadedSource | None) -> str:
    from model_compose.sources.known import KNOWN
    from model_compose.sources.spec import KnownSource

    if found is not None:
        return size_text(found.size_bytes)
    if isinstance(source, KnownSource):
        return f"not yet ({size_text(KNOWN[source.name].size_bytes)})"
    return "not yet"
