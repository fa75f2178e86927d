"""What does the reference say? Pages about keys, parameters, errors, metrics and commands, from the code.

Also, from the cases of `tests/conformance`, what of the format's own documentation is tested, and how.

    python scripts/reference.py [FOLDER]

writes them, by default to docs/reference.
"""

from __future__ import annotations

import inspect
import json
import math
import runpy
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
from typer.testing import CliRunner

from model_compose import errors
from model_compose.about import COMMAND, install_command
from model_compose.api.metrics import Metrics
from model_compose.api.status import status_of
from model_compose.cli.main import commands
from model_compose.compose.catalog import BuiltIn
from model_compose.config.annotations import in_words, members
from model_compose.config.job_keys import KEYS_OF
from model_compose.config.listeners import CallbackKeys, ListenerKeys, TriggerKeys
from model_compose.config.quantities import Percent
from model_compose.config.schema import (
    ActionKeys,
    ComponentKeys,
    Controller,
    JobKeys,
    Settings,
    WebUi,
    WorkflowKeys,
)
from model_compose.config.spec import Field, TaskSpec, fields_of
from model_compose.drivers.contract import Outcome
from model_compose.runtime.pool import ComponentStatus
from model_compose.types import Result, Usage

ROOT = Path(__file__).parents[1]
CATALOG = BuiltIn()
WIDTH = 100

Struct = type[msgspec.Struct]


def file_page() -> Iterator[str]:
    """Keys of a file."""
    yield heading(1, "File")
    yield (
        f"Every key of a `{COMMAND}.yml`. Keys that begin with `x-` are free. What the keys mean together is "
        "told in [configuration](../guides/configuration.md).\n"
    )
    yield heading(2, "Top of the file")
    yield (
        "| key | is |\n|---|---|\n"
        "| `controller` | how the service is reached |\n"
        "| `component`, `components` | one component, or a list of them |\n"
        "| `workflow`, `workflows` | one workflow, or a list of them |\n"
        "| `listener`, `listeners` | one listener, or a list of them |\n" + rows(fields_of(Settings)) + "\n"
    )
    yield from section(2, "controller", Controller)
    yield from section(2, "webui of the controller", WebUi)
    yield from section(2, "A listener", ListenerKeys)
    yield from section(2, "A callback, of a listener of type http-callback", CallbackKeys)
    yield from section(2, "A trigger, of a listener of type http-trigger", TriggerKeys)
    yield from section(2, "A component of any type", ComponentKeys)
    for name in CATALOG.components():
        spec = CATALOG.component(name)
        assert spec is not None
        yield from section(2, f"type: {name}", spec.config, spec.summary)
    yield from section(2, "An action", ActionKeys)
    yield "Beside these it has the parameters of its component: those of a [task](tasks.md), for a model.\n"
    yield from section(2, "A workflow", WorkflowKeys)
    yield "And `job` or `jobs`, or the keys of its only job.\n"
    yield from section(2, "A job", JobKeys)
    for name, struct in KEYS_OF.items():
        if name != "action":
            yield from section(3, f"type: {name}", struct)


def tasks_page() -> Iterator[str]:
    """What models do."""
    yield heading(1, "Tasks")
    yield (
        "Parameters stand in an action, in its `params`, or in the component if that has one action; any of "
        "them may be an expression, `${...}`.\n"
    )
    for task in tasks():
        yield from section(2, task.name, task.request, task.summary)
        yield f"A text alone, as the input of a workflow or of `{COMMAND} run`, is `{task.main}`.\n"
        yield heading(3, f"Result of {task.name}")
        yield from results(task.result)
        if task.chunk is not None:
            yield "As a stream it comes in pieces, `${result[]}`:\n"
            yield from results(task.chunk)
        names = ", ".join(f"[`{name}`](drivers.md#{name})" for name in able(task))
        yield f"Drivers: {names}.\n"


def drivers_page() -> Iterator[str]:
    """Engines, and what each of them has."""
    yield heading(1, "Drivers")
    for name in CATALOG.drivers():
        driver = CATALOG.driver(name)
        assert driver is not None
        about = [driver.summary]
        if driver.extra:
            about.append(f"To be installed with `{install_command(driver.extra)}`.")
        if driver.requirements:
            required = ", ".join(f"`{each}`" for each in driver.requirements)
            about.append(f"With `runtime: virtualenv`, `{COMMAND} install` brings {required}.")
        if driver.formats:
            formats = " and ".join(f"`{each}`" for each in driver.formats)
            about.append(f"Weights in the format {formats} select it.")
        yield from section(2, name, driver.options, " ".join(about), "Keys below `options`:\n\n")
        if driver.refuses:
            yield f"Keys of a component that it does not have:\n\n{reasons(driver.refuses)}"
    yield heading(2, "Parameters")
    yield "Which driver has which parameter of a task; where it has not, why.\n"
    for task in tasks():
        yield heading(3, task.name)
        engines = able(task)
        lines = [f"| | {' | '.join(engines)} |", "|---" * (len(engines) + 1) + "|"]
        for field in fields_of(task.request):
            cells = [cell(refused(task, engine).get(field.name, "yes")) for engine in engines]
            lines.append(f"| `{field.name}` | {' | '.join(cells)} |")
        yield "\n".join(lines) + "\n"


