"""Which commands are there, and what does a shell hear of their errors?

Exit codes: 0, 1 when something failed, 2 when the file or the arguments are wrong, 130 after Ctrl-C.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from model_compose.about import COMMAND
from model_compose.cli import (
    cache,
    check,
    control,
    down,
    init,
    install,
    logs,
    mcp,
    merge,
    ps,
    pull,
    run,
    schema,
    up,
)
from model_compose.cli.options import Common, EnvFiles, Files, Selection, Variables
from model_compose.cli.terminal import say, say_error
from model_compose.errors import (
    BadRequest,
    ConfigError,
    ConfigErrors,
    InvalidInput,
    ModelComposeError,
    NotFound,
    ServiceError,
)

_FAILED, _WRONG, _STOPPED = 1, 2, 130

#: Errors that lie in the file or the arguments; all others are failures.
_MISTAKES = (ConfigError, ConfigErrors, BadRequest, InvalidInput, NotFound)


class Commands(TyperGroup):
    """The commands. Errors of ours become a text on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the arguments name."""
        try:
            result = super().invoke(ctx)
            _flush()
            return result
        except ModelComposeError as error:
            _show([error], verbose=ctx.params["verbose"])
            raise typer.Exit(_exit_code(error)) from None
        except ExceptionGroup as group:
            ours, others = group.split(ModelComposeError)
            if others is not None or ours is None:
                raise
            _show(ours.exceptions, verbose=ctx.params["verbose"])
            raise typer.Exit(_FAILED) from None
        except KeyboardInterrupt:
            raise typer.Exit(_STOPPED) from None
        except BrokenPipeError:
            raise  # whoever read our output has gone, as `head` does: typer ends us in silence
        except OSError as error:
            _let_go_of_output()
            where = f": `{error.filename}`" if error.filename else ""
            _show([ServiceError(f"{error.strerror or error}{where}")], verbose=ctx.params["verbose"])
            raise typer.Exit(_FAILED) from None


def _flush() -> None:
    """Write what is still to be written, while an error of it can be told; that nobody reads it is none."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _let_go_of_output()


def _let_go_of_output() -> None:
    """What could not be written would be tried once more when Python ends, and change the exit code."""
    with contextlib.suppress(OSError, ValueError):  # such as a stream without a file
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _exit_code(error: ModelComposeError) -> int:
    return _WRONG if isinstance(error, _MISTAKES) else _FAILED


def _show(errors: Sequence[Exception], *, verbose: bool) -> None:
    for i, error in enumerate(errors):
        assert isinstance(error, ModelComposeError)
        if verbose:
            traceback.print_exception(error)
        if i:
            say("", sys.stderr)
        say_error(error)


def _print_version(wanted: bool) -> None:
    if wanted:
        schema.version()
        raise typer.Exit


def _common(
    context: typer.Context,
    files: Files = None,
    env_files: EnvFiles = None,
    variables: Variables = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log more, and show where errors come from.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    context.obj = Common(Selection.of(context, files, env_files, variables), verbose)


def commands() -> typer.Typer:
    """The whole command line."""
    app = typer.Typer(
        cls=Commands,
        help="One YAML file becomes a running service of local AI models.",
        epilog=f"`{COMMAND} init` writes a file to start from, `{COMMAND} up` serves it.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(_common)
    for command in (
        *(init.init, check.check, install.install, pull.pull, up.up, down.down, ps.ps, logs.logs, run.run),
        *(control.restart, control.stop, merge.merge, mcp.mcp),
    ):
        app.command()(command)
    app.command("validate", hidden=True)(check.check)
    app.add_typer(cache.cache, name="cache")
    app.command("schema")(schema.schema)
    app.command("version")(schema.version)
    return app


def main() -> None:
    """Run the command line."""
    _open_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A model may answer with characters that an old locale does not have; stderr copes by itself.
        sys.stdout.reconfigure(errors="replace")
    commands()(prog_name=COMMAND)


def _open_streams() -> None:
    """Stand in for standard streams that are closed, as `>&-` and some daemons close them.

    Else the next files to be opened, such as the pipe of `up -d`, would be taken for them.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)  # has the lowest free number, which is its own
            os.set_inheritable(null, True)
            setattr(sys, name, os.fdopen(null, "w" if number else "r", encoding="utf-8"))
