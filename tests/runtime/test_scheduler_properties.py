"""Do the promises of the scheduler hold whatever happens, in whatever order?

`World` refuses effects that break a promise while they are made: too much memory, a call that ends
twice or is served by a worker that is not ready, company for one that must be alone.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from tests.runtime.world import World

from model_compose.errors import ModelUnavailable, Overloaded, WorkerDied
from model_compose.runtime.events import Release, Want
from model_compose.runtime.model import ModelPlan
from model_compose.runtime.placement import MIN_QUANTUM_S, QUANTUM_PER_LOAD

BUDGET = 10

plans = st.lists(
    st.builds(
        ModelPlan,
        name=st.just(""),
        size=st.fixed_dictionaries(
            {"host": st.integers(0, BUDGET)}, optional={"cuda:0": st.integers(0, BUDGET)}
        ),
        preload=st.booleans(),
        keep_alive_s=st.sampled_from([None, 0.0, 3.0]),
        max_queue=st.integers(1, 4),
        max_active=st.integers(0, 2),
    ),
    min_size=1,
    max_size=4,
)


class AnyOrder(RuleBasedStateMachine):
    """Everything that can happen to a service, in any order."""

    @initialize(chosen=plans, sizes=st.lists(st.integers(0, BUDGET), min_size=4, max_size=4))
    def start(self, chosen: list[ModelPlan], sizes: list[int]) -> None:
        named = [
            ModelPlan(name, p.size, p.preload, p.keep_alive_s, p.max_queue, p.max_active)
            for name, p in zip("abcd", chosen, strict=False)
        ]
        true = {plan.name: dict.fromkeys(plan.size, size) for plan, size in zip(named, sizes, strict=False)}
        self.world = World(named, {"host": BUDGET}, sizes=true, gpu=BUDGET)
        for plan in named:
            if plan.preload:
                self.world.tell(Want(plan.name))

    def model(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.world.plans)))

    def a(self, data: st.DataObject, of: list[str]) -> str:
        return data.draw(st.sampled_from(of))

    def workers(self, *, ready: bool | None = None, leaving: bool | None = None) -> list[str]:
        return sorted(
            name
            for name, worker in self.world.workers.items()
            if ready in (None, worker.ready) and leaving in (None, worker.leaving)
        )

    def active(self) -> list[int]:
        return sorted(call for worker in self.world.workers.values() for call in worker.calls)

    @rule(data=st.data(), bounded=st.booleans())
    def submit(self, data: st.DataObject, bounded: bool) -> None:
        call = self.world.submit(self.model(data), bounded=bounded)
        error = self.world.calls[call].error
        assert error is None or isinstance(error, ModelUnavailable | Overloaded)
        assert not isinstance(error, Overloaded) or (bounded and 1 <= error.retry_after_s <= 60)

    @precondition(lambda self: any(request.waits for request in self.world.calls.values()))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        waiting = [call for call, request in self.world.calls.items() if request.waits]
        self.world.cancel(data.draw(st.sampled_from(waiting)))

    @precondition(lambda self: self.active())
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.world.begin(data.draw(st.sampled_from(self.active())))

    @precondition(lambda self: self.active())
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self.world.end(data.draw(st.sampled_from(self.active())))

    @precondition(lambda self: self.world.fetching)
    @rule(data=st.data())
    def fetched(self, data: st.DataObject) -> None:
        self.world.fetched(self.a(data, sorted(self.world.fetching)))

    @precondition(lambda self: self.workers(ready=False))
    @rule(data=st.data())
    def loaded(self, data: st.DataObject) -> None:
        self.world.loaded(self.a(data, self.workers(ready=False)))

    @precondition(lambda self: self.workers(ready=False))
    @rule(data=st.data())
    def refuses_to_load(self, data: st.DataObject) -> None:
        self.world.refuses_to_load(self.a(data, self.workers(ready=False)))

    @precondition(lambda self: self.workers(ready=False))
    @rule(data=st.data())
    def finds_no_memory(self, data: st.DataObject) -> None:
        self.world.finds_no_memory(self.a(data, self.workers(ready=False)))

    @rule(size=st.integers(0, BUDGET))
    def others_take_memory_of_the_gpu(self, size: int) -> None:
        self.world.of_others = size

    @precondition(lambda self: self.workers(ready=True))
    @rule(data=st.data(), size=st.integers(0, BUDGET + 1), pool=st.sampled_from(["host", "cuda:0"]))
    def grows(self, data: st.DataObject, size: int, pool: str) -> None:
        self.world.grows(self.a(data, self.workers(ready=True)), {pool: size})

    @precondition(lambda self: self.workers())
    @rule(data=st.data())
    def crashes(self, data: st.DataObject) -> None:
        self.world.crashes(self.a(data, self.workers()))

    @precondition(lambda self: self.workers(leaving=True))
    @rule(data=st.data())
    def leaves(self, data: st.DataObject) -> None:
        model = self.a(data, self.workers(leaving=True))
        for call in list(self.world.workers[model].calls):
            self.world.end(call)
        self.world.leaves(model)

    @rule(seconds=st.floats(0.001, 60))
    def wait(self, seconds: float) -> None:
        self.world.wait(seconds)

    @rule(data=st.data())
    def want(self, data: st.DataObject) -> None:
        self.world.tell(Want(self.model(data)))

    @rule(data=st.data(), stay=st.booleans())
    def release(self, data: st.DataObject, stay: bool) -> None:
        self.world.tell(Release(self.model(data), stay))

    def teardown(self) -> None:
        world = getattr(self, "world", None)
        if world is None:
            return
        world.settle()
        for request in world.calls.values():
            assert request.ends == 1, "every call ends exactly once"
        assert world.claimed("host") <= BUDGET
        for name, plan in world.plans.items():
            state = world.scheduler.state(name)
            assert (state == "ready") == (name in world.workers)
            assert world.scheduler.waiting(name) == world.scheduler.active(name) == 0
            assert plan.keep_alive_s is None or name not in world.workers, "it was idle for long enough"


AnyOrder.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
test_any_order = AnyOrder.TestCase


@given(
    models=st.lists(
        st.tuples(st.integers(0, 2 * BUDGET), st.integers(0, BUDGET), st.booleans()), min_size=1, max_size=4
    ),
    asked=st.lists(st.integers(0, 3), max_size=8),
    of_others=st.integers(0, BUDGET),
)
def test_who_fits_on_a_gpu_alone_is_served_whatever_was_estimated(
    models: list[tuple[int, int, bool]], asked: list[int], of_others: int
) -> None:
    plans = [
        ModelPlan(str(i), {"host": 0, "cuda:0": estimate}, preload=preload)
        for i, (estimate, _, preload) in enumerate(models)
    ]
    sizes = {str(i): {"host": 0, "cuda:0": size} for i, (_, size, _) in enumerate(models)}
    world = World(plans, sizes=sizes, gpu=BUDGET)
    world.of_others = of_others
    for plan in plans:
        if plan.preload:
            world.tell(Want(plan.name))
    if not of_others:
        world.settle()
    for i in asked:
        name = str(i % len(models))
        call = world.submit(name)
        world.settle()
        fits = of_others + sizes[name]["cuda:0"] <= BUDGET
        assert (world.calls[call].error is None) == fits
        held = sum(sizes[name]["cuda:0"] for name in world.workers)
        assert held + of_others <= BUDGET or not held


# Time


@dataclass
class Client:
    """Asks again `thinks` seconds after each answer."""

    model: str
    thinks: float


@dataclass
class Load:
    """What a service did in a simulated time."""

    waits: dict[str, list[float]] = field(default_factory=dict)
    served: dict[str, int] = field(default_factory=dict)
    loads: int = 0


def simulate(
    world: World, clients: list[Client], *, call_s: Callable[[], float], load_s: float, until: float
) -> Load:
    """Closed-loop clients against workers that take `load_s` to load and `call_s` for each call."""
    done = Load({c.model: [] for c in clients}, dict.fromkeys((c.model for c in clients), 0))
    happens: list[tuple[float, int, Callable[[], object]]] = []
    order = itertools.count()
    owner: dict[int, Client] = {}
    seen = 0

    def at(when: float, what: Callable[[], object]) -> None:
        heapq.heappush(happens, (when, next(order), what))

    def ask(client: Client) -> None:
        call = world.submit(client.model)
        owner[call] = client

    def answer(call: int) -> None:
        client = owner[call]
        done.served[client.model] += 1
        world.end(call)
        at(world.now + client.thinks, lambda: ask(client))

    def react() -> None:
        nonlocal seen
        while seen < len(world.effects):
            effect = world.effects[seen]
            seen += 1
            match effect:
                case world_events.Fetch(model):
                    at(world.now, partial(world.fetched, model))
                case world_events.Load(model):
                    done.loads += 1
                    at(world.now + load_s, partial(world.loaded, model))
                case world_events.Unload(model):
                    at(world.now + 0.1, partial(world.leaves, model))
                case world_events.Serve(call, model):
                    done.waits[model].append(world.now - world.calls[call].since)
                    at(world.now + call_s(), partial(answer, call))

    for client in clients:
        at(0.0, partial(ask, client))
    while happens and min(happens[0][0], *world.wakes, until) < until:
        if world.wakes and min(world.wakes) <= happens[0][0]:
            world.wake()
        else:
            world.now, _, what = heapq.heappop(happens)
            what()
        react()
    return done


from model_compose.runtime import events as world_events  # noqa: E402


@given(
    seed=st.integers(0, 2**32),
    load_s=st.floats(0.1, 20),
    call_s=st.floats(0.01, 10),
    callers=st.integers(1, 8),
    thinks=st.sampled_from([0.0, 0.001, 0.01]),
)
@settings(max_examples=40, deadline=None)
def test_steady_traffic_on_two_that_do_not_fit_together_starves_none_and_does_not_thrash(
    seed: int, load_s: float, call_s: float, callers: int, thinks: float
) -> None:
    world = World([ModelPlan("a", {"host": 6}), ModelPlan("b", {"host": 6})], {"host": 8}, slots=4)
    clients = [Client(model, thinks) for model in "ab" for _ in range(callers)]
    chance = random.Random(seed)
    quantum = max(MIN_QUANTUM_S, QUANTUM_PER_LOAD * load_s)
    span = 20 * (quantum + load_s)
    call_s = max(call_s, quantum / 50)  # more calls in a turn take long to simulate, and tell no more
    done = simulate(
        world, clients, call_s=lambda: call_s * chance.uniform(0.5, 1.5), load_s=load_s, until=span
    )
    # A turn of the other is: its load, its quantum, the calls that it ends, and then our load.
    turn = load_s + quantum + 1.5 * call_s * (1 + callers / 4) + 1
    assert max(done.waits["a"] + done.waits["b"]) <= 2 * turn
    assert min(done.served.values()) > 0
    assert done.loads <= 2 + span / quantum


@pytest.mark.parametrize("callers", [1, 8])
def test_two_that_take_turns_spend_their_time_serving(callers: int) -> None:
    world = World([ModelPlan("a", {"host": 6}), ModelPlan("b", {"host": 6})], {"host": 8}, slots=8)
    clients = [Client(model, 0.01) for model in "ab" for _ in range(callers)]
    done = simulate(world, clients, call_s=lambda: 0.1, load_s=2.0, until=300)
    best = 300 / 0.11 * callers
    assert sum(done.served.values()) >= 0.7 * best
    assert done.served["a"] == pytest.approx(done.served["b"], rel=0.1)


def test_a_rare_caller_does_not_wait_for_the_quantum_of_an_idle_model() -> None:
    world = World([ModelPlan("a", {"host": 6}), ModelPlan("b", {"host": 6})], {"host": 8})
    done = simulate(
        world,
        [Client("a", 60.0), Client("b", 60.0)],
        call_s=lambda: 0.1,
        load_s=2.0,
        until=600,
    )
    assert max(done.waits["a"] + done.waits["b"]) < 5


def test_a_large_model_gets_its_turn_among_many_small_ones() -> None:
    small = [ModelPlan(f"small{i}", {"host": 2}) for i in range(4)]
    world = World([*small, ModelPlan("large", {"host": 8})], {"host": 8}, slots=4)
    clients = [Client(plan.name, 0.0) for plan in small for _ in range(4)] + [Client("large", 0.0)]
    done = simulate(world, clients, call_s=lambda: 0.5, load_s=1.0, until=300)
    assert done.served["large"] >= 10
    assert max(done.waits["large"]) < 60
    assert min(done.served.values()) >= 10


@given(st.lists(st.sampled_from(["served", "crash"]), max_size=30))
def test_a_call_is_served_at_most_twice_whatever_its_workers_do(fates: list[str]) -> None:
    world = World([ModelPlan("a")], slots=4)
    calls = [world.submit("a") for _ in range(6)]
    for fate in fates:
        worker = world.workers.get("a")
        if worker and worker.calls and fate == "crash":
            world.crashes("a")
        else:
            world.step()
    world.settle()
    for call in calls:
        request = world.calls[call]
        assert request.ends == 1
        assert len(request.served) <= 2
        assert request.error is None or isinstance(request.error, WorkerDied | ModelUnavailable)
