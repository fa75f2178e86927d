"""YAML documents for tests: read, or generated together with what each value is written as."""

from __future__ import annotations

import json
from dataclasses import dataclass

from hypothesis import strategies as st

from model_compose.config.load import parse
from model_compose.config.tree import Node


def root_of(text: str, name: str = "f.yml") -> Node:
    """The tree of a text without mistakes."""
    document = parse(text, name)
    assert document.errors == ()
    return document.root


_PLAIN = (
    *("yes", "no", "0o17", "0x1F", "1e3", "1_000", "12:30", "2024-01-01", "~", "null", "Null", "nULL"),
    *(
        ".5",
        "5.",
        "+1",
        "-0",
        "08",
        "1.10",
        "+.inf",
        "-.INF",
        ".nan",
        "0b1",
        "true",
        "TRUE",
        "tRue",
        "=",
        "<<<",
    ),
    *("a", "some words", "한국어 문장", "é😀 x", "a#b", "it's", "-x", "gpt-4o"),
)
_PLAIN_IN_BLOCKS = (
    "http://localhost:8080/v1",
    "C:\\models",
    "a, b",
    "a [b]",
    "${input.text}",
    "a ${input.x | 1} b",
)
_QUOTED = (
    "'it''s'",
    "''",
    "'#x'",
    "'yes'",
    '"\\u00e9\\n\\t"',
    '"a \\"b\\""',
    '"1"',
    "'a: b'",
    '"${input.x}"',
)
_KEYS = ("a", "b", "name", "batch_size", "8080", "true", "~", "x-y", "키", "'q k'", '"d\\u0041"', "1.0")


@dataclass(frozen=True)
class Scalar:
    """One line, as it is written: plain or in quotes."""

    written: str


@dataclass(frozen=True)
class Sequence:
    items: list[Written]
    flow: bool


@dataclass(frozen=True)
class Map:
    """Keys as they are written, and their values."""

    items: list[tuple[str, Written]]
    flow: bool


Written = Scalar | Sequence | Map

_characters = st.characters(codec="utf-8", max_codepoint=0xFFFF)  # YAML has no surrogate pairs
_any_quoted = st.text(_characters, max_size=8).map(json.dumps)
_flow_scalars = (st.sampled_from(_PLAIN + _QUOTED) | _any_quoted).map(Scalar)
_block_scalars = _flow_scalars | st.sampled_from(_PLAIN_IN_BLOCKS).map(Scalar)


def _maps(values: st.SearchStrategy[Written], flow: bool, smallest: int) -> st.SearchStrategy[Map]:
    pairs = st.tuples(st.sampled_from(_KEYS), values)
    items = st.lists(pairs, min_size=smallest, max_size=4, unique_by=lambda pair: pair[0])
    return items.map(lambda items: Map(items, flow))


def _sequences(values: st.SearchStrategy[Written], flow: bool, smallest: int) -> st.SearchStrategy[Sequence]:
    return st.lists(values, min_size=smallest, max_size=4).map(lambda items: Sequence(items, flow))


_flow: st.SearchStrategy[Written] = st.recursive(
    _flow_scalars, lambda inner: _maps(inner, True, 0) | _sequences(inner, True, 0), max_leaves=6
)
_block: st.SearchStrategy[Written] = st.recursive(
    _block_scalars | _flow, lambda inner: _maps(inner, False, 1) | _sequences(inner, False, 1), max_leaves=12
)
documents = _maps(_block, False, 1)
"""Maps in block style, which hold anything."""


def text_of(written: Written, indent: int = 0) -> str:
    """The document; block collections end with a line break."""
    pad = " " * indent
    if isinstance(written, Scalar):
        return written.written
    if written.flow:
        if isinstance(written, Map):
            return "{" + ", ".join(f"{key}: {text_of(value)}" for key, value in written.items) + "}"
        return "[" + ", ".join(text_of(item) for item in written.items) + "]"
    if isinstance(written, Map):
        return "".join(f"{pad}{key}:{_below(value, indent)}" for key, value in written.items)
    return "".join(f"{pad}-{_below(item, indent)}" for item in written.items)


def _below(value: Written, indent: int) -> str:
    if isinstance(value, Scalar) or value.flow:
        return f" {text_of(value)}\n"
    return f"\n{text_of(value, indent + 2)}"
