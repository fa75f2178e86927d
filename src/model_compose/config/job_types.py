"""What does a job do, by its type?"""

from __future__ import annotations

import datetime
import zoneinfo
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET

from model_compose.config.callees import Callees
from model_compose.config.expression import references
from model_compose.config.job_keys import (
    ComponentJobKeys,
    ConditionKeys,
    DelayKeys,
    FilterKeys,
    ForEachKeys,
    IfKeys,
    RandomRouterKeys,
    SwitchKeys,
)
from model_compose.config.mistakes import Mistakes
from model_compose.config.references import Known, compiled, names_of_output, results
from model_compose.config.schema import (
    Action,
    Call,
    Delay,
    Filter,
    ForEachJob,
    If,
    RandomRouter,
    Switch,
    Tree,
    Work,
)
from model_compose.config.template import Map
from model_compose.config.tree import Entry, Node, at_key, locate, locate_key
from model_compose.config.values import COMPARISONS, shown
from model_compose.errors import did_you_mean

_ITEM: Mapping[str, Known] = {"item": None, "index": None}


class Spot(msgspec.Struct, frozen=True):
    """A value of a job that may refer to something; `sources` are those that only this one has."""

    node: Node
    tree: Tree
    sources: Mapping[str, Known] = {}


class Read(msgspec.Struct, frozen=True):
    """What a job does, as far as it can be read.

    targets  the nodes that name jobs which it may start
    result   what is known of what it has done: `${output}` of its `output`
    repeats  the output is, or may be, a list of those
    """

    work: Work | None
    spots: tuple[Spot, ...] = ()
    targets: tuple[Node, ...] = ()
    result: Known = None
    repeats: bool = False


