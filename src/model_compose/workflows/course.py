"""Which job comes next, when one has ended? Pure: nothing runs here.

A job is *pending*, *running*, or has *ended*: completed (`done`) or not (`gone`: it was skipped, or failed
and another one runs instead). Where a route leads back, what has ended is pending again, with everything that
waits for it.
"""

from __future__ import annotations

from enum import IntEnum

from model_compose.workflows.graph import Graph, Link


class State(IntEnum):
    """Where a job is."""

    PENDING = 0
    RUNNING = 1
    DONE = 2
    GONE = 3


class Step:
    """What follows from an event: jobs that start, are skipped, or are to be given up as they run again."""

    __slots__ = ("give_up", "skip", "start")

    def __init__(self) -> None:
        self.start: list[int] = []
        self.skip: list[int] = []
        self.give_up: list[int] = []


class Course:
    """One course of a workflow through its graph.

    runs   by job, how often it has started
    order  by job, when it was completed last, beside the others
    left   how many jobs have not ended
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        count = len(graph.jobs)
        self.state = [State.PENDING] * count
        self.runs = [0] * count
        self.order = [0] * count
        self.left = count
        self._clock = 0
        self._open = graph.waits.copy()
        self._met: set[tuple[int, int]] = set()
        self._routed_by: dict[int, int] = {}
        self._before = graph.before.copy()
        self._running = [0] * len(graph.rings)
        self._over = [False] * len(graph.rings)
        self._step = Step()

    def begin(self) -> Step:
        """The jobs that wait for nothing."""
        for job in range(len(self.state)):
            self._start_if_ready(job)
        self._close([ring for ring, before in enumerate(self._before) if not before])
        return self._taken()

    def ended(self, job: int, targets: tuple[int, ...] = (), *, done: bool = True) -> Step:
        """A job that ran has ended, and says which others run."""
        self._set(job, State.DONE if done else State.GONE)
        for target in targets:
            self._route(job, target)
        if self.state[job] >= State.DONE:  # else one of those leads back to it
            self._tell(job)
        ring = self._graph.ring[job]
        self._running[ring] -= 1
        self._close([ring])
        return self._taken()

    def _taken(self) -> Step:
        step, self._step = self._step, Step()
        return step

    def _set(self, job: int, state: State) -> None:
        had_ended, ends = self.state[job] >= State.DONE, state >= State.DONE
        self.left += had_ended - ends
        self.state[job] = state
        if state is State.DONE:
            self._clock += 1
            self.order[job] = self._clock

    # What may start

    def _start_if_ready(self, job: int) -> None:
        if self._open[job] == 0 and self.state[job] is State.PENDING and self._is_allowed(job):
            self._set(job, State.RUNNING)
            self.runs[job] += 1
            self._running[self._graph.ring[job]] += 1
            self._step.start.append(job)

    def _is_allowed(self, job: int) -> bool:
        """Whether of every group of alternatives one is there, or none is needed."""
        numbers = self._graph.numbers
        return all(
            group.fallback or any(self.state[numbers[name]] is State.DONE for name in group.jobs)
            for group in self._graph.jobs[job].alternatives
        )

    def _tell(self, job: int) -> None:
        """Those who wait for a job hear that it has ended."""
        for link in self._graph.links[job]:
            if self._counts(link, self.state[job]):
                self._open[link.job] -= 1
                self._start_if_ready(link.job)

    def _counts(self, link: Link, state: State) -> bool:
        """Whether the end of a job makes a condition true of one that waits for it."""
        if link.kind == "ended":
            return True
        if state is not State.DONE:
            return False
        if link.kind == "any":
            if (link.job, link.group) in self._met:
                return False
            self._met.add((link.job, link.group))
        return True

    # Routes

    def _route(self, source: int, target: int) -> None:
        if self.state[target] is not State.PENDING:
            self._again(target)
        if target not in self._routed_by:
            self._open[target] -= 1
        self._routed_by[target] = source
        self._start_if_ready(target)

    def _again(self, first: int) -> None:
        """A job that has run, and all that wait for it, are pending once more."""
        anew = {first: None}
        waiting = [first]
        while waiting:
            for link in self._graph.links[waiting.pop()]:
                if link.job not in anew:
                    anew[link.job] = None
                    waiting.append(link.job)
        for job in anew:
            if self.state[job] is State.RUNNING:
                self._running[self._graph.ring[job]] -= 1
                self._step.give_up.append(job)
            if self.state[job] is not State.PENDING:
                self._set(job, State.PENDING)
            if self._routed_by.get(job, -1) in anew:
                del self._routed_by[job]
        for job in anew:
            self._recount(job)
        for job in anew:
            if job != first:
                self._start_if_ready(job)

    def _recount(self, job: int) -> None:
        numbers, declared = self._graph.numbers, self._graph.jobs[job]
        missing = sum(self.state[numbers[name]] is not State.DONE for name in declared.depends_on)
        for group, names in enumerate(declared.any_of):
            met = any(self.state[numbers[name]] is State.DONE for name in names)
            missing += not met
            (self._met.add if met else self._met.discard)((job, group))
        for each in declared.alternatives:
            missing += sum(self.state[numbers[name]] < State.DONE for name in each.jobs)
        missing += job in self._graph.targets and job not in self._routed_by
        self._open[job] = missing

    # What never will

    def _close(self, rings: list[int]) -> None:
        """Skip what is left of rings to which nothing can happen any more, and of those after them."""
        while rings:
            ring = rings.pop()
            if self._over[ring] or self._before[ring] or self._running[ring]:
                continue
            for job in sorted(self._graph.rings[ring], key=lambda each: each not in self._graph.targets):
                if self.state[job] is State.PENDING:
                    self._set(job, State.GONE)
                    self._step.skip.append(job)
                    self._tell(job)
                if self._running[ring]:
                    break  # something else took its place
            if self._running[ring]:
                continue
            self._over[ring] = True
            for other in self._graph.after[ring]:
                self._before[other] -= 1
                rings.append(other)
