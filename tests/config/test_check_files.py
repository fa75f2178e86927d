"""Does a check hold for whole files, however they are written and whatever is wrong with them?"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.config.projects import project

from model_compose.config.schema import Project
from model_compose.errors import ConfigError, ConfigErrors, Note
from model_compose.frames import render

VALID: list[dict[str, Any]] = [
    {"component": {"type": "model", "task": "text-generation", "model": "./m.gguf"}},
    {
        "name": "all",
        "memory_limit": "80%",
        "controller": {"adapter": {"port": 0, "origins": ["http://a"]}, "max_queue": 5},
        "components": [
            {
                "id": "write",
                "type": "model",
                "task": "text-generation",
                "model": {"provider": "local", "path": "./m.gguf"},
                "runtime": {"type": "process"},
                "keep_alive": "5m",
                "options": {"context_length": 512},
                "peft_adapters": [{"name": "a", "model": "./a.gguf", "weight": "${input.w | 0.5}"}],
                "prompt": "Say ${input.text as text} ${env.N}",
                "params": {"temperature": "${input.temperature as number | 0.7}", "stop": ["."]},
                "output": {"text": "${result.text}", "used": "${result.usage.total_tokens}"},
            },
            {
                "id": "talk",
                "type": "model",
                "task": "chat-completion",
                "model": "./t.gguf",
                "actions": [
                    {"id": "ask", "messages": [{"role": "user", "content": "${input.q}"}]},
                    {
                        "id": "all",
                        "default": True,
                        "messages": {"*": "${input.turns}", "role": "user", "content": "${item.said}"},
                        "output": {
                            "?": {"input": "${result.text}", "value": "", "if_true": 1, "if_false": 2}
                        },
                    },
                ],
            },
        ],
        "workflows": [
            {
                "id": "both",
                "title": "Both",
                "jobs": [
                    {"id": "first", "component": "write", "input": {"text": "${input.text}", "w": 1}},
                    {
                        "id": "second",
                        "component": "talk",
                        "action": "ask",
                        "input": {"q": "${jobs.first.output.text}"},
                        "depends_on": ["first"],
                        "repeat_count": 2,
                    },
                ],
                "output": "${jobs.second.output}",
            },
            {"id": "one", "default": True, "component": "talk", "input": "${input}"},
        ],
    },
]


def written(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False)  # JSON is YAML, on one line


def shape(found: Project) -> Any:
    """What a project is, without places."""
    components = {
        name: (component.config, [(a.id, a.values, a.output, a.default) for a in component.actions])
        for name, component in found.components.items()
    }
    return found.settings, found.controller, components, found.workflows


@pytest.mark.parametrize("data", VALID)
def test_the_files_that_are_mutated_below_are_right(data: dict[str, Any]) -> None:
    assert project(written(data), N="1").warnings == ()


def paths(data: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every part of a tree."""
    inner: list[tuple[Any, ...]] = []
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        inner += paths(value, (*at, key))
    return [at, *inner] if at else inner