class Works:
    """Reads what the jobs of one workflow do; their keys have been read as structs."""

    def __init__(self, callees: Callees, mistakes: Mistakes) -> None:
        self._callees = callees
        self._mistakes = mistakes

    def read(self, keys: msgspec.Struct, node: Node, name: str, where: str) -> Read:
        """What a job does by its keys."""
        match keys:
            case ComponentJobKeys():
                return self._call(keys, node, name)
            case DelayKeys():
                return self._delay(keys, node, where)
            case IfKeys():
                return self._if(keys, node, where)
            case SwitchKeys():
                return self._switch(keys, node)
            case RandomRouterKeys():
                return self._random(keys, node)
            case FilterKeys():
                return self._filter(keys, node)
            case ForEachKeys():
                return self._for_each(keys, node, name)
        raise AssertionError(f"nobody reads {type(keys).__name__}")

    # Calls

    def _call(self, keys: ComponentJobKeys, node: Node, name: str) -> Read:
        component = self._callees.component(keys.component, node, name)
        action = self._action(keys, node, name, component)
        given, repeats = self._spot(node, "input"), self._spot(node, "repeat_count")
        self._check_input(given, action, node)
        # A component of which nobody can say what it does has been told: the rest is looked at.
        called = component.id if component else ""
        work = Call(called, keys.action, _tree(given), 1 if repeats is None else repeats.tree)
        return Read(work, _present(given, repeats), result=_result(action), repeats=work.repeat_count != 1)

    def _action(self, keys: Any, node: Node, name: str, component: Any) -> Action | None:
        return self._callees.action(component, keys.action, node) if component and component.type else None

    def _check_input(self, given: Spot | None, action: Action | None, node: Node) -> None:
        """Note keys of the `input` that the action does not look at."""
        tree = _tree(given)
        taken = _inputs(action) if action else None
        keys = tree.constants if isinstance(tree, Map) else tree if isinstance(tree, dict) else {}
        if taken is None:
            return
        for key in keys:
            if key not in taken:
                at = locate_key(node, ["input", key])
                message = f"the action takes no `{key}` from its input"
                self._mistakes.add(message, at, hint=did_you_mean(key, taken) or "it takes no input")

    def _for_each(self, keys: ForEachKeys, node: Node, name: str) -> Read:
        do = locate(node, ["do"])
        component = self._callees.component(keys.do.component, do, name)
        action = self._action(keys.do, do, name, component)
        items = self._spot(node, "input")
        given, output = self._spot(do, "input", _ITEM), self._spot(do, "output")
        self._check_input(given, action, do)
        if output is not None:
            output = Spot(output.node, output.tree, {**_ITEM, **results(_result(action))})
        call = Call(component.id if component else "", keys.do.action, _tree(given))
        return Read(
            ForEachJob(
                _tree(items),
                call,
                _tree(output),
                keys.batch_size,
                keys.max_concurrent_count,
                keys.streaming,
            ),
            _present(items, given, output),
            result=None if output is not None else _result(action),
            repeats=True,
        )

    # Routes

    def _if(self, keys: IfKeys, node: Node, where: str) -> Read:
        several = at_key(node, "conditions")
        nodes: tuple[Node, ...]
        own = [key for key in ("operator", "value", "if_true", "if_false") if at_key(node, key) is not None]
        if several is not None and own:
            message = f"`{own[0]}` stands beside `conditions`"
            self._mistakes.add(message, locate_key(node, [own[0]]), hint="make it one of the conditions")
            return Read(None)
        if several is None:
            nodes = (node,)
        elif isinstance(several.value, tuple) and len(several.value) == len(keys.conditions):
            nodes = several.value
        else:
            return Read(None)  # which has been told
        conditions: list[ConditionKeys] = [keys] if several is None else list(keys.conditions)
        targets: list[str] = []
        for condition, at in zip(conditions, nodes, strict=True):
            leads = [name for name in (condition.if_true, condition.if_false) if name is not None]
            if not leads:
                self._mistakes.add("a condition has `if_true`, `if_false` or both", at)
                return Read(None)
            if not {"input", "value"} <= _keys(at) | (_keys(node) & {"input"}):
                missing = next(
                    k for k in ("input", "value") if k not in _keys(at) | (_keys(node) & {"input"})
                )
                self._mistakes.add(f"a condition of {where} needs `{missing}`", at)
                return Read(None)
            targets += leads
        choices = Node(tuple(_condition(at, at_key(node, "input")) for at in nodes), node.place)
        spot = Spot(choices, compiled(_map(node, {"?": choices}), self._mistakes))
        targets += [keys.otherwise] if keys.otherwise is not None else []
        found = [at_key(at, key) for at in nodes for key in ("if_true", "if_false")]
        return Read(
            If(spot.tree, tuple(targets), keys.otherwise),
            (spot,),
            _nodes(*found, at_key(node, "otherwise")),
        )

    def _switch(self, keys: SwitchKeys, node: Node) -> Read:
        given, several = self._spot(node, "input"), locate(node, ["cases"])
        nodes = several.value if isinstance(several.value, tuple) else ()
        values = [self._spot(each, "value") for each in nodes]
        cases = tuple((_tree(value), case.then) for value, case in zip(values, keys.cases, strict=True))
        if not cases:
            self._mistakes.add("`cases` is an empty list", several)
        return Read(
            Switch(_tree(given), cases, keys.otherwise),
            _present(given, *values),
            _nodes(*(at_key(each, "then") for each in nodes), at_key(node, "otherwise")),
        )

    def _random(self, keys: RandomRouterKeys, node: Node) -> Read:
        several = locate(node, ["routings"])
        nodes = several.value if isinstance(several.value, tuple) else ()
        for i, routing in enumerate(keys.routings):
            if keys.mode == "uniform" and routing.weight is not None:
                message = "`weight` means nothing with `mode: uniform`"
                at = locate_key(several, [i, "weight"])
                self._mistakes.add(message, at, hint="write `mode: weighted`, or leave it out")
        weights = tuple(1.0 if each.weight is None else each.weight for each in keys.routings)
        targets = tuple(each.target for each in keys.routings)
        found = [at_key(each, key) for each in nodes for key in ("target", "to")]
        return Read(RandomRouter(targets, weights), targets=_nodes(*found))

    # The others

    def _filter(self, keys: FilterKeys, node: Node) -> Read:
        given = self._spot(node, "input")
        where = at_key(node, "where")
        if where is None:
            return Read(Filter(_tree(given)), _present(given), repeats=True)
        source = at_key(node, "input")
        if source is None:
            message = "`where` needs `input`: the list whose items it looks at"
            self._mistakes.add(message, locate_key(node, ["where"]))
            return Read(None)
        items = _map(node, {"*": _map(node, {"input": source, "where": where})})
        spot = Spot(items, compiled(items, self._mistakes))
        return Read(Filter(_tree(given), spot.tree), (spot,), repeats=True)

    def _delay(self, keys: DelayKeys, node: Node, where: str) -> Read:
        mode = keys.mode
        if mode is None:
            mode = "specific-time" if at_key(node, "time") is not None else "time-interval"
        key, other = ("duration", "time") if mode == "time-interval" else ("time", "duration")
        if at_key(node, key) is None:
            hint = f"`mode: {mode}` waits for it" if keys.mode else "or `time`"
            self._mistakes.add(f"`{key}` is missing in {where}", node, hint=hint)
            return Read(None)
        strange = [name for name in (other, "timezone") if at_key(node, name) is not None]
        strange = [name for name in strange if not (name == "timezone" and key == "time")]
        if strange:
            message = f"`{strange[0]}` means nothing beside `{key}`"
            self._mistakes.add(message, locate_key(node, [strange[0]]), hint="leave it out")
            return Read(None)
        spot = self._spot(node, key)
        if key == "duration":
            # What is no expression has been read as a duration.
            constant = isinstance(keys.duration, int | float)
            return Read(Delay(keys.duration if constant else _tree(spot)), _present(spot))
        self._check_time(keys, _tree(spot), node)
        return Read(Delay(None, _tree(spot), keys.timezone), _present(spot))

    def _check_time(self, keys: DelayKeys, time: Tree, node: Node) -> None:
        if isinstance(time, str) and not is_time(time):
            hint = "write a date with a time, such as `2030-01-31T08:00`, or a time of day, such as `08:00`"
            self._mistakes.add(f"{shown(time)} is no time", locate(node, ["time"]), hint=hint)
        if keys.timezone is not None:
            try:
                zoneinfo.ZoneInfo(keys.timezone)
            except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
                hint = "write it as in `Europe/Berlin` or `UTC`"
                message = f"there is no timezone `{keys.timezone}`"
                self._mistakes.add(message, locate(node, ["timezone"]), hint=hint)

    def _spot(self, node: Node, key: str, sources: Mapping[str, Known] | None = None) -> Spot | None:
        at = at_key(node, key)
        return None if at is None else Spot(at, compiled(at, self._mistakes), sources or {})


