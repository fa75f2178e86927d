"""Does the scheduler load, evict, serve and refuse what it should? One sentence a test."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from tests.runtime.world import World

from model_compose.drivers.contract import DeviceMemory
from model_compose.errors import (
    ModelLoadError,
    ModelUnavailable,
    OutOfMemory,
    Overloaded,
    SourceOffline,
    WorkerDied,
)
from model_compose.runtime.events import (
    Cancel,
    Ended,
    Exited,
    Fail,
    Fetch,
    Fetched,
    Load,
    Loaded,
    LoadFailed,
    Release,
    Serve,
    Submit,
    Unload,
    Wake,
    WakeAt,
    Want,
    Withdraw,
)
from model_compose.runtime.model import ModelPlan
from model_compose.runtime.placement import MIN_LINGER_S, MIN_QUANTUM_S
from model_compose.runtime.scheduler import FIRST_BACKOFF_S, MAX_BACKOFF_S, MAX_CRASHES, Scheduler


def plan(name: str, size: int = 0, **options: object) -> ModelPlan:
    return ModelPlan(name, {"host": size}, preload=False, **options)  # type: ignore[arg-type]


def world(*plans: ModelPlan, budget: int | None = None, slots: int = 2) -> World:
    return World(plans, None if budget is None else {"host": budget}, slots=slots)


def busy(place: World, model: str) -> list[int]:
    """The calls that a model's worker has."""
    return list(place.workers[model].calls)


def answered(place: World, model: str) -> bool:
    """Whether a request to a model is answered when everything goes well."""
    call = place.submit(model)
    place.settle()
    return place.calls[call].error is None


# Loading and serving


def test_a_request_fetches_loads_and_is_served() -> None:
    s = Scheduler([plan("a", 6)], {"host": 8})
    assert s.on(Submit(1, "a"), 0) == [Fetch("a")]
    assert s.state("a") == "loading"
    assert s.on(Fetched("a", {}), 1) == [Load("a")]
    assert s.on(Loaded("a", 4, {"host": 6}), 2) == [Serve(1, "a")]
    assert s.state("a") == "ready"
    assert s.on(Ended(1), 3) == []
    assert s.active("a") == 0


def test_b_waits_until_a_is_idle() -> None:
    place = world(plan("a", 6), plan("b", 5), budget=8)
    first = place.submit("a")
    place.fetched("a")
    place.loaded("a")
    second = place.submit("b")
    place.fetched("b")
    assert "b" not in place.workers
    place.end(first)
    place.wait(MIN_LINGER_S)
    assert place.effects[-1] == Unload("a")
    place.leaves("a")
    assert place.effects[-1] == Load("b")
    place.loaded("b")
    assert place.effects[-1] == Serve(second, "b")


def test_two_that_fit_together_stay_loaded_together() -> None:
    place = world(plan("a", 4), plan("b", 4), budget=8)
    assert answered(place, "a")
    assert answered(place, "b")
    assert set(place.workers) == {"a", "b"}


def test_loading_one_model_does_not_delay_another() -> None:
    place = world(plan("a"), plan("b"))
    answered(place, "a")
    place.submit("b")
    call = place.submit("a")
    assert call in place.workers["a"].calls


def test_calls_are_served_in_the_order_in_which_they_came() -> None:
    place = world(plan("a"), slots=2)
    calls = [place.submit("a") for _ in range(6)]
    place.settle()
    assert [e.call for e in place.effects if isinstance(e, Serve)] == calls


def test_a_worker_gets_no_more_than_its_slots() -> None:
    place = world(plan("a"), slots=3)
    for _ in range(5):
        place.submit("a")
    place.fetched("a")
    place.loaded("a")
    assert len(busy(place, "a")) == 3
    assert place.scheduler.waiting("a") == 2


def test_max_active_is_a_limit_below_the_slots() -> None:
    place = world(plan("a", max_active=1), slots=8)
    for _ in range(3):
        place.submit("a")
    place.fetched("a")
    place.loaded("a")
    assert len(busy(place, "a")) == 1


def test_of_idle_models_the_least_recently_used_one_is_evicted() -> None:
    place = world(plan("a", 4), plan("b", 4), plan("c", 4), budget=8)
    for model in ("a", "b", "a"):
        place.wait(1)
        answered(place, model)
    place.wait(1)
    answered(place, "c")
    assert set(place.workers) == {"a", "c"}


