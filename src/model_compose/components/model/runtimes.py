"""Where may a model run, and which of the ways to say so make sense?"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

import msgspec

from model_compose.config.spec import DriverSpec, Report, doc
from model_compose.runtime.elsewhere import OLDEST

#: Values of other versions of this format.
LATER_RUNTIMES: Final = dict.fromkeys(("docker", "apple-container"))

_VERSION = re.compile(r"(\d+)\.(\d+)(\.\d+)?")
_CREDENTIALS = re.compile(r"://[^/@\s]*@")


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model runs, written as a map."""

    type: Annotated[
        Literal["native", "process", "virtualenv", "embedded"], doc("see `runtime`", later=LATER_RUNTIMES)
    ]
    path: Annotated[
        str | None,
        doc("of `virtualenv`: the folder of the environment; default: `.venvs/` and the id of the component"),
    ] = None
    requirements: Annotated[
        tuple[str, ...] | str | None,
        doc(
            "of `virtualenv`: what `model-compose install` puts into it, as pip's requirements or the path "
            "of a `requirements.txt`; default: what the driver needs"
        ),
    ] = None
    python: Annotated[
        str | None,
        doc(
            "the interpreter that runs the worker, a path; of `virtualenv`: the one that it is made with, "
            "which may also be a version such as `3.12`; default: that of the service"
        ),
    ] = None


def version_of(python: str) -> tuple[int, int] | None:
    """The version that a text names, None if it is something else."""
    found = _VERSION.fullmatch(python)
    return (int(found[1]), int(found[2])) if found else None


def redacted(text: str) -> str:
    """A text whose URLs may be shown: without users and passwords."""
    return _CREDENTIALS.sub("://", text)


def check_runtime(where: Runtime, driver: DriverSpec | None, report: Report) -> None:
    """Note keys that do not go together, and requirements that pip could not read."""
    for key in ("path", "requirements"):
        if getattr(where, key) is not None and where.type != "virtualenv":
            hint = "write `type: virtualenv` for an environment that `model-compose install` makes"
            report.error(
                f"`{key}` is of `type: virtualenv`, and this is `{where.type}`", "runtime", key, hint=hint
            )
    if where.python is not None:
        _check_python(where.python, where.type, report)
    if where.type != "virtualenv":
        return
    if where.path is not None and not where.path.strip("./~ "):
        report.error("`path` must name a folder of its own", "runtime", "path", hint="such as `.venvs/vllm`")
    if where.requirements is not None:
        _check_requirements(where.requirements, report)
    elif driver is not None and driver.modules and not driver.requirements:
        message = f"`requirements` is missing: what brings `{driver.modules[0]}` into the environment?"
        report.error(
            message,
            "runtime",
            hint=f"write `requirements: [{driver.modules[0]}]`, or what it is called there",
        )


def _check_python(python: str, kind: str, report: Report) -> None:
    if kind == "embedded":
        report.error(f"`python` cannot be chosen with `type: {kind}`", "runtime", "python")
        return
    version = version_of(python)
    if version is not None and kind != "virtualenv":
        hint = "write the path of an interpreter, or `type: virtualenv`"
        report.error(
            f"`python` is the version `{python}`, and must be a path", "runtime", "python", hint=hint
        )
    elif version is not None and version < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        report.error(f"`python` is `{python}`, and workers need {oldest} or newer", "runtime", "python")
    elif version is None and "/" not in python:
        words = "a path, or a version such as `3.12`" if kind == "virtualenv" else "a path"
        hint = f"write `./{python}` for a file beside this one"
        report.error(f"`python` is `{python}`, and must be {words}", "runtime", "python", hint=hint)


def _check_requirements(requirements: tuple[str, ...] | str, report: Report) -> None:
    if isinstance(requirements, str):
        if not requirements.endswith((".txt", ".in")):
            hint = "write a list, such as `[vllm]`, or the path of a `requirements.txt`"
            message = f"`requirements` is `{redacted(requirements)}`, and must be a list or a `.txt` file"
            report.error(message, "runtime", "requirements", hint=hint)
        return
    from packaging.requirements import InvalidRequirement, Requirement  # takes 20 ms

    for i, each in enumerate(requirements):
        try:
            Requirement(each)
        except InvalidRequirement:
            message = f"`{redacted(each)}` is no requirement"
            hint = "such as `vllm==0.32.0`; options of pip, and paths, stand in a `requirements.txt`"
            report.error(message, "runtime", "requirements", i, hint=hint)