def errors_page() -> Iterator[str]:
    """Errors and their statuses."""
    yield heading(1, "Errors")
    yield (
        "An error over HTTP is a JSON object: `detail` says what happened, `type` is one of the words below, "
        "`hint` says what to do, and some have more: `field`, or `size`, `limit` and `unit`, or "
        "`retry_after_s`. In a run that has begun, they are `error`, `error_type` and `hint`.\n"
    )
    lines = ["| type | status | is |", "|---|---|---|"]
    for cls in kinds(errors.ModelComposeError):
        status = status_of(cls.__new__(cls))
        about = "What nobody foresaw; the log has it." if cls is errors.ModelComposeError else first_line(cls)
        lines.append(f"| `{cls.code}` | {int(status)} {status.phrase} | {cell(about)} |")
    yield "\n".join(lines) + "\n"
    yield (
        f"The command line ends with 2 for what lies in the file or the arguments, and with 1 for everything "
        f"else that fails; see [`{COMMAND}`](cli.md).\n"
    )


def metrics_page() -> Iterator[str]:
    """What `/metrics` shows."""
    yield heading(1, "Metrics")
    yield "`GET /metrics`, for Prometheus. `model_name` is the id of a component.\n"
    lines = ["| name | type | labels | is |", "|---|---|---|---|"]
    for family in measured().registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = dict.fromkeys(key for sample in family.samples for key in sample.labels if key != "le")
        names = ", ".join(f"`{label}`" for label in labels)
        lines.append(f"| `{name}` | {family.type} | {names} | {cell(family.documentation)} |")
    yield "\n".join(lines) + "\n"


def measured() -> Metrics:
    """Metrics after one call and one run, so that all have their labels."""
    metrics = Metrics()
    outcome = Outcome(None, Usage(1, 2), "stop")
    times = SimpleNamespace(submitted=0.0, served=1.0, first_chunk=2.0, ended=3.0)
    call = cast("Any", SimpleNamespace(model="model", times=times, result=lambda: outcome))
    metrics.ended(call, None)
    metrics.ended(call, errors.EngineError(""))
    metrics.run_ended(cast("Any", SimpleNamespace(workflow_id="workflow", status="completed")))
    status = ComponentStatus("model", "ready", {"host": 1}, 0, 0, metrics={"tokens": 1.0})
    metrics.watch(cast("Any", SimpleNamespace(status=lambda: [status])))
    return metrics