def is_time(text: str) -> bool:
    """Whether a text is a date with a time, or a time of day."""
    for kind in (datetime.time, datetime.datetime):
        try:
            kind.fromisoformat(text)
        except ValueError:
            continue
        return True
    return False


def _keys(node: Node) -> set[str]:
    return set(node.value) if isinstance(node.value, dict) else set()


def _condition(node: Node, given: Node | None) -> Node:
    """A condition as the operator `?` has it."""
    wanted = ("input", "operator", "value", "if_true", "if_false")
    entries = {key: each for key in wanted if (each := at_key(node, key)) is not None}
    if "input" not in entries and given is not None:
        entries["input"] = given
    if "operator" in entries and str(entries["operator"].value) not in COMPARISONS:
        del entries["operator"]  # which has been told
    return _map(node, entries)


def _map(node: Node, values: Mapping[str, Node]) -> Node:
    """A map that stands where `node` does."""
    return Node({key: Entry(key, each.place, each) for key, each in values.items()}, node.place)


def _tree(spot: Spot | None) -> Tree:
    return UNSET if spot is None else spot.tree


def _present(*spots: Spot | None) -> tuple[Spot, ...]:
    return tuple(spot for spot in spots if spot is not None)


def _nodes(*nodes: Node | None) -> tuple[Node, ...]:
    return tuple(node for node in nodes if node is not None)


def _result(action: Action | None) -> Known:
    return names_of_output(action.output, action.spec.result) if action else None


def _inputs(action: Action) -> set[str] | None:
    """The keys of its input that an action looks at; None if it takes the input as a whole."""
    found = set()
    for tree in (*action.values.values(), action.output):
        for reference in references(tree):
            if reference.key == "input":
                if not reference.path or not isinstance(reference.path[0], str):
                    return None
                found.add(reference.path[0])
    return found