def test_no_more_models_are_evicted_than_it_takes() -> None:
    place = world(plan("small", 1), plan("large", 7), plan("new", 7), budget=8)
    answered(place, "small")
    place.wait(1)
    answered(place, "large")
    answered(place, "new")
    assert set(place.workers) == {"small", "new"}


def test_pools_have_budgets_of_their_own() -> None:
    plans = [
        ModelPlan("a", {"host": 1, "cuda:0": 6}, preload=False),
        ModelPlan("b", {"host": 1, "cuda:1": 6}, preload=False),
    ]
    place = World(plans, {"host": 8, "cuda:0": 8, "cuda:1": 8})
    assert answered(place, "a")
    assert answered(place, "b")
    assert set(place.workers) == {"a", "b"}
    assert place.scheduler.used("cuda:0") == 6
    assert place.scheduler.used("host") == 2


def test_a_pool_without_a_budget_is_unlimited() -> None:
    place = World([ModelPlan("a", {"cuda:0": 1 << 60}, preload=False)], {"host": 8})
    assert answered(place, "a")


def test_what_no_budget_can_hold_has_failed() -> None:
    place = world(plan("a", 9 << 30), budget=8 << 30)
    call = place.submit("a")
    place.fetched("a")
    error = place.calls[call].error
    assert isinstance(error, ModelUnavailable)
    assert "9.00 GiB" in str(error)
    assert "8.00 GiB" in str(error)
    assert place.scheduler.state("a") == "failed"
    assert not place.workers


def test_an_estimate_gives_way_to_what_is_measured() -> None:
    place = World([plan("a", 8), plan("b", 5)], {"host": 8}, sizes={"a": {"host": 3}, "b": {"host": 5}})
    answered(place, "a")
    assert place.scheduler.size("a") == {"host": 3}
    answered(place, "b")
    assert set(place.workers) == {"a", "b"}


def test_what_is_known_of_the_weights_on_disk_counts_before_what_was_planned() -> None:
    s = Scheduler([plan("a", 3), plan("b", 3)])
    for name, size in (("a", {"cuda:0": 100}), ("b", {})):
        s.on(Want(name), 0)
        s.on(Fetched(name, size), 0)
    assert s.size("a") == {"cuda:0": 100}
    assert s.size("b") == {"host": 3}


def test_of_a_pool_that_is_not_measured_what_was_declared_stands() -> None:
    a = ModelPlan("a", {"cuda:0": 6}, preload=False)
    b = ModelPlan("b", {"cuda:0": 5}, preload=False)
    place = World([a, b], {"host": 8, "cuda:0": 8}, sizes={"a": {"host": 1}, "b": {"host": 1, "cuda:0": 4}})
    answered(place, "a")
    assert place.scheduler.size("a") == {"cuda:0": 6, "host": 1}
    place.grows("a", {"host": 2})
    assert place.scheduler.size("a") == {"cuda:0": 6, "host": 2}
    answered(place, "b")
    assert place.scheduler.size("b") == {"cuda:0": 4, "host": 1}
    assert set(place.workers) == {"b"}, "both did not fit on the GPU"


# Memory that turns out to be more


def test_idle_models_go_when_a_measurement_exceeds_the_budget() -> None:
    place = world(plan("a", 4), plan("b", 4), budget=8)
    answered(place, "a")
    place.wait(1)
    answered(place, "b")
    place.grows("b", {"host": 6})
    assert place.workers["a"].leaving
    assert not place.workers["b"].leaving


def test_a_busy_model_goes_when_all_are_busy_and_too_large_together() -> None:
    place = world(plan("a", 4), plan("b", 4), budget=8)
    for model in ("a", "b"):
        answered(place, model)
        place.wait(1)
    calls = [place.submit("a"), place.submit("b")]
    place.grows("b", {"host": 6})
    late = place.submit("a")
    assert late not in busy(place, "a")  # it gets no new calls, and keeps those that it has
    place.end(calls[0])
    assert place.workers["a"].leaving
    assert not place.workers["b"].leaving
    place.settle()
    assert place.calls[late].error is None


