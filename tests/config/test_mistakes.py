from __future__ import annotations

from model_compose.config.mistakes import Mistakes
from model_compose.config.tree import Node
from model_compose.errors import Note, Place, UnknownName


def place(line: int) -> Place:
    return Place("f.yml", line, 1, 2, "x")


def test_a_mistake_has_the_place_and_the_history_of_its_node() -> None:
    mistakes = Mistakes()
    node = Node("x", place(3), notes=(Note("merged here", place(5)),))
    mistakes.add("wrong", node, hint="do this", notes=[Note("the first", place(1))])
    mistakes.add("also wrong", node, place=place(4))
    first, second = mistakes.errors
    assert (first.message, first.hint, first.place) == ("wrong", "do this", place(3))
    assert [note.message for note in first.notes] == ["the first", "merged here"]
    assert second.place == place(4)


def test_a_mistake_that_comes_to_several_parts_is_told_once() -> None:
    mistakes = Mistakes()
    node = Node("x", place(3))
    mistakes.add("`a` of component `one` is wrong", node, once="wrong")
    mistakes.add("`a` of component `two` is wrong", node, once="wrong")
    mistakes.add("`a` of component `two` is odd", node)
    mistakes.add("`a` of component `two` is wrong", Node("x", place(4)), once="wrong")
    assert [error.message for error in mistakes.errors] == [
        "`a` of component `one` is wrong",
        "`a` of component `two` is odd",
        "`a` of component `two` is wrong",
    ]


def test_an_unknown_name_is_an_error_of_its_own() -> None:
    mistakes = Mistakes()
    mistakes.unknown("field", "prot", ["port", "host"], "the controller", Node("prot", place(1)))
    (error,) = mistakes.errors
    assert isinstance(error, UnknownName)
    assert error.message == "unknown field `prot` in the controller"
    assert str(error.hint).startswith("did you mean `port`?")


def test_a_warning_is_told_once() -> None:
    mistakes = Mistakes()
    for _ in range(2):
        mistakes.warn("odd", Node("x", place(2)))
    assert mistakes.warnings == [Note("odd", place(2))]
    assert mistakes.errors == []


def test_secrets_are_not_shown() -> None:
    long = "hf_" + 100 * "x"
    mistakes = Mistakes(secrets=["secret", long, "a"])
    node = Node("x", place(1))
    mistakes.add(f"expected text, found `{long[:77]}...` for a `value`", node, hint="write `./secret`")
    mistakes.unknown("driver", "my-secret", ["llamacpp"], "`a`", node)
    found = [(error.message, error.hint) for error in mistakes.errors]
    assert found == [
        ("expected text, found `***` for a `value`", "write `***`"),
        ("unknown driver `***` in `a`", "valid: `llamacpp`"),
    ]
