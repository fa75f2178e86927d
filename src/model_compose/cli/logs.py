"""`logs`: what did the service and its components say?"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from model_compose.cli.options import AsJson, Selection
from model_compose.cli.terminal import say
from model_compose.errors import ServiceError

if TYPE_CHECKING:
    from model_compose.cli.log import LogLine
    from model_compose.cli.state import StateFolder

_POLL_S: Final = 0.1


def logs(
    context: typer.Context,
    component: Annotated[
        str | None,
        typer.Argument(metavar="COMPONENT", show_default=False, help="Only what is about this one."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until the service ends.")
    ] = False,
    tail: Annotated[int, typer.Option("-n", min=0, metavar="N", help="Begin with the last N lines.")] = 100,
    as_json: AsJson = False,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--file", metavar="FILE", show_default=False, help="The project's file (`-f` is --follow here)."
        ),
    ] = None,
) -> None:
    """Show the log of the service. It is kept when the service has ended."""
    from model_compose.cli.log import LogText
    from model_compose.cli.log import as_json as form_json

    state = Selection.of(context, files).state()
    form: Callable[[LogLine], str] = form_json if as_json else LogText(sys.stdout)
    names = set()
    try:
        newest = state.log.open("rb")
    except FileNotFoundError:
        raise ServiceError("there is no log yet", hint="`model-compose up` writes one") from None
    with newest:
        last: deque[LogLine] = deque(maxlen=tail)
        for line in _decoded(itertools.chain(_older(state.log), newest)):
            names.add(line.component)
            if component in (None, line.component):
                last.append(line)
        for line in last:
            say(form(line))
        if follow:
            for line in _decoded(_coming(newest, state)):
                if component in (None, line.component):
                    say(form(line))
        elif component not in names and not last:
            told = ", ".join(f"`{name}`" for name in sorted(filter(None, names)))
            say(f"the log says nothing about `{component}`, only about {told or 'the service'}", sys.stderr)


def _older(log: Path) -> Iterator[bytes]:
    """The lines of files that were put aside, the oldest first."""
    numbers = sorted((int(path.suffix[1:]) for path in log.parent.glob(f"{log.name}.[0-9]*")), reverse=True)
    for number in numbers:
        yield from log.with_name(f"{log.name}.{number}").read_bytes().splitlines(keepends=True)


def _coming(file: IO[bytes], state: StateFolder) -> Generator[bytes]:
    """The lines that are written from now on, until the service has ended. Closes the file."""
    try:
        while True:
            ended = state.holder() is None  # asked before reading, so that its last words are read
            full = not _is_at(file, state.log)
            yield from _whole_lines(file)
            if full:
                file.close()
                file = state.log.open("rb")
            elif ended:
                return
            else:
                time.sleep(_POLL_S)
    finally:
        file.close()


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Whether an open file is still the one of that name, and has not been put aside."""
    return path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))


def _whole_lines(file: IO[bytes]) -> Iterator[bytes]:
    """What there is to read, without a last line that is still being written."""
    while (line := file.readline()).endswith(b"\n"):
        yield line
    file.seek(-len(line), os.SEEK_CUR)


def _decoded(lines: Iterable[bytes]) -> Iterator[LogLine]:
    from model_compose.cli.log import LogLine

    for line in lines:
        try:
            yield msgspec.json.decode(line, type=LogLine)
        except msgspec.MsgspecError:
            continue  # the service was killed while it wrote this
