"""What goes together into one forward pass, and does every row get into exactly one?"""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from model_compose.runtime.batch import RETURN_WAIT_S, RETURN_WAIT_SHARE, Batcher, Row, Wait

costs = st.integers(0, 40)


def row(call: int, cost: int = 1, *, key: str = "k", alone: bool = False, index: int = 0) -> Row:
    return Row(call, index, cost, key, alone)


def batch_of(batcher: Batcher, now: float = 0.0) -> list[Row]:
    batch = batcher.next(now)
    assert isinstance(batch, list)
    return batch


def padded(batch: list[Row]) -> int:
    return len(batch) * max(each.cost for each in batch)


def test_without_rows_there_is_no_batch() -> None:
    assert Batcher(8, 100).next(0.0) is None


def test_a_lone_row_does_not_wait() -> None:
    batcher = Batcher(8, 100)
    batcher.add([row(1)])
    assert batch_of(batcher) == [row(1)]
    assert len(batcher) == 0


def test_what_queued_meanwhile_goes_together() -> None:
    batcher = Batcher(8, 100)
    for call in range(5):
        batcher.add([row(call)])
    assert {each.call for each in batch_of(batcher)} == {0, 1, 2, 3, 4}


def test_a_batch_has_at_most_so_many_rows_and_the_oldest_go_first() -> None:
    batcher = Batcher(3, 100)
    batcher.add([row(call) for call in range(5)])
    assert [each.call for each in batch_of(batcher)] == [0, 1, 2]
    assert [each.call for each in batch_of(batcher)] == [3, 4]


def test_the_longest_row_comes_first() -> None:
    batcher = Batcher(8, 1000)
    batcher.add([row(1, 3), row(2, 9), row(3, 5)])
    assert [each.cost for each in batch_of(batcher)] == [9, 5, 3]


def test_padding_counts_against_the_budget() -> None:
    batcher = Batcher(8, 20)
    batcher.add([row(1, 10), row(2, 1), row(3, 1)])
    assert {each.call for each in batch_of(batcher)} == {1, 2}  # two times ten


def test_rows_of_nearly_the_same_cost_are_put_together() -> None:
    batcher = Batcher(2, 1000)
    batcher.add([row(1, 10), row(2, 100), row(3, 11)])
    assert {each.call for each in batch_of(batcher)} == {1, 3}
    assert {each.call for each in batch_of(batcher)} == {2}


def test_a_row_that_exceeds_the_budget_goes_by_itself() -> None:
    batcher = Batcher(8, 20)
    batcher.add([row(1, 50), row(2, 1)])
    assert [each.call for each in batch_of(batcher)] == [1]


def test_only_rows_with_equal_keys_share_a_batch() -> None:
    batcher = Batcher(8, 100)
    batcher.add([row(1, key="small"), row(2, key="large"), row(3, key="small")])
    assert {each.call for each in batch_of(batcher)} == {1, 3}
    assert {each.call for each in batch_of(batcher)} == {2}


def test_a_row_that_must_be_alone_has_no_company_either_way() -> None:
    batcher = Batcher(8, 100)
    batcher.add([row(1), row(2, alone=True), row(3)])
    assert {each.call for each in batch_of(batcher)} == {1, 3}
    assert batch_of(batcher) == [row(2, alone=True)]


def test_cancelling_drops_the_waiting_rows_of_that_call_only() -> None:
    batcher = Batcher(8, 100)
    batcher.add([row(1, index=0), row(2), row(1, index=1)])
    assert batcher.cancel(1) == 2
    assert batcher.cancel(1) == 0
    assert batch_of(batcher) == [row(2)]


def test_after_a_batch_of_several_callers_there_is_a_moment_for_them_to_return() -> None:
    batcher = Batcher(8, 100)
    batcher.computed([row(1), row(2), row(3)], now=10.0, took_s=1.0)
    batcher.add([row(4)])
    waits = batcher.next(10.0)
    assert waits == Wait(10.0 + RETURN_WAIT_S)
    batcher.add([row(5), row(6)])
    assert len(batch_of(batcher, 10.0)) == 3  # all are back: no reason to wait


