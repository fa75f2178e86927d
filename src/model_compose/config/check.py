"""Is a file right? Every mistake in one run; nothing is looked for outside of the file.

The sections of the file are read one after the other: what there is (components, with their actions)
before what refers to it (workflows, with their jobs).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from model_compose.config.calls import check_calls, reached
from model_compose.config.components import Components, component_keys
from model_compose.config.controller import read_controller
from model_compose.config.job_keys import OF_SOME_TYPE
from model_compose.config.later import KEYS
from model_compose.config.listeners import read_listeners
from model_compose.config.mistakes import Mistakes
from model_compose.config.read import Reader
from model_compose.config.schema import (
    DEFAULT,
    SYNTHESISED_COMPONENT,
    SYNTHESISED_JOB,
    SYNTHESISED_WORKFLOW,
    Call,
    Controller,
    Job,
    JobKeys,
    Project,
    Settings,
    Workflow,
    WorkflowKeys,
    default_of,
)
from model_compose.config.shape import enumerated, listed, names_of, part
from model_compose.config.spec import Catalog
from model_compose.config.tree import Entry, Node, at_key, locate
from model_compose.config.workflows import read_workflows
from model_compose.errors import ConfigErrors

_DECLARING = frozenset(("component", "components", "workflow", "workflows"))
_SECTIONS = _DECLARING | {"controller", "listener", "listeners"} | names_of(Settings)


def check(root: Node, folder: Path, catalog: Catalog, mistakes: Mistakes) -> Project:
    """The project that a tree describes, its variables filled in.

    Raises ConfigErrors with everything that is wrong, the mistakes included that have been found before.
    """
    reader = Reader(mistakes, catalog)
    sections = _sections(root, catalog, reader, mistakes)
    settings = reader.struct(part(root, names_of(Settings)), Settings, "the file")
    controller = read_controller(at_key(root, "controller"), reader, mistakes)
    components = Components(catalog, mistakes)
    components.declare(listed(sections, "component", mistakes))
    nodes = listed(sections, "workflow", mistakes)
    workflows = read_workflows(nodes, components, catalog, mistakes)
    if nodes:
        _note_unused(components, workflows, catalog, mistakes)
    else:
        workflows = _synthesised(components, mistakes)
    check_calls(workflows, components.found, components.nodes, catalog, mistakes)
    _check_aliases(components, workflows, mistakes)
    nodes = listed(sections, "listener", mistakes)
    listeners = read_listeners(nodes, controller, workflows, reader, mistakes)
    if mistakes.errors:
        raise ConfigErrors(mistakes.errors)
    warnings = tuple(mistakes.warnings)
    return Project(folder, settings, controller, components.found, workflows, warnings, listeners)


def _sections(root: Node, catalog: Catalog, reader: Reader, mistakes: Mistakes) -> dict[str, Entry]:
    """The sections of the file; keys that are none are noted, with where they belong."""
    assert isinstance(root.value, dict)  # the loader has looked
    misplaced: dict[str, list[Entry]] = {}
    for key, entry in root.value.items():
        if key not in _SECTIONS:
            home = None if key in KEYS["file"] else _home(key, catalog)
            if home is None:
                reader.strange_key(entry, _SECTIONS, "the file", "file")
            else:
                misplaced.setdefault(home, []).append(entry)
    for home, entries in misplaced.items():
        names = enumerated([entry.key for entry in entries])
        belong = "belongs" if len(entries) == 1 else "belong"
        hint = f"write `{home}:`, and below it, indented, what belongs to it"
        mistakes.add(f"{names} {belong} in a {home}", entries[0].key_node, hint=hint)
    if not (misplaced or root.lost or root.value.keys() & _DECLARING):
        hint = "begin with `component:`; `model-compose init` writes a file to start from"
        mistakes.add("the file declares no component", root, hint=hint)
    return root.value


def _home(key: str, catalog: Catalog) -> str | None:
    """The section into which a key belongs that stands at the top of the file."""
    homes = {
        "component": frozenset().union(*component_keys(catalog)),
        "workflow": names_of(WorkflowKeys) | names_of(JobKeys) | OF_SOME_TYPE | {"job", "jobs"},
        "controller": names_of(Controller) | {"adapter", "adapters"},
    }
    return next((home for home, keys in homes.items() if key in keys), None)


def _synthesised(components: Components, mistakes: Mistakes) -> dict[str, Workflow]:
    """What a file without workflows offers: its component, or each of them by its own id."""
    workflows = {}
    for name, component in components.found.items():
        if not component.type:
            continue
        if default_of(component.actions) is None:
            names = ", ".join(f"`{action.id}`" for action in component.actions)
            hint = f"mark one of {names} with `default: true`, or declare workflows that name them"
            which = "the component" if name == SYNTHESISED_COMPONENT else f"component `{name}`"
            message = f"{which} has several actions, and none is the default"
            mistakes.add(message, components.nodes[name], hint=hint)
        alone = len(components.found) == 1
        workflow = SYNTHESISED_WORKFLOW if alone else name
        job = Job(SYNTHESISED_JOB, Call(name, DEFAULT))
        workflows[workflow] = Workflow(workflow, (job,), default=alone or component.default)
    return workflows


def _note_unused(
    components: Components, workflows: Mapping[str, Workflow], catalog: Catalog, mistakes: Mistakes
) -> None:
    """Warn of components that nothing calls, although they will be loaded."""
    called = reached(workflows, workflows, components.found, catalog).components
    for name in components.declared:
        if name not in called:
            mistakes.warn(f"component `{name}` is used by no workflow", components.nodes[name])


def _check_aliases(components: Components, workflows: Mapping[str, Workflow], mistakes: Mistakes) -> None:
    """Note aliases that mean something else already, or that nobody could type."""
    ids = {**dict.fromkeys(workflows, "workflow"), **dict.fromkeys(components.found, "component")}
    seen: dict[str, str] = {}
    for name, component in components.found.items():
        for i, alias in enumerate(component.aliases):
            at = locate(components.nodes[name], ["aliases", i])
            owner = alias.partition(":")[0]
            if not alias or not alias.isprintable() or alias != alias.strip():
                mistakes.add(
                    f"`{alias}` cannot be an alias", at, hint="write a name without spaces around it"
                )
            elif alias in ids:
                hint = "choose another alias"
                mistakes.add(f"`{alias}` is the id of a {ids[alias]} already", at, hint=hint)
            elif alias in seen:
                mistakes.add(
                    f"`{alias}` is an alias of component `{seen[alias]}` already", at, hint="keep one"
                )
            elif ":" in alias and owner in components.found:
                message = f"`{alias}` means an adapter of component `{owner}`"
                mistakes.add(message, at, hint="choose another alias")
            seen.setdefault(alias, name)
