"""`down`: how is the service stopped from outside?"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from model_compose.cli.options import EnvFiles, Files, Selection, Variables
from model_compose.cli.terminal import say
from model_compose.errors import ModelComposeError

if TYPE_CHECKING:
    from model_compose.cli.state import StateFolder

_POLL_S: Final = 0.05
#: What ending its workers may take, after its runs.
_GRACE_S: Final = 30.0


def down(
    context: typer.Context,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            show_default=False,
            help="Kill it after so long. Default: half a minute longer than it gives its runs.",
        ),
    ] = None,
    files: Files = None,
    env_files: EnvFiles = None,
    variables: Variables = None,
) -> None:
    """Stop the service of this folder.

    Runs under way get the time that `controller.shutdown_timeout` gives them. Then the commands run that
    the file names as `clean`.
    """
    selection = Selection.of(context, files, env_files, variables)
    state = selection.state()
    pid = state.holder()
    if pid is None:
        say("no service runs for this folder")
        return
    if timeout is None:
        service = state.service()
        timeout = (service.shutdown_timeout if service else 0.0) + _GRACE_S
    _send(pid, signal.SIGTERM)
    if _gone(state, pid, timeout):
        say(f"stopped (process {pid})")
    else:
        # Its workers do not outlive it: the reaper sees to that.
        _send(pid, signal.SIGKILL)
        _gone(state, pid, float("inf"))
        say(f"killed after {timeout:g} s (process {pid})")
    _clean(selection, state)


def _clean(selection: Selection, state: StateFolder) -> None:
    """Run what the file wants to be run now. A file that is gone or wrong keeps nobody from stopping."""
    import asyncio
    import logging

    from model_compose.cli import log
    from model_compose.compose import components
    from model_compose.compose.catalog import BuiltIn

    catalog = BuiltIn()
    try:
        project = selection.project(catalog)
    except ModelComposeError:
        say("the file cannot be read any more, so nothing of it is cleaned up", sys.stderr)
        return
    if not any(key == "clean" for _, key, _ in components.commands(project, catalog)):
        return
    screen = log.Screen(lambda: sys.stdout, log.LogText(sys.stdout))
    log.set_up(screen, level=logging.INFO)
    with contextlib.closing(screen):
        asyncio.run(components.clean(project, catalog, state.path))


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _gone(state: StateFolder, pid: int, timeout_s: float) -> bool:
    """Wait until the service has let go of its folder; -> whether it did in this time."""
    ends = time.monotonic() + timeout_s
    while state.holder() == pid:
        if time.monotonic() > ends:
            return False
        time.sleep(_POLL_S)
    return True
