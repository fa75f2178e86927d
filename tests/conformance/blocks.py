"""How does a test get a block that runs, and what is there to be told of one that does not?"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from tests.compose.apps import output_of
from tests.conformance import repositories
from tests.conformance.cases import CASES
from tests.fakes.hub import FakeHub

from model_compose.compose import models
from model_compose.compose.app import App
from model_compose.compose.inference import WithWeights
from model_compose.config.environment import Environment, Value
from model_compose.config.project import load_project
from model_compose.config.schema import Project
from model_compose.drivers.contract import LoadOptions
from model_compose.errors import ConfigError, ConfigErrors
from model_compose.sources.progress import Silent
from model_compose.sources.spec import LoadedSource, Source

NO_VARIABLES: Mapping[str, str] = {}


class Hub(FakeHub):
    """A hub that knows what toys to offer under a name."""

    def offer(self, *names: str, **how: Any) -> None:
        """Make repositories what the blocks expect."""
        for name in names:
            self.add(name, repositories.files_of(name), **how)


def block(number: int, **replaced: str) -> str:
    """The text of a block; only paths and ports may be replaced, and each must be there."""
    return changed(CASES[number].text, replaced)


def changed(text: str, replaced: Mapping[str, str]) -> str:
    for old, new in replaced.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def project_of(text: str, folder: Path, variables: Mapping[str, str] = NO_VARIABLES) -> Project:
    """What `check` makes of a file, with a look at the weights where it needs one."""
    path = folder / "model-compose.yml"
    path.write_text(text, encoding="utf-8")
    return load_project([path], _environment(variables), WithWeights(folder, Silent))


def _environment(variables: Mapping[str, str]) -> Environment:
    return Environment({name: Value(text, "a test") for name, text in variables.items()})


def mistakes_of(
    text: str, folder: Path, variables: Mapping[str, str] = NO_VARIABLES
) -> tuple[ConfigError, ...]:
    """All that `check` finds wrong, which looks at no weights that are not here."""
    path = folder / "model-compose.yml"
    path.write_text(text, encoding="utf-8")
    try:
        load_project([path], _environment(variables), WithWeights(folder, None))
    except ConfigErrors as errors:
        return tuple(errors.errors)
    return ()


def planned(
    text: str, folder: Path, variables: Mapping[str, str] = NO_VARIABLES
) -> tuple[models.Model, LoadOptions]:
    """The only model of a file, and what its driver is told. Nothing is fetched."""
    project = project_of(text, folder, variables)
    (model,) = models.models_of(project, WithWeights(folder, Silent))
    sources = [_absent(source) for source in model.sources()]
    return model, models.load_options(model, sources, 2, folder, folder)


def _absent(source: Source) -> LoadedSource:
    return LoadedSource(path="/nowhere", format=None, revision=None, origin=str(source), size_bytes=0)


@contextlib.asynccontextmanager
async def running(text: str, folder: Path, variables: Mapping[str, str] = NO_VARIABLES) -> AsyncIterator[App]:
    """An app for a file until the end of the block; it may still be loading."""
    project = project_of(text, folder, variables)
    with tempfile.TemporaryDirectory(prefix="state-") as state:
        app = App(project, WithWeights(folder, Silent), progress=lambda _: Silent(), state=Path(state))
        async with app:
            yield app


async def answered(text: str, folder: Path, given: Any, variables: Mapping[str, str] = NO_VARIABLES) -> Any:
    """What a file answers to one request."""
    async with running(text, folder, variables) as app:
        return await output_of(app, given)


async def together(app: App, given: list[Any]) -> list[Any]:
    """What callers get who come at the same time."""
    return list(await asyncio.gather(*(output_of(app, each) for each in given)))
