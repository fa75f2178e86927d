"""Does every `${...}` of a tree name something that exists?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from msgspec import UNSET

from model_compose.config.annotations import names_in
from model_compose.config.expression import ExpressionError, Reference, Template, references
from model_compose.config.mistakes import Mistakes
from model_compose.config.schema import SYNTHESISED_JOB
from model_compose.config.template import Map, compile_tree
from model_compose.config.tree import Node, locate, locate_key, to_data
from model_compose.errors import ConfigErrors, did_you_mean

Known: TypeAlias = "Mapping[str, Known] | None"
"""The names that a path may go on with, each with what is known behind it; None where any may follow."""

CONTEXT: Known = {"run_id": None, "task_id": None}
RESULTS = ("result", "response", "output")
"""Names of what an action gave, or of a piece of it with `[]`; they mean the same."""

_SOMEWHERE_ELSE: Mapping[str, str] = {
    **dict.fromkeys(RESULTS, "it is there in `output`, once the action is done"),
    "jobs": "give it to the action by the job's `input`",
    "item": "it is there inside of `*` and `|`",
    "index": "it is there inside of `*` and `|`",
}


def compiled(node: Node, mistakes: Mistakes, data: Any = UNSET) -> Any:
    """The compiled tree of a node; of `data`, if that is how its value was read. None if it has mistakes."""
    try:
        return compile_tree(to_data(node) if data is UNSET else data)
    except ConfigErrors as errors:
        for error in errors.errors:
            path = error.path if isinstance(error, ExpressionError) else ()
            at = locate_key(node, path) if path else locate(node, path)
            mistakes.add(error.message, at, hint=error.hint)
        return None


def check_references(node: Node, tree: Any, sources: Mapping[str, Known], mistakes: Mistakes) -> None:
    """Note every reference of a node's compiled `tree` that names nothing.

    sources  what references may begin with; a name with `[]` is one piece of a stream
    """
    # Those that an operator binds (`${item}`) are written as the others are, but do not leave the tree.
    free = {id(reference) for reference in references(tree)}
    for text, reference in written(node):
        may_be_bound = tree is None and reference.key in ("item", "index")  # nobody knows: it has mistakes
        if id(reference) in free or (tree is None and not may_be_bound):
            problem = _problem(reference, sources)
            if problem is not None:
                place = text.place_of(reference.start, reference.end)
                mistakes.add(f"`{reference.text}`: {problem[0]}", text, place=place, hint=problem[1])


def written(node: Node) -> Iterator[tuple[Node, Reference]]:
    """Every reference below a node, with the text that it stands in."""
    if isinstance(node.value, Template):
        for reference in node.value.references():
            yield node, reference
    elif isinstance(node.value, dict):
        for entry in node.value.values():
            yield from written(entry.node)
    elif isinstance(node.value, tuple):
        for item in node.value:
            yield from written(item)


def names_of_output(tree: Any, result: Any) -> Known:
    """What is known of the output that `tree` makes of a result of the given type."""
    if tree is UNSET:
        return names_in(result)
    if isinstance(tree, Map) and any(reference.per_chunk for reference in tree.references()):
        return None  # a list, if the result is one
    keys = tree.constants if isinstance(tree, Map) else tree if isinstance(tree, dict) else None
    return None if keys is None else dict.fromkeys(keys)


def results(known: Known, piece: Known = None) -> dict[str, Known]:
    """The sources that an `output` has: the whole result and, with `[]`, its pieces."""
    return {**dict.fromkeys(RESULTS, known), **dict.fromkeys((f"{name}[]" for name in RESULTS), piece)}


def _problem(reference: Reference, sources: Mapping[str, Known]) -> tuple[str, str | None] | None:
    """What is wrong with a reference, and what to do about it."""
    known: Known = sources
    way: list[str] = []
    for segment in (reference.key, *reference.path):
        if known is None:
            return None
        if isinstance(segment, str):
            if segment not in known:
                return _missing(way, segment, known)
            known = known[segment]
            way.append(segment)
        elif way == ["jobs"]:
            return "name a job", "such as `${jobs.NAME.output}`"
    if way == ["jobs"] or (way[0] == "jobs" and len(way) == 2):
        return "name the output of a job", f"such as `${{jobs.{way[1] if way[1:] else 'NAME'}.output}}`"
    return None


def _missing(way: list[str], name: str, known: Mapping[str, Known]) -> tuple[str, str | None]:
    near = did_you_mean(name, known.keys() - {SYNTHESISED_JOB})
    match way:
        case []:
            source = name.removesuffix("[]")
            if source.startswith("gateway:"):
                return "gateways are known, and not supported yet", near
            if name != source and source in known:
                return f"`{source}` has no pieces here", f"write `{source}`, without the `[]`"
            return f"there is no `{name}` here", _SOMEWHERE_ELSE.get(source, near)
        case ["jobs"]:
            return f"there is no job `{name}`", near
        case ["jobs", job]:
            return "a job has only an `output`", f"write `${{jobs.{job}.output}}`"
        case ["jobs", job, *_]:
            return f"the output of job `{job}` has no `{name}`", near
        case _:
            return f"`{way[0]}` has no `{name}`", near