def test_a_model_that_outgrows_the_whole_budget_fails_with_its_calls() -> None:
    place = world(plan("a", 4), plan("b", 4), budget=8)
    answered(place, "b")
    call = place.submit("a")
    place.fetched("a")
    place.loaded("a")
    place.grows("a", {"host": 9})
    assert isinstance(place.calls[call].error, ModelUnavailable)
    place.settle()
    assert set(place.workers) == {"b"}
    assert place.scheduler.state("a") == "failed"


# Fairness


def test_a_busy_model_keeps_its_memory_for_its_quantum_and_then_goes() -> None:
    place = world(plan("a", 6), plan("b", 5), budget=8)
    answered(place, "a")
    place.submit("a")
    waiting = place.submit("b")
    place.fetched("b")
    place.wait(MIN_QUANTUM_S - 0.01)
    also = place.submit("a")
    assert also in busy(place, "a")
    place.wait(0.02)
    assert place.submit("a") not in busy(place, "a")
    place.settle()
    assert place.calls[waiting].error is None
    served = [e.call for e in place.effects if isinstance(e, Serve)]
    assert served.index(waiting) > served.index(also)


def test_a_wish_throws_out_nothing() -> None:
    place = world(plan("a", 6), plan("b", 5), budget=8)
    answered(place, "a")
    place.tell(Want("b"))
    place.settle()
    assert set(place.workers) == {"a"}
    assert place.scheduler.state("b") == "unloaded"
    assert not place.scheduler.wanted("b")  # it waits for its first request


def test_a_wish_waits_for_memory_that_is_on_its_way() -> None:
    place = world(plan("a", 6), plan("b", 5), budget=8)
    answered(place, "a")
    place.tell(Release("a"))
    place.tell(Want("b"))
    place.settle()
    assert set(place.workers) == {"b"}


def test_nobody_younger_takes_memory_that_is_made_for_the_oldest() -> None:
    place = world(plan("a", 8), plan("large", 8), plan("small", 1), budget=8)
    call = place.submit("a")
    place.fetched("a")
    place.loaded("a")
    place.wait(MIN_QUANTUM_S)
    place.submit("large")
    place.fetched("large")
    place.submit("small")
    place.fetched("small")
    place.end(call)
    place.leaves("a")
    assert set(place.workers) == {"large"}


# Keeping alive


def test_keep_alive_for_ever_asks_for_no_wake() -> None:
    place = world(plan("a"))
    answered(place, "a")
    assert not any(isinstance(e, WakeAt) for e in place.effects)
    assert set(place.workers) == {"a"}


def test_keep_alive_unloads_a_model_that_was_idle_for_so_long() -> None:
    place = world(plan("a", keep_alive_s=10))
    call = place.submit("a")
    place.fetched("a")
    place.loaded("a")
    place.wait(100)
    assert not place.workers["a"].leaving  # it works
    place.end(call)
    place.wait(9.9)
    assert not place.workers["a"].leaving
    place.wait(0.2)
    assert place.workers["a"].leaving


def test_a_request_in_time_keeps_a_model_alive() -> None:
    place = world(plan("a", keep_alive_s=10))
    for _ in range(5):
        call = place.submit("a")
        if "a" not in place.workers:
            place.fetched("a")
            place.loaded("a")
        place.end(call)
        place.wait(9)
    assert len(place.loads) == 1


def test_keep_alive_zero_unloads_with_the_last_call() -> None:
    place = world(plan("a", keep_alive_s=0))
    calls = [place.submit("a"), place.submit("a")]
    place.fetched("a")
    place.loaded("a")
    place.end(calls[0])
    assert not place.workers["a"].leaving
    place.end(calls[1])
    assert place.workers["a"].leaving


def test_a_request_for_a_model_that_is_leaving_loads_it_again() -> None:
    place = world(plan("a", keep_alive_s=0))
    place.end(_served(place, "a"))
    call = place.submit("a")
    assert not place.calls[call].served
    place.leaves("a")
    place.loaded("a")
    assert call in busy(place, "a")


def _served(place: World, model: str) -> int:
    call = place.submit(model)
    place.fetched(model)
    place.loaded(model)
    return call


# Admission


def test_a_full_queue_refuses_what_is_bounded_and_takes_what_is_not() -> None:
    place = world(plan("a", max_queue=2), slots=1)
    calls = [place.submit("a", bounded=True) for _ in range(3)]
    assert isinstance(place.calls[calls[2]].error, Overloaded)
    assert place.calls[calls[1]].error is None
    assert place.calls[place.submit("a", bounded=False)].error is None
    assert place.scheduler.room("a") == 0


