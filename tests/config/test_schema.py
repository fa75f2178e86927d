from __future__ import annotations

import msgspec
import pytest

from model_compose.config.job_keys import KEYS_OF
from model_compose.config.later import KEYS, Part
from model_compose.config.schema import (
    DEFAULT,
    Action,
    ActionKeys,
    Adapter,
    Component,
    ComponentKeys,
    Controller,
    JobKeys,
    Settings,
    WorkflowKeys,
    default_of,
)
from model_compose.config.shape import names_of
from model_compose.config.spec import ActionSpec, fields_of

SPEC = ActionSpec(Adapter)


def actions(*names: str, default: str | None = None) -> tuple[Action, ...]:
    return tuple(Action(name, SPEC, {}, default=name == default) for name in names)


def test_the_default_is_the_only_one_or_the_marked_one() -> None:
    (only,) = actions("a")
    assert default_of((only,)) is only
    first, second = actions("a", "b", default="b")
    assert default_of((first, second)) is second
    assert default_of(actions("a", "b")) is None
    assert default_of(actions()) is None


def test_an_action_is_found_by_its_name_or_as_the_default() -> None:
    component = Component("c", "model", None, actions("a", "b", default="b"))
    assert component.action("a").id == "a"
    assert component.action(DEFAULT).id == "b"


@pytest.mark.parametrize(
    "struct",
    [Adapter, ActionKeys, ComponentKeys, Controller, JobKeys, Settings, WorkflowKeys, *KEYS_OF.values()],
)
def test_every_key_is_described(struct: type[msgspec.Struct]) -> None:
    assert all(field.description for field in fields_of(struct))
    assert struct.__doc__


@pytest.mark.parametrize(
    ("part", "struct"),
    [
        ("file", Settings),
        ("controller", Controller),
        ("adapter", Adapter),
        ("component", ComponentKeys),
        ("workflow", WorkflowKeys),
        ("job", JobKeys),
        *(("job", struct) for struct in KEYS_OF.values()),
    ],
)
def test_no_key_is_supported_and_yet_to_come(part: Part, struct: type[msgspec.Struct]) -> None:
    assert not KEYS[part].keys() & names_of(struct)


@pytest.mark.parametrize("struct", [Adapter, JobKeys])
def test_no_value_is_supported_and_yet_to_come(struct: type[msgspec.Struct]) -> None:
    for field in fields_of(struct):
        for value in field.later:
            with pytest.raises(msgspec.ValidationError):
                msgspec.convert(value, field.type)
