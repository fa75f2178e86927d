from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest

from model_compose.config.quantities import DURATION
from model_compose.config.spec import NO_DEFAULT, Field, doc, fields_of


class Message(msgspec.Struct):
    """One message."""

    content: str


class Request(msgspec.Struct, kw_only=True):
    """A request."""

    messages: Annotated[list[Message], doc("what was said", aliases=("prompt",), also=str, many=True)]
    pause: Annotated[float, doc("how long", quantity=DURATION)] = 1.0
    tags: Annotated[list[str], doc("its tags", template=True)] = []
    kind: Annotated[str, doc("its kind", refers_to="task", later={"old": "write `new`", "odd": None})] = "new"
    plain: int = 5
    renamed: int = msgspec.field(default=1, name="other-name")


def field(name: str) -> Field:
    return next(each for each in fields_of(Request) if each.name == name)


def test_fields_come_in_the_order_of_their_declaration() -> None:
    names = [each.name for each in fields_of(Request)]
    assert names == ["messages", "pause", "tags", "kind", "plain", "other-name"]


def test_a_field_says_what_was_declared() -> None:
    messages = field("messages")
    assert (messages.description, messages.names) == ("what was said", ("messages", "prompt"))
    assert (messages.required, messages.default, messages.many) == (True, NO_DEFAULT, True)
    assert field("pause").quantity is DURATION
    assert field("tags").template
    assert field("tags").default == []
    assert field("kind").refers_to == "task"
    assert field("kind").later == {"old": "write `new`", "odd": None}


def test_a_field_needs_no_more_than_a_type() -> None:
    plain = field("plain")
    assert (plain.description, plain.names, plain.default, plain.required) == ("", ("plain",), 5, False)


@pytest.mark.parametrize(
    ("value", "right"),
    [
        ([{"content": "a"}], True),
        ("a", True),
        (["a", "b"], True),
        ([[{"content": "a"}], [{"content": "b"}]], True),
        (5, False),
        ([[["a"]]], False),
    ],
)
def test_a_field_accepts_one_value_another_form_of_it_or_many(value: Any, right: bool) -> None:
    # The union has two kinds of lists, which msgspec does not tell apart, so each is tried.
    one, many = Annotated[list[Message], None] | str, list[list[Message] | str]
    accepted = False
    for kind in (one, many):
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError:
            continue
        accepted = True
    assert accepted is right
    assert str(field("messages").accepts).count("Message") == 2


def test_limits_are_those_of_msgspec() -> None:
    limited = doc("a share", gt=0, le=1)
    assert msgspec.convert(1, Annotated[float, limited]) == 1
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(0, Annotated[float, limited])
