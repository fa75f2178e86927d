"""How do the jobs of a workflow hang together? Worked out once, when its project comes to life.

Jobs have numbers here, in the order of the file. A *link* leads from a job to one that waits for it, a
*route* to one that runs only if it says so. What may run again because a route leads back is a *ring*: the
jobs from which one comes back to them. A job that is in no such circle is a ring of its own. Rings have an
order, so that one can tell when nothing can happen to a job any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
from msgspec import UNSET

from model_compose.config.expression import Reference, Template, references
from model_compose.config.schema import Action, Call, Filter, ForEachJob, Job, Project, Tree, Workflow
from model_compose.config.template import ForEach, Map
from model_compose.config.values import TEXT_TYPES


class Link(msgspec.Struct, frozen=True):
    """A job that waits: for this one (`all`), for one of a group (`any`), or for a group to have ended."""

    job: int
    kind: Literal["all", "any", "ended"]
    group: int = 0


class Graph:
    """The graph of one workflow.

    links      by job, those that wait for it
    waits      by job, how many conditions must come true before it can start
    targets    jobs that run only if another one says so
    routes     by job, the numbers of those that it may start
    rings      by ring, its jobs; `ring` by job, its ring; `after` by ring, those that come after it
    follows    by job, jobs that give something once this one has, directly or through those that give nothing
    pipes      by job, the one that reads what it gives while it is being made; `sources` the other way round
    telling    the job whose output is that of the workflow, a text around it perhaps
    """

    def __init__(self, workflow: Workflow, project: Project) -> None:
        self.workflow = workflow
        self.jobs = workflow.jobs
        self.numbers = {job.id: i for i, job in enumerate(self.jobs)}
        count = len(self.jobs)
        self.links: list[list[Link]] = [[] for _ in range(count)]
        self.routes: list[tuple[int, ...]] = [self._all(job.targets) for job in self.jobs]
        self.targets = frozenset(target for routes in self.routes for target in routes)
        self.waits = [self._link(i, job) for i, job in enumerate(self.jobs)]
        self.rings, self.ring = _rings([[*self._next(i)] for i in range(count)])
        self.before = [0] * len(self.rings)
        self.after = self._order()
        self.follows = [self._followers(i) for i in range(count)]
        self.pipes = _pipes(self, project)
        self.sources = {reader: giver for giver, reader in self.pipes.items()}
        self.telling = _telling(self)

    def _all(self, names: Sequence[str]) -> tuple[int, ...]:
        return tuple(self.numbers[name] for name in names)

    def _link(self, number: int, job: Job) -> int:
        """Note what a job waits for; -> how many conditions that are."""
        for i in self._all(job.depends_on):
            self.links[i].append(Link(number, "all"))
        for group, names in enumerate(job.any_of):
            for i in self._all(names):
                self.links[i].append(Link(number, "any", group))
        for group, each in enumerate(job.alternatives):
            for i in self._all(each.jobs):
                self.links[i].append(Link(number, "ended", group))
        ended = sum(len(each.jobs) for each in job.alternatives)
        return len(job.depends_on) + len(job.any_of) + ended + (number in self.targets)

    def _next(self, number: int) -> Iterator[int]:
        yield from (link.job for link in self.links[number])
        yield from self.routes[number]

    def _order(self) -> list[tuple[int, ...]]:
        after = []
        for number, ring in enumerate(self.rings):
            following = {self.ring[other] for job in ring for other in self._next(job)} - {number}
            after.append(tuple(following))
            for each in following:
                self.before[each] += 1
        return after

    def _followers(self, number: int) -> tuple[int, ...]:
        found: dict[int, None] = {}
        seen = set[int]()
        waiting = list(self._next(number))
        while waiting:
            job = waiting.pop()
            if job in seen:
                continue
            seen.add(job)
            if self.jobs[job].gives:
                found[job] = None
            else:
                waiting += self._next(job)
        found.pop(number, None)
        return tuple(found)


def _rings(following: list[list[int]]) -> tuple[list[list[int]], list[int]]:
    """The strongly connected components of a graph, and the number of that of each node.

    Source: Tarjan 1972, without recursion.
    """
    count = len(following)
    index, low, on_stack = [-1] * count, [0] * count, [False] * count
    stack: list[int] = []
    rings: list[list[int]] = []
    ring = [0] * count
    clock = 0
    for root in range(count):
        if index[root] >= 0:
            continue
        work = [(root, iter(following[root]))]
        index[root] = low[root] = clock
        clock += 1
        stack.append(root)
        on_stack[root] = True
        while work:
            node, rest = work[-1]
            child = next(rest, None)
            if child is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    members = []
                    while True:
                        member = stack.pop()
                        on_stack[member] = False
                        ring[member] = len(rings)
                        members.append(member)
                        if member == node:
                            break
                    rings.append(sorted(members))
            elif index[child] < 0:
                index[child] = low[child] = clock
                clock += 1
                stack.append(child)
                on_stack[child] = True
                work.append((child, iter(following[child])))
            elif on_stack[child]:
                low[node] = min(low[node], index[child])
    return rings, ring


# Pipes


def _pipes(graph: Graph, project: Project) -> dict[int, int]:
    """Jobs whose output one other job can read while it is being made.

    That one must have nothing else to wait for, must want it whole, in a field that takes a stream, and
    must be the only one that waits for it or names it.
    """
    named: dict[str, int] = {}
    for tree in _trees(graph.workflow):
        for reference in references(tree):
            if reference.source == "jobs" and reference.path:
                named[str(reference.path[0])] = named.get(str(reference.path[0]), 0) + 1
    pipes = {}
    for reader, job in enumerate(graph.jobs):
        if reader in graph.targets or job.retry is not None or len(graph.rings[graph.ring[reader]]) > 1:
            continue
        for name in _streamed(job, project):
            giver = graph.numbers[name]
            alone = named.get(name) == 1 and {link.job for link in graph.links[giver]} == {reader}
            if alone and _ancestors(graph, reader) - {giver} <= _ancestors(graph, giver):
                pipes[giver] = reader
                break  # the other would be collected, which takes until that one has ended
    return pipes


def _telling(graph: Graph) -> int | None:
    """The one job after which nothing comes whose output as a whole stands, once, in the workflow's own."""
    output = graph.workflow.output
    parts = output.parts if isinstance(output, Template) else (output,)
    named = [r.path[0] for r in references(output) if r.source == "jobs" and r.path]
    whole = [name for part in parts if (name := _job_named(part)) is not None and named.count(name) == 1]
    last = [i for name in whole if not graph.follows[i := graph.numbers[name]]]
    return last[0] if len(last) == 1 else None


