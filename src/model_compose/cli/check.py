"""`check`: is a file right?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from model_compose.cli.options import AsJson, EnvFiles, Files, Selection, Variables
from model_compose.cli.terminal import columns, fitted, paint, say, say_json, say_warning
from model_compose.errors import ConfigError, ConfigErrors, Note, Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from model_compose.config.schema import Component, Job, Project, Workflow
    from model_compose.config.spec import Catalog


def check(
    context: typer.Context,
    as_json: AsJson = False,
    files: Files = None,
    env_files: EnvFiles = None,
    variables: Variables = None,
) -> None:
    """Find every mistake of the file. Also `validate`.

    Nothing is started or downloaded. Only the file is judged, and is told which Python environments are
    not installed yet. The exit code is 2 if it is wrong.
    """
    from model_compose.compose.catalog import BuiltIn

    catalog = BuiltIn()
    try:
        project = Selection.of(context, files, env_files, variables).project(catalog)
    except ConfigErrors as errors:
        if as_json:
            say_json({"ok": False, "mistakes": [_mistake(error) for error in errors.errors]})
        raise
    notes = [*project.warnings, *_environments(project, catalog)]
    described = [_described(component, catalog) for component in project.components.values()]
    if as_json:
        warnings = [_at(note.message, note.place) for note in notes]
        workflows = [_workflow(project, name) for name in project.workflows]
        known = {"components": described, "workflows": workflows, "listeners": _listeners(project)}
        say_json({"ok": True, **known, "warnings": warnings})
        return
    for note in notes:
        say_warning(note)
        say("", sys.stderr)
    for line in _summary(project, described):
        say(line)


def _environments(project: Project, catalog: Catalog) -> Iterator[Note]:
    """What `up` would miss of the Pythons that run workers elsewhere, as far as the disk tells."""
    from model_compose.components.model.spec import ModelConfig

    configs = [each.config for each in project.components.values() if isinstance(each.config, ModelConfig)]
    if not any(config.elsewhere for config in configs):
        return
    from model_compose.compose.models import missing_pythons, models_of

    for error in missing_pythons(models_of(project, catalog)):
        yield Note(f"{error}: {error.hint}" if error.hint else str(error))


def _summary(project: Project, described: Sequence[dict[str, Any]]) -> list[str]:
    counts = (_count(len(project.components), "component"), _count(len(project.workflows), "workflow"))
    keys = ("id", "type", "task", "driver", "weights")
    header = ["COMPONENT", *(key.upper() for key in keys[1:])]
    default = project.default_workflow()
    workflows = [
        [f"{w.id} (default)" if w is default else w.id, ", ".join(_calls(w)) or "-"]
        for w in project.workflows.values()
    ]
    return [
        f"{paint('ok', 'green', sys.stdout)}: {', '.join(counts)}",
        "",
        *_fitted([header, *([each[key] or "-" for key in keys] for each in described)]),
        "",
        *_fitted([["WORKFLOW", "CALLS"], *workflows]),
        *_listened(project),
    ]


def _listened(project: Project) -> list[str]:
    """What comes in beside calls of the API, if something does."""
    rows = [
        [f"{each['host']}:{each['port'] or '(any)'}", each["method"], each["path"], each["workflow"] or "-"]
        for each in _listeners(project)
    ]
    return ["", *_fitted([["LISTENS AT", "METHOD", "PATH", "STARTS"], *rows])] if rows else []


def _listeners(project: Project) -> list[dict[str, Any]]:
    """Every path of every listener; one that starts nothing takes answers."""
    return [
        {
            "type": listener.type,
            "host": listener.host,
            "port": listener.port,
            "method": route.method,
            "path": route.path,
            "workflow": getattr(route, "workflow", None),
        }
        for listener in project.listeners
        for route in listener.routes
    ]


def _fitted(rows: Sequence[Sequence[str]]) -> list[str]:
    return [fitted(line, sys.stdout) for line in columns(rows)]


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _described(component: Component, catalog: Catalog) -> dict[str, Any]:
    """What a component is, as far as the file tells."""
    from model_compose.components.model.spec import ModelConfig, chosen_driver, source_of

    config, task, driver, weights = component.config, None, None, None
    if isinstance(config, ModelConfig):
        task, spec = config.task, catalog.task(config.task or "")
        assert spec is not None  # a component whose task is unknown has no configuration here
        driver = chosen_driver(config, spec, catalog)
        weights = None if config.model is None else str(source_of(config.model))
    return {"id": component.id, "type": component.type, "task": task, "driver": driver, "weights": weights}


def _workflow(project: Project, name: str) -> dict[str, Any]:
    workflow = project.workflows[name]
    return {
        "id": name,
        "default": workflow is project.default_workflow(),
        "jobs": [_job(job) for job in workflow.jobs],
    }


def _calls(workflow: Workflow) -> list[str]:
    """The components that its jobs call, each once."""
    return list(dict.fromkeys(job.call.component for job in workflow.jobs if job.call is not None))


def _job(job: Job) -> dict[str, Any]:
    return {"id": job.id, "component": None if job.call is None else job.call.component}


def _mistake(error: ConfigError) -> dict[str, Any]:
    return {
        **_at(error.message, error.place),
        "hint": error.hint,
        "notes": [_at(note.message, note.place) for note in error.notes],
    }


def _at(message: str, place: Place | None) -> dict[str, Any]:
    where = {} if place is None else msgspec.to_builtins(place)
    where.pop("text", None)
    return {"message": message, **where}
