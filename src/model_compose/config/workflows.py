"""What do the workflows of a file say, and do their jobs hang together?"""

from __future__ import annotations

from msgspec import UNSET

from model_compose.config.components import Components
from model_compose.config.job_keys import OF_SOME_TYPE
from model_compose.config.jobs import Jobs
from model_compose.config.later import KEYS, Part
from model_compose.config.mistakes import Mistakes
from model_compose.config.read import WRONG, Reader
from model_compose.config.references import check_references, compiled
from model_compose.config.schema import SYNTHESISED_WORKFLOW, JobKeys, Tree, Workflow, WorkflowKeys
from model_compose.config.shape import Ids, id_of, listed, names_of, one_default, part
from model_compose.config.spec import Catalog
from model_compose.config.tree import Entry, Node

_OWN = names_of(WorkflowKeys)
_JOB = names_of(JobKeys) | OF_SOME_TYPE
_JOBS = frozenset(("job", "jobs"))


def read_workflows(
    nodes: list[Node], components: Components, catalog: Catalog, mistakes: Mistakes
) -> dict[str, Workflow]:
    """All workflows by id. Components that stand inside jobs are added to `components`."""
    ids = Ids("workflow", SYNTHESISED_WORKFLOW, mistakes)
    reader = Reader(mistakes, catalog)
    workflows: dict[str, Workflow] = {}
    for node in nodes:
        name = ids.add(node) or SYNTHESISED_WORKFLOW
        workflow = _read(node, name, components, reader, mistakes)
        if workflow is not None:
            workflows.setdefault(name, workflow)
    one_default("workflow", nodes, mistakes)
    return workflows


def _read(
    node: Node, name: str, components: Components, reader: Reader, mistakes: Mistakes
) -> Workflow | None:
    where = f"workflow `{name}`" if id_of(node, "") else "the workflow"
    if not reader.is_map(node, where):
        return None
    assert isinstance(node.value, dict)
    entries = node.value
    lifted = frozenset() if entries.keys() & _JOBS else _JOB - {"id"}
    for key, entry in entries.items():
        if key not in _OWN | _JOBS | lifted:
            _strange_key(entry, where, reader, mistakes)
    keys = reader.struct(part(node, _OWN - lifted), WorkflowKeys, where)
    nodes = [part(node, lifted)] if lifted else listed(entries, "job", mistakes)
    reading = Jobs(name, where if lifted else f"the job of {where}", components, reader, mistakes)
    jobs = reading.read(nodes)
    output: Tree = UNSET
    if "output" in entries and not lifted:
        output = compiled(entries["output"].node, mistakes)
        check_references(entries["output"].node, output, reading.sources, mistakes)
    if keys is WRONG or not nodes or len(jobs) < len(nodes):
        return None
    return Workflow(name, tuple(jobs.values()), keys.title, keys.name, keys.description, output, keys.default)


def _strange_key(entry: Entry, where: str, reader: Reader, mistakes: Mistakes) -> None:
    if entry.key in _JOB:
        message = f"`{entry.key}` of {where} belongs in one of its jobs"
        mistakes.add(message, entry.key_node, once="misplaced")
    else:
        kind: Part = "job" if entry.key in KEYS["job"] else "workflow"
        reader.strange_key(entry, _OWN | _JOB | _JOBS, where, kind)