def test_a_request_that_is_served_at_once_needs_no_place_in_the_queue() -> None:
    place = world(plan("a", max_queue=1), slots=3)
    answered(place, "a")
    calls = [place.submit("a", bounded=True) for _ in range(5)]
    refused = [call for call in calls if place.calls[call].error]
    assert len(busy(place, "a")) == 3
    assert refused == calls[4:]


def test_room_is_what_would_be_taken_now() -> None:
    place = world(plan("a", max_queue=2), slots=3)
    before = place.scheduler.room("a")
    answered(place, "a")
    rooms = [place.scheduler.room("a")]
    for _ in range(6):
        place.submit("a", bounded=True)
        rooms.append(place.scheduler.room("a"))
    assert before == 2
    assert rooms == [5, 4, 3, 2, 1, 0, 0]


def test_overloaded_says_when_the_queue_will_be_through() -> None:
    place = world(plan("a", max_queue=8), slots=2)
    answered(place, "a")
    for _ in range(10):
        place.submit("a", bounded=True)
    for _ in range(20):  # calls take 6 seconds
        place.wait(6)
        for call in busy(place, "a"):
            place.end(call)
            place.submit("a", bounded=True)
    refused = place.calls[place.submit("a", bounded=True)].error
    assert isinstance(refused, Overloaded)
    assert 12 <= refused.retry_after_s <= 25  # eight wait, two at a time


def test_overloaded_never_says_less_than_a_second_nor_more_than_a_minute() -> None:
    place = world(plan("a", max_queue=1), slots=1)
    place.submit("a", bounded=True)
    early = place.calls[place.submit("a", bounded=True)].error
    assert isinstance(early, Overloaded)
    assert early.retry_after_s == 1
    place.fetched("a")
    place.loaded("a")
    place.wait(3600)
    place.submit("a")
    place.end(1)
    place.submit("a")
    late = place.calls[place.submit("a", bounded=True)].error
    assert isinstance(late, Overloaded)
    assert late.retry_after_s == 60


# Cancelling


def test_a_waiting_call_that_is_cancelled_leaves_the_queue() -> None:
    place = world(plan("a"), slots=1)
    _served(place, "a")
    waiting, after = place.submit("a"), place.submit("a")
    place.cancel(waiting)
    assert place.scheduler.waiting("a") == 1
    place.end(1)
    assert busy(place, "a") == [after]


def test_a_running_call_that_is_cancelled_is_withdrawn_and_holds_its_slot_until_it_ends() -> None:
    place = world(plan("a"), slots=1)
    call = _served(place, "a")
    after = place.submit("a")
    place.cancel(call)
    assert place.effects[-1] == Withdraw(call, "a")
    assert busy(place, "a") == [call]
    place.end(call)
    assert busy(place, "a") == [after]


def test_a_second_cancel_and_one_after_the_end_do_nothing() -> None:
    s = Scheduler([plan("a")])
    place = world(plan("a"))
    call = _served(place, "a")
    place.cancel(call)
    before = len(place.effects)
    place.scheduler.on(Wake(), place.now)
    assert place.scheduler.on(Cancel(call), place.now) == []
    place.end(call)
    assert place.scheduler.on(Cancel(call), place.now) == []
    assert len(place.effects) == before
    assert s.on(Cancel(99), 0) == []


def test_cancelling_the_only_call_of_a_model_that_loads_lets_it_load() -> None:
    place = world(plan("a"))
    call = place.submit("a")
    place.fetched("a")
    place.cancel(call)
    place.settle()
    assert place.scheduler.state("a") == "ready"


def test_cancelling_the_only_call_of_a_model_that_is_fetched_loads_nothing() -> None:
    place = world(plan("a"))
    place.cancel(place.submit("a"))
    place.settle()
    assert not place.loads
    assert place.scheduler.state("a") == "unloaded"


# Crashes


