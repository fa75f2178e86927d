"""`ps`: what do the components do?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import typer

from model_compose.cli.options import AsJson, EnvFiles, Files, Selection, Variables
from model_compose.cli.terminal import Style, columns, fitted, paint, say, say_json
from model_compose.sources.disk import size_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_compose.runtime.pool import ComponentStatus

_HEADER: Final = ["COMPONENT", "STATE", "MEMORY", "ACTIVE", "QUEUE", "PID", "ENGINE"]
_COLOURS: Final[dict[str, Style]] = {
    "ready": "green",
    "loading": "yellow",
    "failed": "red",
    "unloaded": "dim",
}


def ps(
    context: typer.Context,
    as_json: AsJson = False,
    files: Files = None,
    env_files: EnvFiles = None,
    variables: Variables = None,
) -> None:
    """Show the components of the running service.

    ACTIVE counts the requests that a worker has, QUEUE those that wait for one. The exit code is 1 if
    no service runs.
    """
    from model_compose.cli.client import Client

    selection = Selection.of(context, files, env_files, variables)
    state = selection.state()
    if state.holder() is None:
        _show(_unloaded(selection), as_json)
    _show(Client(state).components(), as_json)


def _unloaded(selection: Selection) -> list[ComponentStatus]:
    """The components of the file, as they are where no service runs."""
    from model_compose.compose.catalog import BuiltIn
    from model_compose.runtime.pool import ComponentStatus

    components = selection.project(BuiltIn()).components
    return [ComponentStatus(name, "unloaded", {}, 0, 0, type=c.type) for name, c in components.items()]


def _show(components: Sequence[ComponentStatus], as_json: bool) -> None:
    if as_json:
        say_json(components)
        return
    header, *lines = columns([_HEADER, *map(_row, components)])
    say(fitted(header, sys.stdout))
    start = header.index("STATE")
    for line, status in zip(lines, components, strict=True):
        # Colours come last: their codes would count as characters.
        shown, end = fitted(line, sys.stdout), start + len(str(status))
        say(shown[:start] + paint(shown[start:end], _COLOURS[status.state], sys.stdout) + shown[end:])
    for status in components:
        if status.error and status.state == "failed":
            say(f"\n{paint(status.name, 'bold', sys.stdout)}: {status.error}")


def _row(status: ComponentStatus) -> list[str]:
    info = status.info
    engine = [f"{key} {value}" for key, value in info.details.items()] if info else []
    if info and info.context_length:
        engine.insert(0, f"{info.slots} x {info.context_length} tokens")
    if status.python is not None:
        engine.append(f"python {status.python.version} at {status.python.path}")
    memory = [
        size_text(n_bytes) if pool == "host" else f"{pool} {size_text(n_bytes)}"
        for pool, n_bytes in status.memory.items()
    ]
    return [
        status.name,
        str(status),
        ", ".join(memory) or "-",
        str(status.active),
        str(status.waiting),
        str(status.pid or "-"),
        ", ".join(engine) or "-",
    ]
