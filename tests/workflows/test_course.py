"""Does every job end, once, after those it needs, whatever the graph and whoever says what comes next?"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from model_compose.config.schema import Alternatives, Filter, If, Job, Workflow
from model_compose.workflows.course import Course, State, Step
from model_compose.workflows.graph import Graph

NO_PROJECT: Any = SimpleNamespace(components={})


def graph(*jobs: Job) -> Graph:
    return Graph(Workflow("w", jobs), NO_PROJECT)


def step(name: str, *needs: str, **more: Any) -> Job:
    return Job(name, Filter(None), depends_on=needs, **more)


def router(name: str, targets: tuple[str, ...], *needs: str) -> Job:
    return Job(name, If(None, targets), depends_on=needs)


class Play:
    """A course whose jobs end when a test says so, by their names."""

    def __init__(self, *jobs: Job) -> None:
        self.graph = graph(*jobs)
        self.course = Course(self.graph)
        self.running: list[str] = []
        self.ends: list[tuple[str, str]] = []
        self.take(self.course.begin())

    def take(self, found: Step) -> None:
        names = [job.id for job in self.graph.jobs]
        self.ends += [(names[i], "skipped") for i in found.skip]
        for i in found.give_up:
            self.running.remove(names[i])
        self.running += [names[i] for i in found.start]

    def end(self, name: str, *targets: str, done: bool = True) -> list[str]:
        self.running.remove(name)
        self.ends.append((name, "done" if done else "gone"))
        numbers = self.graph.numbers
        self.take(self.course.ended(numbers[name], tuple(numbers[t] for t in targets), done=done))
        return self.running


def test_a_target_runs_only_if_it_is_routed_to() -> None:
    play = Play(router("r", ("a", "b")), step("a"), step("b"), step("c", "b"))
    assert play.running == ["r"]
    assert play.end("r", "a") == ["a"]
    assert play.ends == [("r", "done"), ("b", "skipped"), ("c", "skipped")]


def test_what_one_of_several_jobs_leads_to_runs_with_the_first_of_them() -> None:
    play = Play(step("a"), step("b"), Job("c", Filter(None), any_of=(("a", "b"),)))
    assert play.end("b") == ["a", "c"]
    assert play.end("a") == ["c"]
    play.end("c")
    assert play.course.left == 0


def test_what_joins_branches_runs_after_the_one_that_was_taken() -> None:
    join = Job("join", Filter(None), alternatives=(Alternatives(("a", "b")),))
    play = Play(router("r", ("a", "b")), step("a"), step("b"), join)
    play.end("r", "b")
    assert play.running == ["b"]
    assert play.end("b") == ["join"]


def test_alternatives_wait_until_all_of_them_have_ended() -> None:
    play = Play(step("a"), step("b"), Job("c", Filter(None), alternatives=(Alternatives(("a", "b")),)))
    assert play.end("a") == ["b"]
    assert play.end("b") == ["c"]


def test_alternatives_of_which_none_is_there_are_skipped_unless_there_is_another_value() -> None:
    def join(name: str, *, fallback: bool) -> Job:
        return Job(name, Filter(None), alternatives=(Alternatives(("a",), fallback),))

    play = Play(router("r", ("a",)), step("a"), join("c", fallback=False), join("d", fallback=True))
    assert play.end("r") == ["d"]
    assert ("c", "skipped") in play.ends


def test_a_target_waits_for_what_it_needs_too() -> None:
    play = Play(step("slow"), router("r", ("a",)), step("a", "slow"))
    assert play.end("r", "a") == ["slow"]
    assert play.end("slow") == ["a"]


def test_routing_back_runs_again_what_comes_after() -> None:
    play = Play(step("a"), step("b", "a"), router("r", ("a", "out"), "b"), step("out"))
    # `a` is a target, so that somebody must begin.
    assert play.running == []
    play = Play(router("go", ("a",)), step("a"), step("b", "a"), router("r", ("a", "out"), "b"), step("out"))
    for _ in range(3):
        if play.running == ["go"]:
            play.end("go", "a")
        play.end("a")
        play.end("b")
        assert play.end("r", "a") == ["a"]
    play.end("a")
    play.end("b")
    assert play.end("r", "out") == ["out"]
    assert [name for name, how in play.ends if how == "skipped"] == []
    play.end("out")
    assert play.course.runs == [1, 4, 4, 4, 1]


def test_what_runs_while_something_before_it_runs_again_is_given_up() -> None:
    play = Play(
        router("go", ("a",)), step("a"), step("slow", "a"), router("r", ("a",), "a"), step("end", "slow")
    )
    play.end("go", "a")
    assert play.end("a") == ["slow", "r"]
    assert play.end("r", "a") == ["a"]
    assert play.end("a") == ["slow", "r"]
    assert play.end("r") == ["slow"]
    assert play.end("slow") == ["end"]


def test_what_fails_and_has_another_job_run_instead_is_not_there_for_others() -> None:
    play = Play(
        Job("a", Filter(None), on_error=None), step("b", "a"), router("x", ("rescue",)), step("rescue")
    )
    play.end("a", "rescue", done=False)
    assert play.running == ["x", "rescue"]
    assert ("b", "skipped") in play.ends


@st.composite
def workflows(draw: st.DrawFn, *, circles: bool) -> list[Job]:
    count = draw(st.integers(1, 9))
    names = [f"j{i}" for i in range(count)]
    jobs = []
    for i, name in enumerate(names):
        before = names[:i]
        some = st.sets(st.sampled_from(before), max_size=3) if before else st.just(set[str]())
        depends_on = tuple(sorted(draw(some)))
        group = tuple(sorted(draw(some)))
        other = tuple(sorted(draw(some)))
        routable = names if circles else names[i + 1 :]
        routable = [each for each in routable if each != name]
        targets = draw(st.sets(st.sampled_from(routable), max_size=2)) if routable else set[str]()
        jobs.append(
            Job(
                name,
                If(None, tuple(sorted(targets))) if targets else Filter(None),
                depends_on=depends_on,
                any_of=(group,) if group else (),
                alternatives=(Alternatives(other, draw(st.booleans())),) if other else (),
            )
        )
    return jobs


@given(workflows(circles=False), st.data())
def test_without_circles_every_job_ends_once_after_what_it_needs(
    jobs: list[Job], data: st.DataObject
) -> None:
    play = Play(*jobs)
    by_name = {job.id: job for job in jobs}
    while play.running:
        for name in play.running:
            _check_needs(by_name[name], play)
        name = data.draw(st.sampled_from(sorted(play.running)))
        targets = data.draw(st.sets(st.sampled_from(by_name[name].targets))) if by_name[name].targets else ()
        play.end(name, *sorted(targets), done=data.draw(st.booleans()))
    assert sorted(name for name, _ in play.ends) == sorted(by_name)
    assert play.course.left == 0
    assert all(runs <= 1 for runs in play.course.runs)


def _check_needs(job: Job, play: Play) -> None:
    ended = dict(play.ends)
    assert all(ended.get(name) == "done" for name in job.depends_on)
    assert all(any(ended.get(name) == "done" for name in group) for group in job.any_of)
    for group in job.alternatives:
        assert all(name in ended for name in group.jobs)
        assert group.fallback or any(ended[name] == "done" for name in group.jobs)


@given(workflows(circles=True), st.data())
def test_with_circles_too_all_have_ended_in_the_end(jobs: list[Job], data: st.DataObject) -> None:
    play = Play(*jobs)
    by_name = {job.id: job for job in jobs}
    for turn in range(60):
        if not play.running:
            break
        state = [play.course.state[play.graph.numbers[name]] for name in play.running]
        assert all(each is State.RUNNING for each in state)
        assert len(set(play.running)) == len(play.running)
        name = data.draw(st.sampled_from(sorted(play.running)))
        possible = by_name[name].targets if turn < 30 else ()
        targets = data.draw(st.sets(st.sampled_from(possible))) if possible else ()
        play.end(name, *sorted(targets), done=data.draw(st.booleans()))
    assert play.running == []
    assert play.course.left == 0
