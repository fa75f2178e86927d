"""What do the jobs of a workflow do, and what do they give each other?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
from msgspec import UNSET

from model_compose.config.callees import Callees
from model_compose.config.components import Components
from model_compose.config.expression import Reference, Renderable, references
from model_compose.config.job_graph import check_graph, without_feedback
from model_compose.config.job_keys import KEYS_OF, OF_SOME_TYPE
from model_compose.config.job_types import Read, Spot, Works
from model_compose.config.mistakes import Mistakes
from model_compose.config.read import WRONG, Reader
from model_compose.config.references import (
    CONTEXT,
    Known,
    check_references,
    compiled,
    names_of_output,
    results,
)
from model_compose.config.schema import (
    SYNTHESISED_JOB,
    Alternatives,
    Job,
    JobKeys,
    OnError,
    OnErrorKeys,
    Retry,
)
from model_compose.config.shape import Ids, names_of, part
from model_compose.config.tree import Node, at_key, locate
from model_compose.errors import did_you_mean

_COMMON = names_of(JobKeys)
_ERROR: Mapping[str, Known] = {"error": {"message": None, "type": None}}


class _Draft(msgspec.Struct, frozen=True):
    """A job of which is known what it does, while nobody has looked at its references yet."""

    job: Job
    node: Node
    read: Read
    spots: tuple[Spot, ...]

    def output(self) -> Known:
        """What is known of its output."""
        if self.job.output is not UNSET:
            return names_of_output(self.job.output, None) if self.job.on_error is None else None
        return None if self.read.repeats or self.job.on_error is not None else self.read.result


class Jobs:
    """Reads the jobs of one workflow; `unnamed` is what messages call one without an id.

    sources  what the workflow's own `output` can refer to, once they have been read
    nodes    where each of them is
    """

    def __init__(
        self, workflow: str, unnamed: str, components: Components, reader: Reader, mistakes: Mistakes
    ) -> None:
        self.sources: dict[str, Known] = {"input": None, "context": CONTEXT}
        self.nodes: dict[str, Node] = {}
        self._unnamed = unnamed
        self._works = Works(Callees(workflow, components, mistakes), mistakes)
        self._reader = reader
        self._mistakes = mistakes
        self._ids = Ids("job", SYNTHESISED_JOB, mistakes, dots=False)

    def read(self, nodes: list[Node]) -> dict[str, Job]:
        """Those jobs that can be read."""
        names = [self._ids.add(node) for node in nodes]
        for name, node in zip(names, nodes, strict=True):
            if name is not None:
                self.nodes.setdefault(name, node)
        read = [self._draft(node, name) for node, name in zip(nodes, names, strict=True)]
        drafts = [draft for draft in read if draft is not None]
        outputs: dict[str, Known] = {name: {"output": None} for name in self.nodes}
        outputs |= {draft.job.id: {"output": draft.output()} for draft in drafts}
        self.sources["jobs"] = None if self._ids.incomplete else outputs
        jobs: dict[str, Job] = {}
        for draft in drafts:
            job = self._complete(draft)
            if job.id:
                jobs.setdefault(job.id, job)
        jobs = without_feedback(jobs)
        check_graph(jobs, self.nodes, self._mistakes, whole=len(jobs) == len(nodes))
        return jobs

    # What it does

    def _draft(self, node: Node, name: str | None) -> _Draft | None:
        where = self._unnamed if name in (None, SYNTHESISED_JOB) else f"job `{name}`"
        if self._reader.comes_later(node, "type", JobKeys, where) or not self._reader.is_map(node, where):
            return None  # its other keys are not known here
        kind = self._kind(node)
        self._check_keys(node, kind, where)
        keys = self._reader.struct(part(node, _COMMON), JobKeys, where)
        if keys is WRONG or kind is None:
            return None
        own = self._reader.struct(part(node, names_of(KEYS_OF[kind])), KEYS_OF[kind], where)
        if own is WRONG:
            return None
        read = self._works.read(own, node, name or "", where)
        if read.work is None:
            return None
        output = self._spot(node, results(read.result))
        rescue, at = self._on_error(keys, node)
        self._check_targets(read, at, name, node)
        waits_for, any_of = self._waits_for(keys, node)
        job = Job(
            name or "",
            read.work,
            UNSET if output is None else output.tree,
            waits_for,
            any_of,
            (),
            Retry(max_retry_count=keys.retry) if isinstance(keys.retry, int) else keys.retry,
            rescue,
            keys.max_run_count,
        )
        spots = [*read.spots, *([output] if output else []), *([at] if at and rescue else [])]
        return _Draft(job, node, read, tuple(spots))

    def _kind(self, node: Node) -> str | None:
        """Its type, None if that is none."""
        found = at_key(node, "type")
        if found is None:
            return "component"
        return found.value if isinstance(found.value, str) and found.value in KEYS_OF else None

    def _check_keys(self, node: Node, kind: str | None, where: str) -> None:
        """Note keys that a job of this type does not have."""
        assert isinstance(node.value, dict)
        own = OF_SOME_TYPE if kind is None else names_of(KEYS_OF[kind])
        for key, entry in node.value.items():
            if key in own | _COMMON:
                continue
            if key not in OF_SOME_TYPE:
                self._reader.strange_key(entry, own | _COMMON, where, "job")
                continue
            types = [f"`{each}`" for each, keys in KEYS_OF.items() if key in names_of(keys)]
            hint = f"it belongs to jobs of type {' or '.join(types)}"
            message = f"`{key}` of {where} means nothing for type `{kind}`"
            self._mistakes.add(message, entry.key_node, hint=hint, once="type")

    def _spot(self, node: Node, sources: Mapping[str, Known]) -> Spot | None:
        at = at_key(node, "output")
        return None if at is None else Spot(at, compiled(at, self._mistakes), sources)

    def _on_error(self, keys: JobKeys, node: Node) -> tuple[OnError | None, Spot | None]:
        """What happens when it fails, and where the output for that case stands."""
        if keys.on_error is None:
            return None, None
        if not isinstance(keys.on_error, OnErrorKeys):
            return OnError(output=None), None
        at = locate(node, ["on_error"])
        found = self._spot(at, _ERROR)
        if found is None and keys.on_error.to is None:
            hint = "write `on_error: ignore` to go on without an output"
            self._mistakes.add("`on_error` has neither `output` nor `to`", at, hint=hint)
        return OnError(UNSET if found is None else found.tree, keys.on_error.to), found

    # What it waits for, and what waits for it

    def _check_targets(self, read: Read, rescue: Spot | None, name: str | None, node: Node) -> None:
        """Note jobs to be started that are not there, and those that would start themselves."""
        instead = at_key(locate(node, ["on_error"]), "to") if at_key(node, "on_error") else None
        for at in (*read.targets, *([instead] if instead is not None else [])):
            wanted = at.value if isinstance(at.value, str) else at.text
            if wanted is None or at.lost:
                continue
            if wanted == name:
                message = f"job `{name}` starts itself"
                self._mistakes.add(message, at, hint="name the job that comes before it, or the next one")
            else:
                self._known(wanted, at)

    def _known(self, name: str, at: Node) -> None:
        if not (name in self.nodes or self._ids.incomplete):
            hint = did_you_mean(name, self.nodes.keys() - {SYNTHESISED_JOB})
            self._mistakes.add(f"there is no job `{name}`", at, hint=hint)

    def _waits_for(self, keys: JobKeys, node: Node) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        """The jobs that must be complete, and the groups of which one must be."""
        wanted = (keys.depends_on,) if isinstance(keys.depends_on, str) else keys.depends_on
        at = locate(node, ["depends_on"])
        nodes = at.value if isinstance(at.value, tuple) else (at,)
        every: list[str] = []
        groups: list[tuple[str, ...]] = []
        for names, item in zip(wanted, nodes, strict=False):
            if isinstance(names, str):
                self._known(names, item)
                every.append(names)
                continue
            for name, inner in zip(names, item.value, strict=False):  # type: ignore[arg-type]
                self._known(name, inner)  # type: ignore[arg-type]
            known = tuple(name for name in names if name in self.nodes)
            if not names:
                self._mistakes.add("a list inside `depends_on` names at least one job", item)
            groups += [known] if known else []
        return tuple(name for name in every if name in self.nodes), tuple(groups)

    # What it refers to

    def _complete(self, draft: _Draft) -> Job:
        """A job with the jobs that its references make it wait for, its references looked at."""
        waits_for = list(draft.job.depends_on)
        groups: list[Alternatives] = []
        told = {name for group in draft.job.any_of for name in group}
        for spot in draft.spots:
            check_references(spot.node, spot.tree, {**self.sources, **spot.sources}, self._mistakes)
            for group in _awaited(spot.tree):
                names = tuple(n for n in group.jobs if n in self.nodes and n not in told)
                if len(names) == 1 and not group.fallback:
                    waits_for += names
                elif names:
                    groups.append(Alternatives(names, group.fallback))
        every = dict.fromkeys(waits_for)
        return msgspec.structs.replace(
            draft.job,
            depends_on=tuple(every),
            alternatives=tuple(g for g in dict.fromkeys(groups) if not every.keys() >= set(g.jobs)),
        )


def _awaited(tree: object) -> Iterator[Alternatives]:
    """The jobs that a tree refers to; those of which one stands in for another together."""
    flat = list(references(tree))
    at = 0
    while at < len(flat):
        first = flat[at]
        inner = list(first.default.references()) if isinstance(first.default, Renderable) else []
        chain = [first, *inner]
        at += len(chain)
        names = dict.fromkeys(str(r.path[0]) for r in chain if r.source == "jobs" and r.path)
        if names:
            yield Alternatives(tuple(names), _has_fallback(chain))


def _has_fallback(chain: list[Reference]) -> bool:
    """Whether there is a value without any of the jobs."""
    if any(reference.source != "jobs" for reference in chain):
        return True
    default = chain[-1].default
    return default is not UNSET or any(
        isinstance(r.default, Renderable) and not isinstance(r.default, Reference) for r in chain
    )