def _trees(workflow: Workflow) -> Iterator[Tree]:
    yield workflow.output
    for job in workflow.jobs:
        yield from trees_of(job)


def trees_of(job: Job) -> Iterator[Tree]:
    """Every compiled tree of a job."""
    work = job.work
    yield job.output
    yield job.on_error.output if job.on_error is not None else UNSET
    for name in work.__struct_fields__:
        value = getattr(work, name)
        if name == "cases":
            yield from (tree for tree, _ in value)
        elif isinstance(value, Call):
            yield value.input
        elif isinstance(work, Filter) and name == "input" and work.items is not None:
            pass  # it is in `items` too
        else:
            yield value


def _ancestors(graph: Graph, number: int) -> set[int]:
    found: set[int] = set()
    waiting = [number]
    while waiting:
        for name in graph.jobs[waiting.pop()].needs:
            other = graph.numbers[name]
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found


def _streamed(job: Job, project: Project) -> Iterator[str]:
    """The jobs whose output a job can take as it comes."""
    work = job.work
    if isinstance(work, ForEachJob):
        if (name := _job_named(work.input)) is not None:
            yield name
    elif isinstance(work, Filter) and isinstance(work.items, ForEach):
        if (name := _job_named(work.items.input)) is not None:
            yield name
    elif isinstance(work, Call) and work.repeat_count == 1 and isinstance(work.input, Map):
        action = project.components[work.component].action(work.action)
        for key, node in work.input.rendered:
            name = _job_named(node)
            if name is not None and _takes_stream(action, key):
                yield name


def _job_named(tree: Tree) -> str | None:
    """The job whose output as a whole a tree is."""
    if not (isinstance(tree, Reference) and tree.key == "jobs" and len(tree.path) == 2):
        return None
    whole = tree.path[1] == "output" and tree.default is UNSET and _leaves_streams(tree)
    return str(tree.path[0]) if whole else None


def _leaves_streams(reference: Reference) -> bool:
    kind = reference.type
    return kind is None or (kind.name in TEXT_TYPES and not kind.many)


def _takes_stream(action: Action, key: str) -> bool:
    """Whether a key of the input only fills a field that takes a stream."""
    spec = action.spec
    if not spec.streams_in:
        return False
    uses = [
        name
        for name, tree in (*action.values.items(), ("", action.output))
        for reference in references(tree)
        if reference.key == "input" and (not reference.path or reference.path[0] == key)
    ]
    if len(uses) != 1 or uses[0] not in spec.streams_in:
        return False
    return _is_input(action.values[uses[0]], key)


def _is_input(tree: Tree, key: str) -> bool:
    """Whether a tree is `${input.KEY}`, or that in place of another input."""
    while isinstance(tree, Reference) and tree.key == "input" and _leaves_streams(tree):
        if tree.path == (key,):
            return True
        tree = tree.default
    return False
