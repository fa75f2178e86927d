"""What do tests of `${...}` share: how an expression is read, and texts that look like one."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from model_compose.config.expression import Reference, Scope, Template
from model_compose.config.grammar import parse


def whole(text: str) -> Reference:
    template = parse(text)
    assert isinstance(template, Template)
    assert template.whole is not None
    return template.whole


def value(text: str, **sources: Any) -> Any:
    template = parse(text)
    assert isinstance(template, Template)
    return template.render(Scope(sources))


def parsed(data: Any) -> Any:
    """`data` as a loader hands it over: every text parsed."""
    if isinstance(data, str):
        return parse(data)
    if isinstance(data, dict):
        return {key: parsed(value) for key, value in data.items()}
    return [parsed(value) for value in data] if isinstance(data, list) else data


_FRAGMENTS = st.one_of(
    st.sampled_from("${}|()[]0:.;/,'\"\\ \n\u00e9"),
    st.sampled_from(
        ["${", "@(", "[]", "[*]", "-1", "as ", "input", "a.b", "text", "image", "object", "select", "stream"]
    ),
)
SOURCES = st.lists(_FRAGMENTS, max_size=30).map("".join) | st.text()
