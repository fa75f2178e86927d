"""`pull`: how do the weights of a project come onto this machine?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from model_compose.cli.options import EnvFiles, Files, Selection, Variables
from model_compose.cli.terminal import say
from model_compose.errors import ModelComposeError, NotFound, did_you_mean
from model_compose.sources.disk import size_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from model_compose.compose.models import Model
    from model_compose.sources.spec import Source

#: Downloads at once: several fill a line that one server does not, and more only get in each other's way.
_AT_ONCE: Final = 4


def pull(
    context: typer.Context,
    components: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMPONENT", show_default=False, help="Only these. Default: all."),
    ] = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Ask whether branches of repositories have moved.")
    ] = False,
    files: Files = None,
    env_files: EnvFiles = None,
    variables: Variables = None,
) -> None:
    """Download the weights of all components.

    What has come stays when a download breaks off or is stopped; the next pull goes on from there.
    """
    from model_compose.compose.models import models_of

    selection = Selection.of(context, files, env_files, variables)
    catalog = selection.looking()
    project = selection.project(catalog)
    wanted: dict[Source, list[str]] = {}
    for model in _chosen(models_of(project, catalog), components or ()):
        for source in model.sources():
            wanted.setdefault(source, []).append(model.name)
    if not wanted:
        say("there are no weights to download")
    _fetch(wanted, project.folder, refresh=refresh)


def _chosen(models: Sequence[Model], names: Sequence[str]) -> Sequence[Model]:
    known = [model.name for model in models]
    for name in names:
        if name not in known:
            raise NotFound(f"there is no component `{name}`", hint=did_you_mean(name, known))
    return [model for model in models if model.name in names] if names else models


def _fetch(wanted: dict[Source, list[str]], folder: Path, *, refresh: bool) -> None:
    """Download all sources, and say of each what came of it. Raises all errors together."""
    import threading
    from concurrent.futures import ThreadPoolExecutor, as_completed

    from model_compose.cli.downloads import shown_on
    from model_compose.sources.fetch import locate, resolve

    cancel = threading.Event()
    show = shown_on(sys.stderr, lambda names, text: say(f"{names}: {text}", sys.stderr))

    def fetch(source: Source, names: str) -> str:
        found = locate(source, base_dir=folder)
        loaded = resolve(source, base_dir=folder, progress=show(names), refresh=refresh, cancel=cancel)
        here = "is here already" if found is not None and found.path == loaded.path else "is here"
        return f"{names}: {loaded.origin} {here} ({size_text(loaded.size_bytes)})"

    errors: list[ModelComposeError] = []
    with ThreadPoolExecutor(_AT_ONCE, "pull") as threads:
        try:
            for future in as_completed(
                [threads.submit(fetch, source, ", ".join(names)) for source, names in wanted.items()]
            ):
                try:
                    say(future.result())
                except ModelComposeError as error:
                    errors.append(error)
        except KeyboardInterrupt:
            cancel.set()
            threads.shutdown(cancel_futures=True)
            say("stopped; what has come is kept, and the next pull goes on from there", sys.stderr)
            raise
    if errors:
        raise ExceptionGroup("downloads failed", errors)
