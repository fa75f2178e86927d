"""`install`: how do the Python environments of a project come onto this machine?"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from model_compose.cli.options import EnvFiles, Files, Selection, Variables
from model_compose.cli.terminal import say
from model_compose.errors import BadRequest, ModelComposeError, NotFound, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model_compose.compose.environments import Environment
    from model_compose.compose.models import Model


def install(
    context: typer.Context,
    components: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMPONENT", show_default=False, help="Only of these. Default: of all."),
    ] = None,
    reinstall: Annotated[
        bool, typer.Option("--reinstall", help="Make environments anew that are there already.")
    ] = False,
    files: Files = None,
    env_files: EnvFiles = None,
    variables: Variables = None,
) -> None:
    """Make the Python environments of components with `runtime: virtualenv`.

    Nothing else ever installs anything. What is there as the file wants it stays as it is; what the file
    wants differently is made anew, and takes the place of the old one when it is whole.
    """
    from model_compose.compose.models import models_of

    selection = Selection.of(context, files, env_files, variables)
    catalog = selection.looking()
    environments = _chosen(models_of(selection.project(catalog), catalog), components or ())
    if not environments:
        say("there are no environments to install")
        return
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # to leave nothing half-made, as with Ctrl-C
    errors: list[ModelComposeError] = []
    for environment in environments:
        try:
            _install(environment, anew=reinstall)
        except ModelComposeError as error:
            errors.append(error)
    if errors:
        raise ExceptionGroup("environments could not be made", errors)


def _chosen(models: Sequence[Model], names: Sequence[str]) -> list[Environment]:
    """The environments of these components, each once; of all, if none is named."""
    from model_compose.compose.environments import shared

    known = {model.name: model for model in models}
    for name in names:
        if name not in known:
            raise NotFound(f"there is no model component `{name}`", hint=did_you_mean(name, known))
        if known[name].environment is None:
            hint = "write `runtime: virtualenv` into it to give it one"
            raise BadRequest(f"component `{name}` has no environment of its own", hint=hint)
    every = shared(model.environment for model in models if model.environment is not None)
    return [each for each in every if not names or not set(names).isdisjoint(each.components)]


def _install(environment: Environment, *, anew: bool) -> None:
    from model_compose.compose.install import install as made

    names = ", ".join(environment.components)
    record = made(environment, lambda line: say(f"{names}: {line}", sys.stderr), anew=anew)
    if record is None:
        say(f"{names}: `{environment.path}` is there already")
    else:
        count = len(record.packages)
        packages = f"{count} package{'s' if count != 1 else ''}"
        what = f"Python {record.python}, {packages}, by {record.installer}"
        say(f"{names}: `{environment.path}` is made ({what})")
