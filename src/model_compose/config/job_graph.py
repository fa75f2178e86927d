"""Do the jobs of a workflow hang together: is there an order, and does each of them run sometime?"""

from __future__ import annotations

import graphlib
from collections.abc import Mapping

from msgspec.structs import replace

from model_compose.config.mistakes import Mistakes
from model_compose.config.schema import Alternatives, Job
from model_compose.config.tree import Node
from model_compose.errors import Note


def without_feedback(jobs: dict[str, Job]) -> dict[str, Job]:
    """The jobs, where one that is run again does not wait for what it refers to from the run before.

    `${jobs.later.output | ...}` is such a reference, if the later job depends on this one.
    """
    again = {target for job in jobs.values() for target in job.targets}
    if not again:
        return jobs
    found = dict(jobs)
    for name, job in jobs.items():
        if not job.alternatives or not (again & {name, *_before(name, jobs)}):
            continue
        groups = []
        for group in job.alternatives:
            kept = tuple(other for other in group.jobs if name not in _before(other, jobs))
            fallback = group.fallback or len(kept) < len(group.jobs)
            groups += [Alternatives(kept, fallback)] if kept else []
        found[name] = replace(job, alternatives=tuple(groups))
    return found


def _before(name: str, jobs: Mapping[str, Job]) -> set[str]:
    """The jobs that a job waits for, near and far."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        job = jobs.get(waiting.pop())
        for other in job.needs if job is not None else ():
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found


def check_graph(
    jobs: Mapping[str, Job], nodes: Mapping[str, Node], mistakes: Mistakes, *, whole: bool
) -> None:
    """Note jobs that wait for each other, and, where all are known, those that never run."""
    if _check_cycles(jobs, nodes, mistakes) and whole:
        for name in jobs.keys() - _reachable(jobs):
            mistakes.warn(f"job `{name}` never runs: nothing that leads to it does", nodes[name])


def _check_cycles(jobs: Mapping[str, Job], nodes: Mapping[str, Node], mistakes: Mistakes) -> bool:
    """Note every job that waits for itself, and every ring of jobs that wait for each other."""
    right = True
    waits_for: dict[str, list[str]] = {}
    for name, job in jobs.items():
        waits_for[name] = [other for other in job.needs if other in jobs and other != name]
        if name in job.needs:
            right = False
            mistakes.add(f"job `{name}` waits for itself", nodes[name])
    while True:
        try:
            graphlib.TopologicalSorter(waits_for).prepare()
        except graphlib.CycleError as error:
            right = False
            # graphlib names each before the one that needs it; people read it the other way round.
            ring: list[str] = error.args[1][:0:-1]
            first = next(name for name in jobs if name in ring)
            ring = [*ring[ring.index(first) :], *ring[: ring.index(first)]]
            path = " -> ".join(f"`{name}`" for name in (*ring, first))
            notes = [Note(f"`{name}`", nodes[name].place) for name in ring[1:]]
            mistakes.add(f"jobs wait for each other: {path}", nodes[first], notes=notes)
            waits_for |= {name: list[str]() for name in ring}
        else:
            return right


def _reachable(jobs: Mapping[str, Job]) -> set[str]:
    """The jobs that some course of the workflow comes to."""
    routed = {target for job in jobs.values() for target in job.targets}
    found: set[str] = set()
    led_to: set[str] = set()
    while True:
        new = [
            job
            for name, job in jobs.items()
            if name not in found
            and (name not in routed or name in led_to)
            and all(other in found for other in job.depends_on)
            and all(any(other in found for other in group) for group in job.any_of)
            and all(g.fallback or any(other in found for other in g.jobs) for g in job.alternatives)
        ]
        if not new:
            return found
        for job in new:
            found.add(job.id)
            led_to.update(job.targets)