def test_the_moment_passes() -> None:
    batcher = Batcher(8, 100)
    batcher.computed([row(1), row(2)], now=10.0, took_s=1.0)
    batcher.add([row(3)])
    assert batch_of(batcher, 10.0 + RETURN_WAIT_S) == [row(3)]


def test_nobody_waits_after_a_batch_of_one_caller() -> None:
    batcher = Batcher(8, 100)
    batcher.computed([row(1, index=0), row(1, index=1)], now=10.0, took_s=1.0)
    batcher.add([row(2)])
    assert batch_of(batcher, 10.0) == [row(2)]


@given(callers=st.integers(2, 20), took_s=st.floats(0, 10))
def test_the_wait_is_short_beside_the_batch_that_it_follows(callers: int, took_s: float) -> None:
    batcher = Batcher(32, 1000)
    batcher.computed([row(call) for call in range(callers)], now=5.0, took_s=took_s)
    batcher.add([row(99)])
    batch = batcher.next(5.0)
    if isinstance(batch, Wait):
        assert batch.until - 5.0 <= min(RETURN_WAIT_S, RETURN_WAIT_SHARE * took_s) + 1e-12
        batch = batcher.next(batch.until)
    assert batch == [row(99)]


class AnyOrder(RuleBasedStateMachine):
    """Rows come, are cancelled and are computed in any order."""

    @initialize(max_rows=st.integers(1, 6), max_cost=st.integers(1, 60))
    def start(self, max_rows: int, max_cost: int) -> None:
        self.max_rows, self.max_cost = max_rows, max_cost
        self.batcher = Batcher(max_rows, max_cost)
        self.waiting: list[Row] = []
        self.taken: Counter[Row] = Counter()
        self.calls = 0
        self.now = 0.0

    @rule(costs=st.lists(costs, min_size=1, max_size=5), key=st.sampled_from("ab"), alone=st.booleans())
    def add(self, costs: list[int], key: str, alone: bool) -> None:
        self.calls += 1
        rows = [Row(self.calls, i, cost, key, alone) for i, cost in enumerate(costs)]
        self.batcher.add(rows)
        self.waiting += rows

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(self.waiting)).call
        dropped = [each for each in self.waiting if each.call == call]
        assert self.batcher.cancel(call) == len(dropped)
        self.waiting = [each for each in self.waiting if each.call != call]

    @rule(seconds=st.floats(0, 0.01), took_s=st.floats(0, 1))
    def compute(self, seconds: float, took_s: float) -> None:
        self.now += seconds
        batch = self.batcher.next(self.now)
        if isinstance(batch, Wait):
            assert self.waiting
            assert self.now < batch.until <= self.now + RETURN_WAIT_S
            self.now = batch.until
            batch = self.batcher.next(self.now)
        assert not isinstance(batch, Wait), "it waits once"
        if batch is None:
            assert self.waiting == []
            return
        self.look(batch)
        self.taken.update(batch)
        self.waiting = [each for each in self.waiting if each not in batch]
        assert len(self.batcher) == len(self.waiting)
        self.now += took_s
        self.batcher.computed(batch, self.now, took_s)

    def look(self, batch: list[Row]) -> None:
        assert self.waiting[0] in batch, "the oldest is always in the next one"
        assert all(each in self.waiting for each in batch)
        assert len(set(batch)) == len(batch) <= self.max_rows
        assert len(batch) == 1 or padded(batch) <= self.max_cost
        assert len({each.key for each in batch}) == 1
        assert len(batch) == 1 or not any(each.alone for each in batch)
        assert batch == sorted(batch, key=lambda each: -each.cost)

    def teardown(self) -> None:
        if not hasattr(self, "batcher"):
            return
        while self.waiting:
            self.compute(1.0, 0.1)
        assert all(count == 1 for count in self.taken.values()), "no row twice"


test_any_order = AnyOrder.TestCase