def cli_page() -> Iterator[str]:
    """Commands and their options."""
    app = commands()
    runner = CliRunner(env={"COLUMNS": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb"})

    def usage(*words: str) -> str:
        found = runner.invoke(app, [*words, "--help"], prog_name=COMMAND)
        if found.exit_code:
            raise SystemExit(found.output)
        return f"```text\n{found.output.strip()}\n```\n"

    yield heading(1, "Command line")
    yield usage()
    for command in [*app.registered_commands]:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        if not command.hidden:
            yield heading(2, name)
            yield usage(name)
    for group in app.registered_groups:
        assert group.typer_instance is not None
        for command in group.typer_instance.registered_commands:
            assert command.callback is not None
            words = (str(group.name), command.name or command.callback.__name__)
            yield heading(2, " ".join(words))
            yield usage(*words)


def conformance_page() -> Iterator[str]:
    """What each block of the documentation of the format shows, and how it is tested."""
    cases = runpy.run_path(str(ROOT / "tests" / "conformance" / "cases.py"))["CASES"].values()
    yield heading(1, "Conformance")
    yield (
        "The documentation of the format shows its models, servers and workflows in "
        f"{len(cases)} blocks of YAML, here in their order. `tests/conformance` has each of them as it "
        "stands, but for paths and ports, and sees that it does what it promises: on the real thing "
        "(*run*), on one of the same kind that is small (*run on a stand-in*), or, where it needs what few "
        "machines have, up to what the driver is told (*checked up to the plan*).\n"
    )
    lines = ["| block | shows | tested | notes |", "|---|---|---|---|"]
    lines += [f"| {c.number} | {cell(c.shows)} | {c.how} | {cell(c.note)} |" for c in cases]
    yield "\n".join(lines) + "\n"


# What is in the catalog


def tasks() -> list[TaskSpec]:
    """All tasks."""
    return [task for name in CATALOG.tasks() if (task := CATALOG.task(name))]


def able(task: TaskSpec) -> list[str]:
    """The drivers that do a task."""
    drivers = [driver for name in CATALOG.drivers() if (driver := CATALOG.driver(name))]
    return [driver.name for driver in drivers if driver.name in task.drivers or task.name in driver.tasks]


def refused(task: TaskSpec, name: str) -> Mapping[str, str]:
    """The parameters of a task that a driver does not have, with the reasons."""
    driver = CATALOG.driver(name)
    assert driver is not None
    how = task.drivers.get(name) or driver.tasks[task.name]
    return how.refuses


def kinds(cls: type[errors.ModelComposeError]) -> Iterator[type[errors.ModelComposeError]]:
    """The classes of errors that a request may meet."""
    if not issubclass(cls, (errors.ConfigError, errors.ConfigErrors)):
        yield cls
        for each in cls.__subclasses__():
            yield from kinds(each)


# Markdown


def section(level: int, title: str, struct: Struct, about: str = "", lead: str = "") -> Iterator[str]:
    """The keys of a struct, then those of the structs in it."""
    yield heading(level, title)
    yield f"{about or first_line(struct)}\n"
    yield f"{lead}{table(struct)}"
    for inner, name in structs_in(struct).items():
        yield heading(level + 1, name)
        yield f"{first_line(inner)}\n\n{table(inner)}"


def table(struct: Struct) -> str:
    """The keys of a struct, those first that are needed."""
    fields = sorted(fields_of(struct), key=lambda field: not field.required)
    return "| key | takes | default | is |\n|---|---|---|---|\n" + rows(fields, full=True)


def rows(fields: Iterable[Field], *, full: bool = False) -> str:
    """Lines of a table."""
    lines = []
    for field in fields:
        names = ", ".join(f"`{name}`" for name in field.names)
        if full:
            lines.append(
                f"| {names} | {cell(takes(field))} | {cell(default(field))} | {cell(field.description)} |"
            )
        else:
            lines.append(f"| {names} | {cell(field.description)} |")
    return "".join(f"{line}\n" for line in lines)


def takes(field: Field) -> str:
    """What may be written for a field."""
    if field.quantity is not None:
        return field.quantity.name
    words = "anything" if field.type is Any else in_words(members(field.type))
    return f"{words}, or a list of them" if field.many else words


def default(field: Field) -> str:
    """What a field is when it is not written."""
    value = field.default
    if field.required:
        return "needed"
    if field.quantity is not None and isinstance(value, float):
        return "never" if math.isinf(value) else f"`{value:g}` seconds"
    if value is None or value is msgspec.UNSET or value in ((), {}):
        return ""
    return f"`{value.fraction:.0%}`" if isinstance(value, Percent) else f"`{_json(value)}`"


def results(annotation: Any) -> Iterator[str]:
    """The fields of what a task gives."""
    for struct in (
        each for each in members(annotation) if inspect.isclass(each) and issubclass(each, Result)
    ):
        names = [f"`{field.encode_name}`" for field in msgspec.structs.fields(struct)]
        yield f"{first_line(struct)} Its parts: {', '.join(names)}.\n"


def structs_in(struct: Struct) -> dict[Struct, str]:
    """The structs that the fields of a struct hold, at any depth, with where they stand."""
    found: dict[Struct, str] = {}
    for field in fields_of(struct):
        for inner in _structs(field.type):
            tag = inner.__struct_config__
            which = f" with {tag.tag_field}: {tag.tag}" if tag.tag_field else ""
            found.setdefault(inner, f"`{field.name}`{which}")
            found |= {each: where for each, where in structs_in(inner).items() if each not in found}
    return found


def _structs(annotation: Any) -> Iterator[Struct]:
    if inspect.isclass(annotation) and issubclass(annotation, msgspec.Struct):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _structs(inner)


def reasons(refuses: Mapping[str, str]) -> str:
    """A table of names and reasons."""
    return "| key | why |\n|---|---|\n" + "".join(
        f"| `{name}` | {cell(reason)} |\n" for name, reason in refuses.items()
    )


def heading(level: int, title: str) -> str:
    """A heading."""
    return f"{'#' * level} {title}\n"


def cell(text: str) -> str:
    """Text in a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def first_line(thing: Any) -> str:
    """The first line of its documentation."""
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def _json(value: Any) -> str:
    return json.dumps(msgspec.to_builtins(value))


PAGES: Mapping[str, Callable[[], Iterator[str]]] = {
    "file": file_page,
    "tasks": tasks_page,
    "drivers": drivers_page,
    "errors": errors_page,
    "metrics": metrics_page,
    "cli": cli_page,
    "conformance": conformance_page,
}


def main() -> None:
    """Write the pages."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "reference"
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (folder / f"{name}.md").write_text("\n".join(page()))


if __name__ == "__main__":
    main()
