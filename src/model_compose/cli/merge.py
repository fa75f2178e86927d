"""`merge`: how does a model with its adapters become a folder of weights?"""

from __future__ import annotations

import math
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from model_compose.cli.options import EnvFiles, Files, Selection, Variables
from model_compose.cli.terminal import is_live, paint, say
from model_compose.errors import BadRequest, NotFound, Unsupported, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from model_compose.compose.models import Model
    from model_compose.config.spec import Catalog
    from model_compose.drivers.contract import LoadProgress

_STAGES = {"weights": "loading", "adapters": "adding the adapters", "write": "writing"}


def merge(
    context: typer.Context,
    component: Annotated[
        str | None,
        typer.Argument(metavar="COMPONENT", show_default=False, help="Default: the one with adapters."),
    ] = None,
    *,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", show_default=False, help="A folder that is made."),
    ],
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weight",
            metavar="NAME=NUMBER",
            show_default=False,
            help="An adapter's weight, instead of that of the file. May be given several times.",
        ),
    ] = None,
    files: Files = None,
    env_files: EnvFiles = None,
    variables: Variables = None,
) -> None:
    """Write a model with its adapters in its weights.

    The folder holds safetensors, configuration and tokenizer, and can be the `model` of a component.
    """
    _require_free(output)

    from model_compose.cli.downloads import shown_on
    from model_compose.compose.models import fetch, load_options, models_of, require_drivers
    from model_compose.runtime.host import named
    from model_compose.runtime.memory import cores
    from model_compose.sources.disk import size_text

    selection = Selection.of(context, files, env_files, variables)
    catalog = selection.looking()
    project = selection.project(catalog)
    model = _chosen(models_of(project, catalog), component)
    work = _work(model, catalog)
    chosen = _weights(model, weights or ())
    require_drivers([msgspec.structs.replace(model, environment=None, python=None)])  # it is done right here
    show = shown_on(sys.stderr, lambda name, text: say(f"{name}: {text}", sys.stderr))
    loaded = fetch(model, project.folder, show, threading.Event())
    options = load_options(model, loaded, cores(), output.absolute().parent, project.folder)
    adapters = tuple(msgspec.structs.replace(a, weight=chosen[a.name]) for a in options.adapters)
    named(work)(msgspec.structs.replace(options, adapters=adapters), output, _shown(model.name))
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    say(f"{model.name}: written to {output} ({size_text(size)})")
    if options.quantization is not None:
        say("note: the folder is not quantized; `quantization` applies where it is loaded", sys.stderr)


def _require_free(output: Path) -> None:
    """Find out before anything is downloaded. Raises BadRequest."""
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise BadRequest(f"`{output}` is there already, and not an empty folder", hint="name another folder")
    if not output.absolute().parent.is_dir():
        raise BadRequest(f"there is no folder `{output.parent}` to write into")


def _chosen(models: Sequence[Model], name: str | None) -> Model:
    """The component that is named, else the only one with adapters."""
    for model in models:
        if model.name == name:
            if model.config.peft_adapters:
                return model
            raise BadRequest(f"component `{name}` has no `peft_adapters` to merge")
    able = [model for model in models if model.config.peft_adapters]
    if name is not None:
        raise NotFound(
            f"there is no model component `{name}`", hint=did_you_mean(name, [model.name for model in models])
        )
    if len(able) != 1:
        names = ", ".join(f"`{model.name}`" for model in able)
        message = f"several components have adapters: {names}" if able else "no component has `peft_adapters`"
        raise BadRequest(message, hint="name one of them" if able else None)
    return able[0]


def _work(model: Model, catalog: Catalog) -> str:
    """What merges for the driver of a component. Raises Unsupported if there is nothing."""
    if model.driver.merge is not None:
        return model.driver.merge
    drivers = [driver for name in catalog.drivers() if (driver := catalog.driver(name)) is not None]
    able = ", ".join(f"`{driver.name}`" for driver in drivers if driver.merge is not None)
    raise Unsupported(
        f"driver `{model.driver.name}` of component `{model.name}` cannot merge adapters",
        hint=f"drivers that can: {able}" if able else None,
    )


def _weights(model: Model, given: Sequence[str]) -> Mapping[str, float]:
    """The weight of each adapter: as given, else the number in the file. Raises BadRequest."""
    from model_compose.components.model.spec import adapter_name

    chosen: dict[str, float | None] = {
        adapter_name(adapter, i): adapter.weight if isinstance(adapter.weight, int | float) else None
        for i, adapter in enumerate(model.config.peft_adapters)
    }
    for text in given:
        name, _, number = text.partition("=")
        if name not in chosen:
            raise BadRequest(f"there is no adapter `{name}`", hint=did_you_mean(name, chosen))
        try:
            chosen[name] = weight = float(number)
        except ValueError:
            weight = math.nan
        if not math.isfinite(weight):
            raise BadRequest(f"`{number}` is no weight of adapter `{name}`", hint="write `--weight NAME=0.5`")
    open_ = [name for name, value in chosen.items() if value is None]
    if open_:
        raise BadRequest(
            f"the weight of adapter `{open_[0]}` depends on the input",
            hint=f"choose one: `--weight {open_[0]}=1.0`",
        )
    return {name: value for name, value in chosen.items() if value is not None}


def _shown(name: str) -> LoadProgress:
    """Says on a terminal what takes so long."""
    said: list[str] = []

    def show(stage: str, done: int, total: int) -> None:
        if is_live(sys.stderr) and stage not in said:
            said.append(stage)
            say(paint(f"{name}: {_STAGES.get(stage, stage)}", "dim", sys.stderr), sys.stderr)

    return show