def test_a_crash_fails_what_had_begun_and_runs_the_rest_once_more_alone() -> None:
    place = world(plan("a"), slots=3)
    calls = [place.submit("a") for _ in range(4)]
    place.fetched("a")
    place.loaded("a")
    place.begin(calls[1])
    place.crashes("a")
    assert isinstance(place.calls[calls[1]].error, WorkerDied)
    place.wait(FIRST_BACKOFF_S)
    place.loaded("a")
    assert busy(place, "a") == [calls[0]]
    place.end(calls[0])
    assert busy(place, "a") == [calls[2]]
    place.end(calls[2])
    assert busy(place, "a") == [calls[3]]  # never served before: nothing against company
    assert [e.call for e in place.effects if isinstance(e, Serve) and e.alone] == [calls[0], calls[2]]


def test_a_poisonous_call_takes_nobody_with_it_a_second_time() -> None:
    place = world(plan("a"), slots=8)
    calls = [place.submit("a") for _ in range(8)]
    poison = calls[3]
    place.fetched("a")
    place.loaded("a")
    for _ in range(100):
        worker = place.workers.get("a")
        if worker and poison in worker.calls:
            place.crashes("a")
        elif not place.step():
            break
    errors = [place.calls[call].error for call in calls]
    assert isinstance(errors[3], WorkerDied)
    assert [error for error in errors if error] == [errors[3]]
    assert place.scheduler.state("a") == "ready"


def test_what_the_caller_left_is_not_run_again_after_a_crash() -> None:
    place = world(plan("a"))
    call = _served(place, "a")
    place.cancel(call)
    place.crashes("a")
    place.settle()
    assert place.calls[call].served == [0.0]


def test_restarts_back_off_and_give_up_after_so_many_crashes() -> None:
    place = world(plan("a"))
    place.submit("a")
    place.fetched("a")
    waits = []
    for _ in range(MAX_CRASHES):
        place.crashes("a")
        began = place.now
        if "a" not in place.workers and place.wakes:
            place.wake()
            waits.append(place.now - began)
    assert waits == [FIRST_BACKOFF_S * 2**i for i in range(MAX_CRASHES - 1)]
    assert waits[-1] <= MAX_BACKOFF_S
    assert place.scheduler.state("a") == "failed"
    assert isinstance(place.calls[1].error, ModelUnavailable)
    assert "was killed" in str(place.calls[1].error)
    assert isinstance(place.scheduler.error("a"), WorkerDied)


def test_a_model_that_serves_between_its_crashes_is_not_given_up() -> None:
    place = world(plan("a"))
    for _ in range(3 * MAX_CRASHES):
        assert answered(place, "a")
        place.crashes("a")
    assert answered(place, "a")


def test_a_preloaded_model_comes_back_after_a_crash_and_another_waits_for_a_request() -> None:
    place = World([ModelPlan("eager"), ModelPlan("lazy", preload=False)])
    place.tell(Want("eager"))
    place.tell(Want("lazy"))
    place.settle()
    place.crashes("eager")
    place.crashes("lazy")
    place.settle()
    assert set(place.workers) == {"eager"}


def test_a_wish_outlives_a_crash_while_it_loads() -> None:
    place = world(plan("lazy"))
    place.tell(Want("lazy"))
    place.fetched("lazy")
    place.crashes("lazy")
    place.settle()
    assert set(place.workers) == {"lazy"}


def test_one_model_in_its_back_off_does_not_hold_up_another() -> None:
    place = world(plan("a", 4), plan("b", 4), budget=8)
    place.submit("a")
    place.fetched("a")
    place.crashes("a")
    place.submit("b")
    place.fetched("b")
    assert set(place.workers) == {"b"}


# What cannot be loaded


def test_what_cannot_be_loaded_has_failed_and_says_why_at_once() -> None:
    place = world(plan("a"))
    waiting = place.submit("a")
    place.fetched("a")
    place.refuses_to_load("a")
    assert place.workers["a"].leaving
    late = place.submit("a")
    for call in (waiting, late):
        error = place.calls[call].error
        assert isinstance(error, ModelUnavailable)
        assert "`a` is no model" in str(error)
    assert place.scheduler.state("a") == "failed"


