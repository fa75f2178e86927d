"""Which models fit together, and is nobody sent away for nothing?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from model_compose.errors import ModelLoadError
from model_compose.runtime.model import Model, ModelPlan
from model_compose.runtime.placement import MIN_LINGER_S, MIN_QUANTUM_S, Placement


def model(name: str, size: int, *, ready: bool = True, busy: bool = False, used_at: float = 0.0) -> Model:
    made = Model(ModelPlan(name, {"host": size}))
    if ready:
        made.alive, made.state, made.used_at = True, "ready", used_at
    if busy:
        made.active.add(1)
    return made


def names(models: list[Model] | None) -> list[str] | None:
    return None if models is None else [each.plan.name for each in models]


def test_the_least_recently_used_idle_model_goes_first_and_a_busy_one_last() -> None:
    busy, late, early = model("busy", 4, busy=True), model("late", 4, used_at=2), model("early", 4, used_at=1)
    new = model("new", 4, ready=False)
    placement = Placement([busy, late, early, new], {"host": 12})
    assert names(placement.victims(new, now=100)) == ["early"]
    new.size = {"host": 12}
    assert names(placement.victims(new, now=100)) == ["early", "late", "busy"]


def test_nobody_goes_before_its_time_and_it_is_known_when_that_is() -> None:
    busy, idle, new = model("busy", 4, busy=True), model("idle", 4), model("new", 8, ready=False)
    placement = Placement([busy, idle, new], {"host": 8})
    assert placement.victims(new, now=0.0) is None
    assert sorted(placement.evictable_from(0.0)) == [MIN_LINGER_S, MIN_QUANTUM_S]
    assert names(placement.victims(new, now=MIN_QUANTUM_S)) == ["idle", "busy"]


def test_a_model_above_the_whole_budget_goes_before_any_other() -> None:
    small, grown = model("small", 2), model("grown", 20, busy=True)
    placement = Placement([small, grown], {"host": 10})
    assert placement.outgrown() is grown
    assert isinstance(placement.too_big(grown), ModelLoadError)
    grown.draining = True
    assert placement.outgrown() is None


@given(st.lists(st.integers(1, 8), max_size=6), st.integers(1, 12), st.integers(1, 20))
def test_who_goes_makes_enough_room_and_each_of_them_is_needed(
    sizes: list[int], size: int, budget: int
) -> None:
    ready = [model(f"m{i}", each, used_at=i) for i, each in enumerate(sizes)]
    new = model("new", size, ready=False)
    placement = Placement([*ready, new], {"host": budget})
    victims = placement.victims(new, now=1000.0)
    if victims is None:
        assert not ready or size > budget
    else:
        assert placement.fits(new, without=victims)
        for spared in victims:
            assert len(victims) == 1 or not placement.fits(
                new, without=[v for v in victims if v is not spared]
            )
