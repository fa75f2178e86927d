"""Which options do several commands have, and what do they mean together?"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

if TYPE_CHECKING:
    from model_compose.cli.state import StateFolder
    from model_compose.compose.inference import WithWeights
    from model_compose.config.schema import Project
    from model_compose.config.spec import Catalog

Files = Annotated[
    list[Path] | None,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        show_default=False,
        help="The project's file, instead of ./model-compose.yml. Several are merged in their order.",
    ),
]
EnvFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--env-file",
        metavar="FILE",
        show_default=False,
        help="A file of variables, instead of ./.env. Of several, the later ones win.",
    ),
]
Variables = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        "-e",
        metavar="NAME=VALUE",
        show_default=False,
        help="A variable that wins over files and the environment. May be given several times.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


class Selection(msgspec.Struct, frozen=True):
    """The files and variables that make a project."""

    files: tuple[Path, ...] = ()
    env_files: tuple[Path, ...] = ()
    variables: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        context: typer.Context,
        files: list[Path] | None,
        env_files: list[Path] | None = None,
        variables: list[str] | None = None,
    ) -> Selection:
        """What stands before the command and after it, taken together."""
        before = (context.find_object(Common) or Common()).selection
        return cls(
            (*before.files, *(files or ())),
            (*before.env_files, *(env_files or ())),
            (*before.variables, *(variables or ())),
        )

    def project(self, catalog: Catalog) -> Project:
        """The checked project. Raises ConfigErrors."""
        from model_compose.config.environment import Environment
        from model_compose.config.project import load_project

        environment = Environment.collect(Path(), self.env_files, self.variables, os.environ)
        return load_project(self.files, environment, catalog)

    def looking(self, *, download: bool = True) -> WithWeights:
        """A catalog that looks at weights where the file names no task. Raises as `file` does."""
        from model_compose.cli.downloads import shown_on
        from model_compose.cli.terminal import say
        from model_compose.compose.inference import WithWeights

        show = shown_on(sys.stderr, lambda name, text: say(f"{name}: {text}", sys.stderr))
        return WithWeights(self.file().parent, (lambda: show("weights")) if download else None)

    def file(self) -> Path:
        """The first file, absolute. Raises ConfigErrors if none is named and there is none."""
        from model_compose.config.load import find

        return (self.files[0] if self.files else find(Path())).absolute()

    def state(self) -> StateFolder:
        """The state folder, beside the first file. The file itself may be gone or wrong."""
        from model_compose.cli.state import StateFolder

        folder = self.files[0].parent if self.files else Path()
        return StateFolder(folder.resolve() / ".model-compose")

    def arguments(self) -> list[str]:
        """These options again, for another process in the same folder."""
        given = [("--file", self.files), ("--env-file", self.env_files), ("--env", self.variables)]
        return [word for option, values in given for value in values for word in (option, str(value))]


class Common(msgspec.Struct, frozen=True):
    """Options that stand before the command."""

    selection: Selection = Selection()
    verbose: bool = False


def is_verbose(context: typer.Context) -> bool:
    """Whether `-v` was given."""
    common = context.find_object(Common)
    return common is not None and common.verbose
