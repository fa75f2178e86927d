"""`up`: how is a service started?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from model_compose.cli.options import EnvFiles, Files, Selection, Variables, is_verbose
from model_compose.cli.terminal import fitted, is_live, say

if TYPE_CHECKING:
    from model_compose.cli.detached import Parent

LogFormat = Literal["text", "json"]


def up(
    context: typer.Context,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Run in the background; return when it is ready.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be served, and start nothing.")
    ] = False,
    log_format: Annotated[
        LogFormat, typer.Option(metavar="text|json", help="How the log looks on the screen.")
    ] = "text",
    files: Files = None,
    env_files: EnvFiles = None,
    variables: Variables = None,
    ready_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Start the service and load its models.

    Ctrl-C ends it: runs under way get the time that `controller.shutdown_timeout` gives them, and are
    cancelled by a second Ctrl-C.
    """
    selection = Selection.of(context, files, env_files, variables)
    verbose = is_verbose(context)
    if dry_run:
        from model_compose.cli.plan import plan

        for line in plan(selection):
            say(fitted(line, sys.stdout))
    elif detach:
        from model_compose.cli import detached

        options = ["--verbose"] * verbose + ["up", "--log-format", log_format, *selection.arguments()]
        pid, well = detached.start(options)
        say(f"The service runs in the background, as process {pid}.")
        say("`model-compose logs -f` shows what it does, `model-compose down` stops it.")
        if not well:
            raise typer.Exit(1)
    else:
        parent = None
        if ready_fd is not None:
            from model_compose.cli.detached import Parent

            parent = Parent(ready_fd)
        _serve(selection, log_format, verbose=verbose, parent=parent)


def _serve(selection: Selection, log_format: LogFormat, *, verbose: bool, parent: Parent | None) -> None:
    import contextlib
    import logging

    import uvloop

    from model_compose.cli import log
    from model_compose.cli.downloads import Bars, Both, Lines
    from model_compose.cli.serve import serve

    catalog = selection.looking()
    project = selection.project(catalog)
    state = selection.state()
    with state.hold():
        text = log.LogText(sys.stdout, tuple(project.components))
        screen = log.Screen(lambda: sys.stdout, text if log_format == "text" else log.as_json)
        log.set_up(screen, log.file_handler(state.log), level=logging.DEBUG if verbose else logging.INFO)
        if parent is not None:
            parent.keep_output(state.output)
        # On a terminal downloads are bars, and what is logged of them goes to the file only.
        told = logging.getLogger("model_compose.downloads")
        lines = Lines(lambda component, text: told.info("%s", text, extra={"component": component}))
        bars = Bars(sys.stdout)
        with_bars = log_format == "text" and is_live(sys.stdout)
        if with_bars:
            screen.addFilter(lambda record: record.name != told.name)

        def loaded(well: bool) -> None:
            if parent is not None:
                bars.close()
                logging.getLogger().removeHandler(screen)
                screen.close()
                parent.leave(well=well)

        show = Both(bars, lines) if with_bars else lines
        with contextlib.closing(screen):
            uvloop.run(serve(project, catalog, state, selection.file(), show=show, loaded=loaded))