def test_a_source_that_is_offline_is_asked_again_a_few_times() -> None:
    s = Scheduler([plan("a")])
    s.on(Submit(1, "a"), 0)
    now, tries = 0.0, 1
    for _ in range(20):
        effects = s.on(Exited("a", SourceOffline("no network")), now)
        wakes = [e for e in effects if isinstance(e, WakeAt)]
        if not wakes:
            break
        now = wakes[0].at
        assert s.on(Wake(), now) == [Fetch("a")]
        tries += 1
    assert tries == MAX_CRASHES
    (fail,) = [e for e in effects if isinstance(e, Fail)]
    assert isinstance(fail.error, ModelUnavailable)
    assert "no network" in str(fail.error)


def test_weights_that_cannot_be_had_are_asked_for_again_when_somebody_wants_the_model() -> None:
    s = Scheduler([plan("a")])
    s.on(Submit(1, "a"), 0)
    s.on(LoadFailed("a", ModelLoadError("no such file")), 0)
    assert s.on(Submit(2, "a"), 1)[0].call == 2  # type: ignore[union-attr]
    assert s.on(Want("a"), 2) == [Fetch("a")]
    assert s.state("a") == "loading"


def test_a_model_that_failed_is_loaded_when_somebody_wants_it() -> None:
    place = world(plan("a"))
    place.submit("a")
    place.fetched("a")
    place.refuses_to_load("a")
    place.tell(Want("a"))
    assert "a" not in place.fetching  # the old worker is not gone yet
    place.settle()
    assert place.scheduler.state("a") == "ready"
    assert place.scheduler.error("a") is None


# Want, Release, stay


def test_release_lets_the_running_calls_end_and_then_unloads() -> None:
    place = world(plan("a"))
    call = _served(place, "a")
    place.tell(Release("a"))
    assert not place.workers["a"].leaving
    place.end(call)
    assert place.workers["a"].leaving
    place.leaves("a")
    assert place.scheduler.state("a") == "unloaded"


def test_what_is_released_comes_back_for_a_request_and_fetches_its_weights_anew() -> None:
    place = world(plan("a"))
    answered(place, "a")
    place.tell(Release("a"))
    place.settle()
    place.submit("a")
    assert place.effects[-1] == Fetch("a")


def test_what_is_stopped_fails_its_queue_and_stays_away_until_it_is_wanted() -> None:
    place = world(plan("a"), slots=1)
    running = _served(place, "a")
    waiting = place.submit("a")
    place.tell(Release("a", stay=True))
    assert isinstance(place.calls[waiting].error, ModelUnavailable)
    assert "is stopped" in str(place.calls[waiting].error)
    place.settle()
    assert place.calls[running].error is None
    assert isinstance(place.calls[place.submit("a")].error, ModelUnavailable)
    assert not place.workers
    place.tell(Want("a"))
    place.settle()
    assert answered(place, "a")


def test_a_stopped_model_whose_worker_crashes_is_not_wanted() -> None:
    place = World([ModelPlan("a")])
    call = _served(place, "a")
    place.tell(Release("a", stay=True))
    place.crashes("a")
    assert isinstance(place.calls[call].error, ModelUnavailable)
    assert not place.scheduler.wanted("a")
    place.settle()
    assert not place.workers


def restart(place: World, model: str) -> None:
    place.tell(Release(model))
    place.tell(Want(model))


def test_a_restart_ends_the_worker_and_starts_another() -> None:
    place = world(plan("a"))
    answered(place, "a")
    restart(place, "a")
    assert place.workers["a"].leaving
    place.settle()
    assert place.scheduler.state("a") == "ready"
    assert len(place.loads) == 2


@pytest.mark.parametrize("when", ["fetching", "loading", "serving", "leaving", "failed"])
def test_a_restart_at_any_time_ends_with_a_ready_model(when: str) -> None:
    place = world(plan("a"))
    place.submit("a")
    if when != "fetching":
        place.fetched("a")
    if when == "serving":
        place.loaded("a")
    elif when == "leaving":
        place.tell(Release("a"))
    elif when == "failed":
        place.refuses_to_load("a")
    restart(place, "a")
    place.settle()
    assert place.scheduler.state("a") == "ready"
    assert set(place.workers) == {"a"}


def test_a_wish_during_a_fetch_that_nobody_waits_for_is_not_forgotten() -> None:
    place = world(plan("a"))
    place.cancel(place.submit("a"))
    place.tell(Want("a"))
    place.settle()
    assert place.scheduler.state("a") == "ready"


