"""Do the threads of all that computes stay within the cores, and does everybody get a turn?

`Machine` performs the effects one by one, as signals and messages would be, and looks after each one
at what computes at that moment. Elastic workers take up a grant when they like.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from model_compose.runtime.leases import SLICE_S, Effect, Grant, Leases, Pause, Resume, WakeAt


@dataclass
class Worker:
    threads: int
    elastic: bool
    busy: bool = False
    paused: bool = False
    computes: bool = False
    granted: int | None = None
    """What it was told and has not taken up."""


class Machine:
    def __init__(self, cores: int) -> None:
        self.cores = cores
        self.leases = Leases(cores)
        self.workers: dict[str, Worker] = {}
        self.now = 0.0
        self.wakes: list[float] = []
        self.ran: set[str] = set()
        self.paused: list[str] = []

    def add(self, name: str, threads: int, *, elastic: bool = False) -> None:
        self.workers[name] = Worker(min(threads, self.cores), elastic)
        self.perform(self.leases.add(name, threads, elastic=elastic, now=self.now))

    def remove(self, name: str) -> None:
        del self.workers[name]
        self.perform(self.leases.remove(name, self.now))

    def busy(self, name: str) -> None:
        # The lease is settled before the call is sent, so it computes only after the effects.
        self.perform(self.leases.busy(name, self.now))
        worker = self.workers[name]
        if not worker.busy:
            worker.busy, worker.computes = True, False
        self.look()

    def idle(self, name: str) -> None:
        self.workers[name].busy = False
        self.perform(self.leases.idle(name, self.now))

    def takes_up(self, name: str) -> None:
        """The worker reads its grant, between two batches, and says so."""
        worker = self.workers[name]
        if worker.granted is not None and not worker.paused:
            worker.threads, worker.granted = worker.granted, None
            self.perform(self.leases.leased(name, worker.threads, self.now))

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while self.wakes and min(self.wakes) <= until:
            self.now = min(self.wakes)
            self.wakes.remove(self.now)
            self.perform(self.leases.tick(self.now))
        self.now = until

    def perform(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Grant(name, threads):
                    assert self.workers[name].elastic, "what is fixed at start cannot be granted"
                    assert threads >= 1
                    self.workers[name].granted = threads
                case Pause(name):
                    assert not self.workers[name].paused
                    self.workers[name].paused = True
                    self.paused.append(name)
                case Resume(name):
                    assert self.workers[name].paused
                    self.workers[name].paused = False
                case WakeAt(at):
                    assert at > self.now
                    self.wakes.append(at)
            self.look()

    def running(self) -> set[str]:
        return {name for name, worker in self.workers.items() if worker.busy and not worker.paused}

    def look(self) -> None:
        running = self.running()
        self.ran |= running
        for name in running:
            worker = self.workers[name]
            if not worker.computes:
                # What lies in its socket when it begins it reads before its first batch.
                worker.threads, worker.granted = worker.granted or worker.threads, None
                worker.computes = True
        # A grant that is on its way may be taken up at any moment.
        most = sum(max(w.threads, w.granted or 0) for n, w in self.workers.items() if n in running)
        assert most <= self.cores, f"{most} threads compute on {self.cores} cores: {self.workers}"


class AnyOrder(RuleBasedStateMachine):
    """Workers of both kinds come, work, rest and go in any order."""

    @initialize(cores=st.integers(1, 6))
    def start(self, cores: int) -> None:
        self.machine = Machine(cores)
        self.number = 0

    def one(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.machine.workers)))

    @precondition(lambda self: len(self.machine.workers) < 5)
    @rule(threads=st.integers(1, 8), elastic=st.booleans())
    def add(self, threads: int, elastic: bool) -> None:
        self.number += 1
        self.machine.add(f"w{self.number}", threads, elastic=elastic)

    @precondition(lambda self: self.machine.workers)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        self.machine.remove(self.one(data))

    @precondition(lambda self: self.machine.workers)
    @rule(data=st.data())
    def busy(self, data: st.DataObject) -> None:
        self.machine.busy(self.one(data))

    @precondition(lambda self: self.machine.workers)
    @rule(data=st.data())
    def idle(self, data: st.DataObject) -> None:
        self.machine.idle(self.one(data))

    @precondition(lambda self: self.machine.workers)
    @rule(data=st.data())
    def takes_up(self, data: st.DataObject) -> None:
        self.machine.takes_up(self.one(data))

    @rule(seconds=st.floats(0.001, 3 * SLICE_S))
    def wait(self, seconds: float) -> None:
        self.machine.wait(seconds)

    @rule()
    def everybody_busy_gets_a_turn(self) -> None:
        machine = self.machine
        busy = {name for name, worker in machine.workers.items() if worker.busy}
        machine.ran = machine.running()
        machine.wait((len(busy) + 1) * SLICE_S)
        assert machine.ran >= busy

    def teardown(self) -> None:
        machine = getattr(self, "machine", None)
        if machine is None:
            return
        for name in list(machine.workers):
            machine.idle(name)
        assert not any(worker.paused for worker in machine.workers.values())
        for name in machine.workers:
            machine.busy(name)
            assert machine.running() == {name}, "alone, it runs"
            machine.idle(name)


AnyOrder.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_any_order = AnyOrder.TestCase


def test_a_worker_alone_is_never_paused() -> None:
    machine = Machine(2)
    machine.add("a", 8)
    machine.busy("a")
    machine.wait(100 * SLICE_S)
    assert machine.paused == []
    assert machine.running() == {"a"}
    assert not machine.wakes, "nothing to wake up for"


def test_an_idle_worker_holds_no_lease() -> None:
    machine = Machine(2)
    machine.add("a", 2)
    machine.add("b", 2)
    machine.busy("a")
    machine.wait(10 * SLICE_S)
    assert machine.paused == []


def test_those_that_fit_together_compute_together() -> None:
    machine = Machine(4)
    for name, threads in (("a", 2), ("b", 1), ("c", 1)):
        machine.add(name, threads)
        machine.busy(name)
    assert machine.running() == {"a", "b", "c"}
    machine.wait(10 * SLICE_S)
    assert machine.paused == []


def test_two_that_do_not_fit_take_turns_of_a_slice_each() -> None:
    machine = Machine(2)
    for name in ("a", "b"):
        machine.add(name, 2)
        machine.busy(name)
    turns = []
    for _ in range(6):
        turns.append(machine.running())
        machine.wait(SLICE_S)
    assert turns == [{"a"}, {"b"}, {"a"}, {"b"}, {"a"}, {"b"}]


def test_the_turn_of_one_that_has_nothing_left_to_do_passes_on_at_once() -> None:
    machine = Machine(2)
    for name in ("a", "b"):
        machine.add(name, 2)
        machine.busy(name)
    machine.wait(SLICE_S / 2)
    machine.idle("a")
    assert machine.running() == {"b"}


def test_a_worker_that_is_gone_makes_room() -> None:
    machine = Machine(2)
    for name in ("a", "b"):
        machine.add(name, 2)
        machine.busy(name)
    machine.remove("a")
    assert machine.running() == {"b"}
    machine.wait(10 * SLICE_S)
    assert machine.running() == {"b"}


def test_what_fits_beside_the_one_whose_turn_it_is_runs_with_it() -> None:
    machine = Machine(3)
    for name, threads in (("two", 2), ("wide", 3), ("one", 1)):
        machine.add(name, threads)
        machine.busy(name)
    assert machine.running() == {"two", "one"}
    machine.wait(SLICE_S)
    assert machine.running() == {"wide"}


def test_elastic_workers_share_the_cores_when_all_are_busy() -> None:
    machine = Machine(4)
    for name in ("a", "b"):
        machine.add(name, 4, elastic=True)
    machine.busy("a")
    assert machine.workers["a"].threads == 4
    machine.busy("b")
    machine.takes_up("a")
    assert (machine.workers["a"].threads, machine.workers["b"].threads) == (2, 2)
    assert machine.running() == {"a", "b"}
    machine.idle("b")
    machine.takes_up("a")
    assert machine.workers["a"].threads == 4


def test_elastic_workers_take_what_a_fixed_one_leaves() -> None:
    machine = Machine(4)
    machine.add("fixed", 3)
    machine.add("elastic", 4, elastic=True)
    machine.busy("fixed")
    machine.busy("elastic")
    assert machine.workers["elastic"].threads == 1
    assert machine.running() == {"fixed", "elastic"}


def test_the_first_batch_of_an_elastic_worker_already_has_its_share() -> None:
    machine = Machine(2)
    machine.add("fixed", 1)
    machine.add("elastic", 2, elastic=True)
    machine.busy("fixed")
    effects = machine.leases.busy("elastic", machine.now)
    assert effects == [Grant("elastic", 1)]
    assert machine.leases.running() == {"fixed": 1, "elastic": 1}


def test_a_grant_that_is_not_taken_up_yet_counts_as_what_it_may_still_use() -> None:
    machine = Machine(2)
    machine.add("elastic", 2, elastic=True)
    machine.add("fixed", 1)
    machine.busy("elastic")
    machine.busy("fixed")
    assert machine.running() == {"elastic"}  # in the middle of a batch with two threads
    machine.takes_up("elastic")
    assert machine.running() == {"elastic", "fixed"}


def test_a_late_answer_to_a_smaller_grant_does_not_hide_a_larger_one() -> None:
    leases = Leases(4)
    leases.add("a", 4, elastic=True, now=0)
    leases.add("b", 4, elastic=True, now=0)
    leases.busy("a", 0)
    leases.busy("b", 0)  # a: 2
    leases.idle("b", 0)  # a: 4
    leases.leased("a", 2, 0)
    assert leases.running() == {"a": 4}


def test_an_answer_of_a_worker_that_is_gone_is_no_matter() -> None:
    leases = Leases(2)
    leases.add("a", 2, elastic=True, now=0)
    leases.remove("a", 0)
    assert leases.leased("a", 1, 0) == []
    assert leases.idle("a", 0) == []


def test_a_clock_that_wakes_a_little_early_does_not_end_the_turns() -> None:
    """Timers of uvloop count whole milliseconds, and `time()` may be one rounding below."""
    leases = Leases(1)
    for name in ("a", "b"):
        leases.add(name, 1, elastic=False, now=0)
        effects = leases.busy(name, 0)
    (wake,) = [e for e in effects if isinstance(e, WakeAt)]
    effects = leases.tick(wake.at - 1e-9)
    assert Pause("a") in effects
    assert Resume("b") in effects
    assert any(isinstance(e, WakeAt) for e in effects)


@given(cores=st.integers(1, 8), threads=st.lists(st.integers(1, 8), min_size=2, max_size=6))
@settings(max_examples=50)
def test_turns_are_fair(cores: int, threads: list[int]) -> None:
    machine = Machine(cores)
    names = [f"w{i}" for i in range(len(threads))]
    for name, count in zip(names, threads, strict=True):
        machine.add(name, count)
        machine.busy(name)
    turns = dict.fromkeys(names, 0)
    rounds = 20 * len(names)
    for _ in range(rounds):
        for name in machine.running():
            turns[name] += 1
        machine.wait(SLICE_S)
    assert min(turns.values()) >= rounds // len(names) - 1


@pytest.mark.parametrize("method", ["remove", "idle"])
def test_a_worker_that_was_never_there_can_rest_and_go(method: str) -> None:
    assert getattr(Leases(2), method)("nobody", 0) == []
