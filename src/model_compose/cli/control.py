"""`restart` and `stop`: how is one component of the running service loaded anew, or put away?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from model_compose.cli.options import Files, Selection
from model_compose.cli.terminal import paint, say
from model_compose.errors import ModelUnavailable

if TYPE_CHECKING:
    from model_compose.runtime.pool import ComponentStatus

Component = Annotated[str, typer.Argument(metavar="COMPONENT", help="Its name in the file.")]


def restart(context: typer.Context, component: Component, files: Files = None) -> None:
    """Load a component anew, in a new worker.

    Requests that it has are served first; new ones wait meanwhile. One that has failed or was stopped
    works again afterwards.
    """
    from model_compose.cli.client import Client

    client = Client(Selection.of(context, files).state())
    before = client.component(component)
    client.restart(component)

    def is_new(status: ComponentStatus) -> bool:
        old = status.pid is not None and status.pid == before.pid  # it still serves what it had
        return status.state == "failed" or (status.state == "ready" and not old)

    status = client.wait(component, is_new)
    if status.state == "failed":
        raise ModelUnavailable(f"`{component}` has failed: {status.error}")
    process = f" (process {status.pid})" if status.pid else ""
    say(f"{component} is {paint('ready', 'green', sys.stdout)}{process}")


def stop(context: typer.Context, component: Component, files: Files = None) -> None:
    """Unload a component, and refuse requests to it until `restart`.

    Requests that it has are served first; those that wait are refused.
    """
    from model_compose.cli.client import Client

    client = Client(Selection.of(context, files).state())
    client.component(component)
    client.stop(component)
    status = client.wait(component, lambda status: status.state in ("unloaded", "failed"))
    say(f"{component} is {status.state}")