@pytest.mark.parametrize("answer", ["loaded", "refused"])
def test_what_a_leaving_worker_says_of_its_load_is_no_matter(answer: str) -> None:
    place = world(plan("a"))
    call = place.submit("a")
    place.fetched("a")
    place.tell(Release("a"))
    if answer == "loaded":
        place.tell(Loaded("a", 2, {}))
    else:
        place.refuses_to_load("a")
    assert not place.calls[call].served
    assert place.scheduler.state("a") == "unloaded"
    place.settle()
    assert place.calls[call].error is None
    assert place.calls[call].ends == 1


def test_what_loads_after_it_was_given_up_stays_failed() -> None:
    place = world(plan("a"))
    place.submit("a")
    place.fetched("a")
    place.refuses_to_load("a")  # it took too long, say
    place.tell(Loaded("a", 2, {}))
    assert place.scheduler.state("a") == "failed"


def sizes(**of: int) -> Mapping[str, Mapping[str, int]]:
    return {name: {"host": size} for name, size in of.items()}


def test_a_model_that_is_larger_than_estimated_still_serves_its_request() -> None:
    place = World([plan("a", 3), plan("b", 3)], {"host": 8}, sizes=sizes(a=5, b=5))
    assert answered(place, "a")
    assert answered(place, "b")
    assert answered(place, "a")
    assert len(place.workers) == 1


# GPUs, whose memory is known when the first model has been loaded there


def on_gpu(name: str, size: int, **options: object) -> ModelPlan:
    return ModelPlan(name, {"host": 1, "cuda:0": size}, preload=False, **options)  # type: ignore[arg-type]


def test_models_that_do_not_fit_on_a_gpu_together_take_turns() -> None:
    place = World([on_gpu("a", 6), on_gpu("b", 5), on_gpu("c", 4)], gpu=10)
    assert answered(place, "a")
    assert answered(place, "b")
    assert set(place.workers) == {"b"}
    assert answered(place, "c")
    assert set(place.workers) == {"b", "c"}


def test_what_other_programs_have_of_a_gpu_is_left_to_them() -> None:
    place = World([on_gpu("a", 3), on_gpu("b", 3), on_gpu("c", 3)], gpu=10)
    place.of_others = 4
    assert answered(place, "a")
    assert answered(place, "b")
    assert answered(place, "c")
    assert "a" not in place.workers
    place.of_others = 0
    assert answered(place, "a")  # which sees, once it is there, how much there is now
    assert answered(place, "b")
    assert answered(place, "c")
    assert len(place.workers) == 3


def test_a_model_that_is_alone_on_a_gpu_is_loaded_whatever_others_had() -> None:
    place = World([on_gpu("a", 2), on_gpu("b", 9)], gpu=10)
    place.of_others = 5
    assert answered(place, "a")
    place.of_others = 0
    assert answered(place, "b")
    assert set(place.workers) == {"b"}


def test_an_estimate_above_what_a_gpu_has_is_tried_alone() -> None:
    sizes = {"a": {"cuda:0": 2}, "b": {"cuda:0": 9}, "c": {"cuda:0": 12}}
    place = World([on_gpu("a", 2), on_gpu("b", 11), on_gpu("c", 12)], sizes=sizes, gpu=10)
    assert answered(place, "a")
    assert answered(place, "b")
    assert set(place.workers) == {"b"}
    call = place.submit("c")
    place.settle()
    assert "out of memory on `cuda:0`" in str(place.calls[call].error)
    assert len([name for _, name in place.loads if name == "c"]) == 1


def test_models_of_the_cpu_do_not_wait_for_a_gpu_that_is_full() -> None:
    place = World([on_gpu("a", 9), plan("b", 5)], gpu=10)
    assert answered(place, "a")
    place.grows("a", {"cuda:0": 12})  # it holds what it does not need, and it fits
    assert set(place.workers) == {"a"}
    assert answered(place, "b")
    assert set(place.workers) == {"a", "b"}