TEXTS = st.text(st.characters(exclude_categories=["C"]), max_size=5)
PARTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | TEXTS
    | st.sampled_from(
        (
            *("${input.x}", "${env.N}", "${env.UNSET}", "${", "${jobs.a.output}", "${result[].x}", "${item}"),
            *("auto", "model", "text-generation", "write", "5m", "80%", "__default__", "docker", "x-a"),
        )
    ),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            TEXTS | st.sampled_from(["*", "?", "+", "|", "...", "input", "type", "id", "x-a"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=4,
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A file that was right before something in it was replaced, left out, put in or moved."""
    data = copy.deepcopy(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 3))):
        if not (ways := paths(data)):
            break
        *way, last = draw(st.sampled_from(ways))
        holder: Any = data
        for step in way:
            holder = holder[step]
        change = draw(st.sampled_from(["replace", "drop", "rename", "insert", "copy"]))
        if change == "replace":
            holder[last] = draw(PARTS)
        elif change == "drop":
            del holder[last]
        elif change == "copy":
            holder[last] = copy.deepcopy(draw(st.sampled_from([data, *data.values()])))
        elif isinstance(holder, dict):
            name = draw(TEXTS | st.sampled_from(["id", "type", "x-a", "component", "output", "*"]))
            holder[name] = holder.pop(last) if change == "rename" else draw(PARTS)
    return written(data)


@settings(deadline=None)
@given(mutated())
def test_whatever_is_wrong_with_a_file_is_told_at_a_place_that_is_there(text: str) -> None:
    found: Sequence[ConfigError] = ()
    warnings: Sequence[Note] = ()
    try:
        warnings = project(text, N="1").warnings
    except ConfigErrors as mistakes:
        found = mistakes.errors
    assert len({(error.place, error.message) for error in found}) == len(found)
    assert all(render(error).startswith("error: ") for error in found)
    places = [error.place for error in found] + [note.place for note in warnings]
    places += [note.place for error in found for note in error.notes if note.place]
    lines = text.split("\n")
    for place in places:
        assert place is not None
        assert place.text == lines[place.line - 1]
        assert 1 <= place.column <= place.end_column <= len(place.text) + 1


def reordered(data: Any, draw: st.DrawFn, at: tuple[Any, ...] = ()) -> Any:
    """The same with the keys of its maps in another order; where that means nothing."""
    if isinstance(data, dict):
        keys = draw(st.permutations(list(data)))
        return {key: reordered(data[key], draw, (*at, key)) for key in keys}
    if isinstance(data, list):
        return [reordered(item, draw, at) for item in data]
    return data


@settings(deadline=None)
@given(st.data())
def test_the_order_of_keys_means_nothing(draw: st.DataObject) -> None:
    for data in VALID:
        again = reordered(data, lambda strategy: draw.draw(strategy))  # type: ignore[arg-type]
        found, expected = project(written(again), N="1"), project(written(data), N="1")
        assert found.settings == expected.settings
        assert found.controller == expected.controller
        for name, component in expected.components.items():
            assert found.components[name].config == component.config
            assert {a.id for a in found.components[name].actions} == {a.id for a in component.actions}
        assert {n: [j.id for j in w.jobs] for n, w in found.workflows.items()} == {
            n: [j.id for j in w.jobs] for n, w in expected.workflows.items()
        }


@settings(deadline=None)
@given(st.data())
def test_two_halves_of_a_file_are_the_file(draw: st.DataObject) -> None:
    def halves(data: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        one: dict[str, Any] = {}
        two: dict[str, Any] = {}
        for key, value in data.items():
            if isinstance(value, dict) and draw.draw(st.booleans()):
                one[key], two[key] = halves(value)
            else:
                (one if draw.draw(st.booleans()) else two)[key] = value
        return one, two

    for data in VALID:
        parts = [written(half) for half in halves(data)]
        found, expected = project(*parts, N="1"), project(written(data), N="1")
        assert found.settings == expected.settings
        assert found.controller == expected.controller
        assert found.components.keys() == expected.components.keys()
        assert found.workflows.keys() == expected.workflows.keys()


@pytest.mark.parametrize("data", VALID)
def test_a_list_of_one_is_the_one(data: dict[str, Any]) -> None:
    def plural(value: Any) -> Any:
        if isinstance(value, list):
            return [plural(item) for item in value]
        if not isinstance(value, dict):
            return value
        changed = {key: plural(item) for key, item in value.items()}
        for key in ("component", "workflow", "job", "action", "adapter"):
            if isinstance(changed.get(key), dict):
                changed[f"{key}s"] = [changed.pop(key)]
        return changed

    assert shape(project(written(plural(data)), N="1")) == shape(project(written(data), N="1"))


BLOCK = """
component:
  type: model
  task: text-generation
  model: ./m.gguf
  batch_size: 4
  prompt: Hello ${input.name}
  stop: [a, b]
"""


@pytest.mark.parametrize(
    "same",
    [
        BLOCK.replace("Hello ${input.name}", "'Hello ${input.name}'"),
        BLOCK.replace("Hello ${input.name}", '"Hello ${input.name}"'),
        BLOCK.replace("Hello ${input.name}", ">-\n    Hello\n    ${input.name}"),
        BLOCK.replace("model: ./m.gguf", "'model': \"./m.gguf\""),
        BLOCK.replace("[a, b]", "\n    - a\n    - b"),
        BLOCK.replace("batch_size: 4", "batch_size: 0x4"),
        "# a comment\n---\n" + BLOCK + "...\n",
        "\ufeff" + BLOCK.replace("\n", "\r\n"),
        BLOCK.replace("type: model", "<<: {type: model, batch_size: 9}"),
        "x-stop: &stop [a, b]" + BLOCK.replace("[a, b]", "*stop"),
    ],
)
def test_the_way_of_writing_yaml_means_nothing(same: str) -> None:
    found, expected = project(same), project(BLOCK)
    (one,), (other,) = found.components.values(), expected.components.values()
    assert one.config == other.config
    assert [*one.actions[0].values] == [*other.actions[0].values]
    assert one.actions[0].values["stop_sequences"] == other.actions[0].values["stop_sequences"]
