"""`run`: how does a workflow run once, without a service?"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from model_compose.cli.options import EnvFiles, Files, Selection, Variables, is_verbose
from model_compose.cli.terminal import say, say_json
from model_compose.errors import BadRequest
from model_compose.types import plain


def run(
    context: typer.Context,
    workflow: Annotated[
        str | None,
        typer.Argument(metavar="WORKFLOW", show_default=False, help="Default: the default one."),
    ] = None,
    given: Annotated[
        str | None,
        typer.Option(
            "--input",
            "-i",
            metavar="INPUT",
            show_default=False,
            help="JSON, or plain text as the prompt. @FILE reads it from a file, - from stdin.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", show_default=False, help="Write the result to a file."
        ),
    ] = None,
    no_stream: Annotated[
        bool, typer.Option("--no-stream", help="Print text when it is complete, not as it comes.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the run as JSON: status, output, usage, times.")
    ] = False,
    files: Files = None,
    env_files: EnvFiles = None,
    variables: Variables = None,
) -> None:
    """Run a workflow once, and print its result.

    Loads what the workflow needs, and nothing else. No service has to run.
    """
    value = read_input(given)
    if output is not None:
        _require_folder(output)

    import asyncio

    from model_compose.cli.once import run_once, set_up_log

    set_up_log(verbose=is_verbose(context))
    selection = Selection.of(context, files, env_files, variables)
    catalog = selection.looking()
    project = selection.project(catalog)
    printer = _Printer()
    show = None if no_stream or as_json or output is not None else printer.show
    try:
        ended = asyncio.run(run_once(project, catalog, workflow, value, show))
    finally:
        printer.end_line()
    if as_json:
        say_json(ended.record())
    if ended.error is not None:
        raise ended.error
    if output is not None:
        write_result(output, _as_text(ended.output))
        say(f"written to {output}", sys.stderr)
    elif not as_json and not printer.printed:
        say(_as_text(ended.output).removesuffix("\n"))


def read_input(given: str | None) -> Any:
    """The value of `-i`: a JSON map, list or text; anything else is a prompt as it stands.

    Raises BadRequest when a file cannot be read, or when what begins like a map or a list is no JSON.
    """
    if given is None:
        return None
    if given == "-":
        text, where = _decoded(sys.stdin.buffer.read(), "the input from stdin"), "the input from stdin"
    elif given.startswith("@"):
        text, where = _read(Path(given[1:])), f"`{given[1:]}`"
    else:
        text, where = _typed(given), "the input"

    import json

    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if not text.lstrip().startswith(("{", "[")):
            return text.removesuffix("\n")
        place = f"line {error.lineno}, column {error.colno}"
        hint = "text that begins with a bracket is written as JSON, in double quotes"
        raise BadRequest(f"{where} is not JSON: {error.msg} at {place}", hint=hint) from None
    if not isinstance(value, dict | list | str):
        return text.removesuffix("\n")
    try:
        msgspec.json.encode(value)
    except UnicodeEncodeError:
        raise BadRequest(f"{where} has half of a surrogate pair, which no text has") from None
    return value


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        hint = "text that begins with @ is written as JSON, in double quotes"
        raise BadRequest(f"`{path}` cannot be read: {error.strerror}", hint=hint) from None
    return _decoded(content, f"`{path}`")


def _typed(given: str) -> str:
    """An argument, which Python has decoded by the locale; where that failed, as the UTF-8 that it is."""
    try:
        given.encode()
    except UnicodeEncodeError:
        return _decoded(os.fsencode(given), "the input")
    return given


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"{where} is not UTF-8 text: byte {error.start + 1} is wrong") from None


class _Printer:
    """Prints the pieces of a stream as they come: text as it is, anything else as lines of JSON."""

    def __init__(self) -> None:
        self.printed = False
        self._last = "\n"

    def show(self, pieces: list[Any]) -> None:
        """Print pieces that came together."""
        for value in map(plain, pieces):
            text = value if isinstance(value, str) else f"{msgspec.json.encode(value).decode()}\n"
            if text:
                sys.stdout.write(text)
                self.printed, self._last = True, text[-1]
        sys.stdout.flush()

    def end_line(self) -> None:
        """Put what is printed next, an error perhaps, on a line of its own."""
        if self._last != "\n":
            say("")


def _as_text(result: Any) -> str:
    """Text as it is, anything else as indented JSON."""
    value = plain(result)
    if isinstance(value, str):
        return value
    return f"{msgspec.json.format(msgspec.json.encode(value)).decode()}\n"


def _require_folder(output: Path) -> None:
    """Find out before the model runs. Raises BadRequest."""
    if output.is_dir():
        raise BadRequest(f"`{output}` is a folder", hint="name a file in it")
    if not output.exists() and not output.resolve().parent.is_dir():
        raise BadRequest(f"there is no folder `{output.parent}` to write into")


def write_result(output: Path, text: str) -> None:
    """Write a file in one step: it is there as a whole, or as it was before."""
    if output.exists() and not output.is_file():  # such as /dev/stdout
        output.write_text(text, encoding="utf-8")
        return
    target = output.resolve()
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
