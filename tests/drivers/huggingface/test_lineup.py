"""Which sequences share a pass: whatever comes and goes, each is computed once, in its own slot."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from model_compose.drivers.huggingface.lineup import Lineup, Move, Prompt


class Sequence:
    """A sequence whose cells know whose they are and which token they hold."""

    def __init__(self, name: int, length: int, more: int) -> None:
        self.name = name
        self.length = length
        self.most = length + more
        self.pad = self.cells = 0

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Engine:
    """Computes what a lineup says, in a cache whose cells are `(name, token)`, None where it is empty."""

    def __init__(self, lineup: Lineup[Sequence]) -> None:
        self.lineup = lineup
        self.slots: list[list[tuple[int, int] | None]] = [[] for _ in range(100)]
        self.passes: list[int] = []

    def step(self) -> Prompt[Sequence] | None:
        prompt = self.lineup.prompt()
        if prompt is not None:
            for i, member in enumerate(prompt.members):
                row = self.slots[prompt.first_slot + i]
                for cell in range(prompt.start, prompt.start + prompt.width):
                    token = cell - member.pad
                    row[cell:] = [(member.name, token) if token >= 0 else None]
            self.lineup.prompted(prompt)
            if prompt.complete:
                for member in prompt.members:
                    member.length += 1
        running = list(self.lineup.running)
        self.passes.append(len(running))
        for slot, member in enumerate(running):
            self.slots[slot][member.cells :] = [(member.name, member.length - 1)]
            member.cells += 1
            member.length += 1
        for slot, member in enumerate(running):
            expected: list[tuple[int, int] | None] = [None] * member.pad
            expected += [(member.name, token) for token in range(member.length - 1)]
            assert self.slots[slot] == expected
        for member in running:
            if member.length >= member.most:
                self.leave(member)
        return prompt

    def leave(self, member: Sequence) -> None:
        for source, target, cells in self.lineup.leave(member):
            self.slots[target] = self.slots[source][:cells]


def finish(engine: Engine, steps: int = 2000) -> None:
    while engine.lineup and steps:
        engine.step()
        steps -= 1
    assert not engine.lineup


def test_those_that_wait_together_are_computed_together() -> None:
    engine = Engine(Lineup(8, 1000, 64))
    for name in range(8):
        engine.lineup.add(Sequence(name, 6, 3))
    prompt = engine.step()
    assert prompt is not None
    assert len(prompt.members) == 8
    assert engine.passes == [8]


def test_prompts_of_different_lengths_end_at_the_same_cell() -> None:
    lineup: Lineup[Sequence] = Lineup(8, 1000, 64)
    for name, length in enumerate((5, 8, 6)):
        lineup.add(Sequence(name, length, 3))
    prompt = lineup.prompt()
    assert prompt is not None
    assert [member.pad for member in prompt.members] == [3, 0, 2]
    assert (prompt.start, prompt.width, prompt.complete) == (0, 8, True)


def test_a_prompt_much_longer_than_another_is_computed_by_itself() -> None:
    lineup: Lineup[Sequence] = Lineup(8, 1000, 64)
    for name, length in enumerate((5, 50)):
        lineup.add(Sequence(name, length, 3))
    prompt = lineup.prompt()
    assert prompt is not None
    assert [member.name for member in prompt.members] == [0]


def test_a_long_prompt_is_cut_and_those_that_run_go_on_between_its_pieces() -> None:
    engine = Engine(Lineup(8, 1000, 16))
    engine.lineup.add(Sequence(0, 4, 20))
    engine.step()
    engine.lineup.add(Sequence(1, 40, 3))
    widths = []
    for _ in range(3):
        prompt = engine.step()
        assert prompt is not None
        widths.append(prompt.width)
    assert widths == [16, 16, 8]
    assert engine.passes == [1, 1, 1, 2]


def test_one_that_comes_later_joins_at_once_while_there_is_room() -> None:
    engine = Engine(Lineup(2, 1000, 64))
    engine.lineup.add(Sequence(0, 4, 9))
    engine.step()
    engine.lineup.add(Sequence(1, 4, 5))
    engine.lineup.add(Sequence(2, 4, 5))
    engine.step()
    assert [member.name for member in engine.lineup.running] == [0, 1]
    assert [member.name for member in engine.lineup.waiting] == [2]
    finish(engine)


def test_the_memory_for_cells_is_a_limit_but_one_alone_may_exceed_it() -> None:
    lineup: Lineup[Sequence] = Lineup(8, 50, 64)
    for name in range(3):
        lineup.add(Sequence(name, 10, 15))
    prompt = lineup.prompt()
    assert prompt is not None
    assert len(prompt.members) == 2
    alone: Lineup[Sequence] = Lineup(8, 50, 64)
    alone.add(Sequence(0, 30, 300))
    assert alone.prompt() is not None


def test_the_last_takes_the_slot_of_one_that_leaves() -> None:
    engine = Engine(Lineup(8, 1000, 64))
    members = [Sequence(name, 4, 50) for name in range(4)]
    for member in members:
        engine.lineup.add(member)
    engine.step()
    assert engine.lineup.leave(members[1]) == [Move(3, 1, 5)]
    assert engine.lineup.running == [members[0], members[3], members[2]]
    assert engine.lineup.leave(members[2]) == []


def test_starting_over_keeps_the_order_and_lowers_the_number_until_nobody_is_left() -> None:
    engine = Engine(Lineup(8, 1000, 64))
    members = [Sequence(name, 4, 6) for name in range(4)]
    for member in members:
        engine.lineup.add(member)
    engine.step()
    engine.lineup.start_over(2)
    assert list(engine.lineup.waiting) == members
    engine.slots = [[] for _ in range(100)]
    engine.step()
    assert engine.lineup.running == members[:2]
    finish(engine)
    for member in (Sequence(name, 4, 6) for name in range(4)):
        engine.lineup.add(member)
    engine.step()
    assert len(engine.lineup.running) == 4


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(1, 30), st.integers(1, 12), st.integers(0, 15)), max_size=25
    ),
    st.integers(1, 6),
    st.integers(20, 200),
    st.integers(1, 40),
)
def test_every_sequence_is_computed_whole_whoever_comes_and_goes(
    comings: list[tuple[int, int, int, int]], rows: int, cells: int, prompt_batch: int
) -> None:
    """Each comes after some steps, and is cancelled after some more; the engine checks every cell."""
    engine = Engine(Lineup(rows, cells, prompt_batch))
    alive: dict[int, tuple[Sequence, int]] = {}
    for name, (pause, length, more, patience) in enumerate(comings):
        for _ in range(pause):
            engine.step()
        member = Sequence(name, length, more)
        engine.lineup.add(member)
        alive[name] = (member, patience)
        for other, (waiting, left) in list(alive.items()):
            if left == 0:
                engine.leave(waiting)
                del alive[other]
            else:
                alive[other] = (waiting, left - 1)
        assert len(engine.lineup.running) + len(engine.lineup.filling) <= rows
    finish(engine)
