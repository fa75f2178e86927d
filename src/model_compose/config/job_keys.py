"""Which keys does each type of job have, beside those of all jobs?"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET

from model_compose.config.quantities import PAUSE
from model_compose.config.schema import DEFAULT
from model_compose.config.shape import names_of
from model_compose.config.spec import Positive, PositiveFloat, doc

Operator = Literal["eq", "neq", "gt", "gte", "lt", "lte", "in", "not-in", "match", "starts-with", "ends-with"]


class ComponentJobKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Calls an action of a component."""

    component: Annotated[Any, doc("the id of a component, or a component itself", template=True)] = DEFAULT
    action: Annotated[str, doc("the id of one of its actions")] = DEFAULT
    input: Annotated[
        Any, doc("what the action gets as `${input}`; default: the workflow's input", template=True)
    ] = UNSET
    repeat_count: Annotated[
        int, doc("run it so many times at once; the output is then a list", template=True, ge=1)
    ] = 1


class DelayKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Waits, for a while or until a time."""

    mode: Annotated[
        Literal["time-interval", "specific-time"] | None,
        doc("for a `duration` or until a `time`; default: the one that is given"),
    ] = None
    duration: Annotated[float | None, doc("how long; a number is seconds", quantity=PAUSE, template=True)] = (
        None
    )
    time: Annotated[
        str | None,
        doc("a date with a time, such as `2030-01-31T08:00`, or the next `08:00`", template=True),
    ] = None
    timezone: Annotated[
        str | None, doc("of the `time`, such as `Europe/Berlin`; default: that of the machine")
    ] = None


class ConditionKeys(msgspec.Struct, frozen=True, kw_only=True):
    """One condition, and the jobs that it leads to."""

    input: Annotated[Any, doc("what is compared; default: the job's `input`", template=True)] = UNSET
    operator: Annotated[Operator, doc("how it is compared")] = "eq"
    value: Annotated[Any, doc("what it is compared with", template=True)] = UNSET
    if_true: Annotated[str | None, doc("the job that runs where it holds")] = None
    if_false: Annotated[str | None, doc("the job that runs where it does not")] = None


class IfKeys(ConditionKeys, frozen=True, kw_only=True):
    """Starts one of several jobs, by conditions; the first that leads to a job counts."""

    conditions: Annotated[
        tuple[ConditionKeys, ...], doc("conditions, in place of the keys of one", min_length=1)
    ] = ()
    otherwise: Annotated[str | None, doc("the job that runs where no condition leads to one")] = None


class CaseKeys(msgspec.Struct, frozen=True, kw_only=True):
    """One value, and the job that it leads to."""

    value: Annotated[Any, doc("the value of the input", template=True)]
    then: Annotated[str, doc("the job that runs then")]


class SwitchKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Starts one of several jobs, by a value."""

    input: Annotated[Any, doc("the value", template=True)]
    cases: Annotated[tuple[CaseKeys, ...], doc("values, each with its job; the first that is equal counts")]
    otherwise: Annotated[str | None, doc("the job that runs where no case has the value")] = None


class RoutingKeys(msgspec.Struct, frozen=True, kw_only=True):
    """One job that may be drawn."""

    target: Annotated[str, doc("the job", aliases=("to",))]
    weight: Annotated[
        PositiveFloat | None, doc("how often, beside the others, with `mode: weighted`; default 1")
    ] = None


class RandomRouterKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Starts one of several jobs, by chance."""

    mode: Annotated[Literal["uniform", "weighted"], doc("all equally often, or by their weights")] = "uniform"
    routings: Annotated[tuple[RoutingKeys, ...], doc("the jobs", min_length=1)]


class FilterKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Calls nothing: gives its input, or some items of it, through `output`."""

    input: Annotated[Any, doc("what it gives; default: the workflow's input", template=True)] = UNSET
    where: Annotated[
        Any,
        doc(
            "a condition over `${item}` and `${index}`, such as `{input: ..., operator: gt, value: 3}`: the "
            "items of a list for which it holds",
            template=True,
        ),
    ] = UNSET


class DoKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The call for an item; `${item}` and `${index}` are known in it."""

    component: Annotated[Any, doc("the id of a component, or a component itself", template=True)] = DEFAULT
    action: Annotated[str, doc("the id of one of its actions")] = DEFAULT
    input: Annotated[
        Any,
        doc(
            "what the action gets as `${input}`; default: the item; one that is no map is what the action "
            "is about",
            template=True,
        ),
    ] = UNSET
    output: Annotated[
        Any, doc("what an item gives; `${output}` is the action's own output", template=True)
    ] = UNSET


class ForEachKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Calls an action for every item of a list; the output is a list, in the same order."""

    input: Annotated[Any, doc("the list", template=True)]
    do: Annotated[DoKeys, doc("what is called")]
    batch_size: Annotated[
        Positive | None,
        doc("so many items in one call: `${item}` is then a list, and lists that come back are put together"),
    ] = None
    max_concurrent_count: Annotated[int, doc("most calls at once", ge=1, le=1024)] = 32
    streaming: Annotated[bool, doc("give a stream of items where somebody can take it")] = False


KEYS_OF: Final[dict[str, type[msgspec.Struct]]] = {
    "component": ComponentJobKeys,
    "action": ComponentJobKeys,
    "delay": DelayKeys,
    "if": IfKeys,
    "switch": SwitchKeys,
    "random-router": RandomRouterKeys,
    "filter": FilterKeys,
    "for-each": ForEachKeys,
}
"""The keys of each type of job."""

OF_SOME_TYPE: Final = frozenset[str]().union(*map(names_of, KEYS_OF.values()))
"""The keys that some type has."""
