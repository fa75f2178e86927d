"""`run`: how does a workflow run once, without a service?"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from mimetypes import guess_type
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from model_compose.cli.options import EnvFiles, Files, Selection, Variables, is_verbose
from model_compose.cli.terminal import say, say_json
from model_compose.errors import BadRequest
from model_compose.types import Blob, for_json, plain


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
    uploads: Annotated[
        list[str] | None,
        typer.Option(
            "--upload", "-u", metavar="FIELD=FILE", show_default=False, help="A file as a field of the input."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            show_default=False,
            help="Write the result to a file; of several images each gets a number.",
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
    value = with_uploads(read_input(given), uploads or ())
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
        say_json(ended.record().for_json())
    if ended.error is not None:
        raise ended.error
    if output is not None:
        for path, content in contents(output, ended.output):
            write_result(path, content)
            say(f"written to {path}", sys.stderr)
    elif files_in(ended.output) and not as_json:
        sizes = ", ".join(f"{each.media_type}, {len(each.data):,} bytes" for each in files_in(ended.output))
        say(f"{sizes}; `-o FILE` writes it", sys.stderr)
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


def with_uploads(value: Any, uploads: Sequence[str]) -> Any:
    """An input with files in fields of it; several of one field are a list.

    uploads  `FIELD=FILE` each
    Raises BadRequest for a file that cannot be read, and for an input that is no map.
    """
    if not uploads:
        return value
    if not isinstance(value, dict | None):
        raise BadRequest("with `--upload`, the input is a map of the other fields")
    found: dict[str, Any] = dict(value or {})
    for upload in uploads:
        field, equals, name = upload.partition("=")
        if not (field and equals and name):
            raise BadRequest(f"`--upload {upload}` names no field and file", hint="such as `image=photo.png`")
        path = Path(name).expanduser()
        blob = Blob(guess_type(path.name)[0] or "application/octet-stream", _bytes(path), path.name)
        before = found.get(field)
        found[field] = blob if before is None else [*(before if isinstance(before, list) else [before]), blob]
    return found


def _read(path: Path) -> str:
    hint = "text that begins with @ is written as JSON, in double quotes"
    return _decoded(_bytes(path, hint), f"`{path}`")


def _bytes(path: Path, hint: str | None = None) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadRequest(f"`{path}` cannot be read: {error.strerror}", hint=hint) from None


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

    def show(self, pieces: list[Any], *, items: bool) -> None:
        """Print pieces that came together; `items` of a list have a line each."""
        for value in map(for_json, pieces):
            text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
            text = text if isinstance(value, str) and not items else f"{text}\n"
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
    value = for_json(result)
    if isinstance(value, str):
        return value
    return f"{msgspec.json.format(msgspec.json.encode(value)).decode()}\n"


def _require_folder(output: Path) -> None:
    """Find out before the model runs. Raises BadRequest."""
    if output.is_dir():
        raise BadRequest(f"`{output}` is a folder", hint="name a file in it")
    if not output.exists() and not output.resolve().parent.is_dir():
        raise BadRequest(f"there is no folder `{output.parent}` to write into")


def files_in(result: Any) -> list[Blob]:
    """The files that a result is, one or several; none if it is anything else."""
    value = plain(result)
    several = value if isinstance(value, list) else [value]
    return several if several and all(isinstance(each, Blob) for each in several) else []


def contents(output: Path, result: Any) -> list[tuple[Path, bytes]]:
    """What is written where: a file as its bytes, several of them as `name-1.png` and so on."""
    files = files_in(result)
    if not files:
        return [(output, _as_text(result).encode())]
    if len(files) == 1:
        return [(output, files[0].data)]
    return [(output.with_stem(f"{output.stem}-{i}"), blob.data) for i, blob in enumerate(files, 1)]


def write_result(output: Path, content: bytes) -> None:
    """Write a file in one step: it is there as a whole, or as it was before."""
    if output.exists() and not output.is_file():  # such as /dev/stdout
        output.write_bytes(content)
        return
    target = output.resolve()
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        draft.write_bytes(content)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