def test_a_load_that_finds_no_memory_beside_others_is_tried_again_alone() -> None:
    place = World([on_gpu("a", 4), on_gpu("b", 4)], gpu=10)
    assert answered(place, "a")
    call = place.submit("b")
    place.fetched("b")
    place.finds_no_memory("b")
    assert place.workers["b"].leaving
    place.settle()
    assert place.calls[call].error is None
    assert set(place.workers) == {"b"}  # it needs more than was free
    assert answered(place, "a")
    assert set(place.workers) == {"a", "b"}  # as much as was measured, and no more
    place = World([on_gpu("a", 4), on_gpu("b", 4)], gpu=10)
    assert answered(place, "a")
    call = place.submit("b")
    place.fetched("b")
    place.finds_no_memory("b")
    place.leaves("b")
    place.wait(MAX_BACKOFF_S)
    place.leaves("a")
    place.finds_no_memory("b")  # with nobody beside it
    assert "out of memory" in str(place.calls[call].error)
    assert place.scheduler.state("b") == "failed"


def test_alone_there_is_no_more_memory_to_hope_for() -> None:
    place = World([on_gpu("a", 4)], gpu=10)
    call = place.submit("a")
    place.fetched("a")
    place.finds_no_memory("a")
    assert "out of memory" in str(place.calls[call].error)
    assert place.scheduler.state("a") == "failed"


def test_so_is_one_whose_size_nobody_knows() -> None:
    sizes = {"a": {"cuda:0": 4}, "b": {"cuda:0": 7}}
    place = World([on_gpu("a", 4), ModelPlan("b", preload=False)], sizes=sizes, gpu=10)
    assert answered(place, "a")
    call = place.submit("b")
    place.fetched("b")
    place.finds_no_memory("b")
    place.settle()
    assert place.calls[call].error is None
    assert set(place.workers) == {"b"}


def test_models_that_begin_together_take_turns_though_nobody_knows_yet_how_much_there_is() -> None:
    plans = [ModelPlan(name, {"host": 1, "cuda:0": 6}) for name in "ab"]
    place = World(plans, gpu=10)
    for name in "ab":
        place.tell(Want(name))
        place.fetched(name)
    place.finds_no_memory("a")  # both have taken half of it
    place.finds_no_memory("b")
    place.settle()
    assert len(place.workers) == 1
    for name in "abab":
        assert answered(place, name)
        assert set(place.workers) == {name}


def test_memory_that_runs_out_elsewhere_sends_nobody_away() -> None:
    for pool in ("host", "cuda:1", None):
        place = World([on_gpu("a", 4), on_gpu("b", 4)], gpu=10)
        assert answered(place, "a")
        call = place.submit("b")
        place.fetched("b")
        place.tell(LoadFailed("b", OutOfMemory("out of memory", pool=pool)))
        assert "out of memory" in str(place.calls[call].error)
        place.leaves("b")
        assert set(place.workers) == {"a"}


def test_a_model_that_was_taken_for_one_on_a_gpu_is_none_when_its_worker_has_none() -> None:
    declared = ModelPlan("b", {"cuda:0": 6}, preload=False)
    s = Scheduler([ModelPlan("a", preload=False), declared])
    for i, name in enumerate("ab"):
        s.on(Submit(i, name), 0)
        s.on(Fetched(name, {"host": 1, "cuda:0": 6}), 1)
        s.on(Loaded(name, 1, {"host": 7}, {}), 2)
    assert s.size("a") == {"host": 7}
    assert s.size("b") == {"host": 7, "cuda:0": 6}  # the file knows of what no worker tells


def test_what_a_model_may_take_is_not_free_for_others() -> None:
    s = Scheduler([on_gpu("a", 5), on_gpu("b", 3)])
    s.on(Submit(1, "a"), 0)
    s.on(Fetched("a", {}), 1)
    # Of 10 others have 4; it has 1 and may take 5.
    s.on(Loaded("a", 1, {"cuda:0": 5}, {"cuda:0": DeviceMemory(10, 5, held=1)}), 2)
    s.on(Ended(1), 3)
    s.on(Submit(2, "b"), 4)
    assert Load("b") not in s.on(Fetched("b", {}), 5)


def test_a_wish_that_finds_no_memory_waits_for_a_request() -> None:
    place = World([on_gpu("a", 4), ModelPlan("b", {"cuda:0": 1})], gpu=10)
    assert answered(place, "a")
    place.tell(Want("b"))
    place.fetched("b")
    place.finds_no_memory("b")
    place.settle()
    assert set(place.workers) == {"a"}
    assert place.scheduler.state("b") == "unloaded"
    assert answered(place, "b")
    assert set(place.workers) == {"b"}
