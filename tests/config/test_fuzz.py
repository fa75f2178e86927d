"""Whatever a file says, only our own errors come out, and soon.

`MODEL_COMPOSE_FUZZ=10000 pytest tests/config/test_fuzz.py` looks deeper.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.config.expressions import SOURCES, parsed
from tests.config.projects import project

from model_compose.compose.catalog import BuiltIn
from model_compose.config.environment import Environment
from model_compose.config.expression import Scope, render
from model_compose.config.project import load_project
from model_compose.config.template import compile_tree
from model_compose.config.values import COMPARISONS
from model_compose.errors import ModelComposeError

_DEEP = int(os.environ.get("MODEL_COMPOSE_FUZZ", "0"))
fuzzed = settings(
    max_examples=_DEEP or 100,
    derandomize=not _DEEP,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
CATALOG = BuiltIn()

#: One of everything that a file can hold.
WHOLE = {
    "name": "all",
    "controller": {
        "adapter": {"type": "http-server", "port": 8080, "api_keys": [{"key": "k", "role": "use"}]},
        "max_body": "1MB",
        "webui": {"driver": "gradio"},
    },
    "listeners": [
        {
            "id": "t",
            "type": "http-trigger",
            "port": 8081,
            "path": "/go",
            "workflow": "two",
            "input": {"text": "${body.a}"},
        },
        {"id": "c", "type": "http-callback", "port": 8082, "path": "/done", "identify_by": "${item.id}"},
    ],
    "components": [
        {
            "id": "chat",
            "type": "model",
            "task": "chat-completion",
            "model": {"provider": "huggingface", "repository": "a/b", "filename": "m.gguf"},
            "peft_adapters": [{"name": "x", "model": "./x.gguf", "weight": "${input.w as number | 1}"}],
            "actions": [
                {
                    "id": "ask",
                    "messages": [{"role": "user", "content": "${input.text}"}],
                    "params": {"seed": 1},
                }
            ],
        },
        {
            "id": "http",
            "type": "http-client",
            "base_url": "http://localhost:1",
            "path": "/x",
            "body": {"a": "${input.a}"},
        },
        {"id": "run", "type": "shell", "command": ["echo", "${input.a}"]},
        {"id": "cut", "type": "text-splitter", "text": "${input.text}"},
        {
            "id": "store",
            "type": "vector-store",
            "driver": "sqlite",
            "actions": [{"id": "s", "collection": "c", "method": "search", "query": [1.0]}],
        },
        {"id": "inner", "type": "workflow", "workflow": "one"},
    ],
    "workflows": [
        {"id": "one", "job": {"component": "cut", "input": {"text": "${input.text as text | hello}"}}},
        {
            "id": "two",
            "jobs": [
                {
                    "id": "a",
                    "component": "chat",
                    "action": "ask",
                    "retry": {"max_retry_count": 2},
                    "on_error": {"output": 1},
                },
                {
                    "id": "b",
                    "type": "if",
                    "operator": "eq",
                    "input": "${jobs.a.output}",
                    "value": 1,
                    "if_true": "c",
                    "if_false": "d",
                },
                {"id": "c", "type": "delay", "duration": "1s"},
                {
                    "id": "d",
                    "type": "for-each",
                    "input": "${input.all}",
                    "do": {"component": "cut", "input": {"text": "${item}"}},
                },
            ],
            "output": {"x": "${jobs.d.output}", "...": "${jobs.a.output}"},
        },
    ],
}

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    SOURCES,
    st.sampled_from(
        ["", "1MB", "10s", "-1", "1e400", "${env.N}", "${input}", "__default__", "chat", "@", "0", "\0"]
    ),
)
_KEYS = st.one_of(
    st.sampled_from(
        ["id", "type", "input", "output", "?", "...", "*", "|", "+", "job", "action", "params", "and", "x-y"]
    ),
    st.text(max_size=6),
)
VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=8,
)


def _places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(place for key, each in inner for place in _places(each, (*path, key)))]


PLACES = _places(WHOLE)


def planted(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The same with a value at a place."""
    if not path:
        return value
    copy = dict(data) if isinstance(data, dict) else list(data)
    copy[path[0]] = planted(data[path[0]], path[1:], value)
    return copy


def is_loaded_or_told(load: Callable[[], Any]) -> None:
    """Nothing but our own errors, which can be shown."""
    told: ModelComposeError | None = None
    try:
        load()
    except ModelComposeError as error:
        told = error
    assert told is None or (told.message and str(told))


def checked(text: str) -> None:
    is_loaded_or_told(lambda: project(text, catalog=CATALOG, N="1"))


def test_the_file_that_is_changed_is_right_before() -> None:
    assert set(project(json.dumps(WHOLE), catalog=CATALOG, N="1").workflows) == {"one", "two"}


@fuzzed
@given(st.sampled_from(PLACES), VALUES)
def test_any_value_at_any_key(path: tuple[Any, ...], value: Any) -> None:
    checked(json.dumps(planted(WHOLE, path, value)))


@fuzzed
@given(st.sampled_from(PLACES), _KEYS, VALUES)
def test_any_key_beside_others(path: tuple[Any, ...], key: str, value: Any) -> None:
    target: Any = WHOLE
    for part in path:
        target = target[part]
    if isinstance(target, dict):
        checked(json.dumps(planted(WHOLE, path, {**target, key: value})))


@fuzzed
@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode(errors="replace")))
@example(b"\xff\xfea: 1")
@example(b"components: *a")
@example(b"a: &a [*a]")
@example(b"? {a: 1}\n: 2")
@example(b"!!python/object:os.system x")
def test_any_bytes_in_a_file(content: bytes) -> None:
    path = Path(os.environ.get("PYTEST_TMP", "/tmp")) / f"fuzz-{os.getpid()}.yml"
    path.write_bytes(content)
    try:
        is_loaded_or_told(lambda: load_project([path], Environment({}), CATALOG))
    finally:
        path.unlink()


@fuzzed
@given(st.binary(min_size=1, max_size=6), st.integers(0, 3000), st.integers(0, 6))
def test_a_file_with_bytes_exchanged(put: bytes, start: int, cut: int) -> None:
    text = json.dumps(WHOLE, indent=1).encode()
    changed = text[: start % len(text)] + put + text[start % len(text) + cut :]
    checked(changed.decode(errors="replace"))


_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.just([1, "a"]),
    st.just({"a": [1]}),
)


@fuzzed
@given(VALUES, st.dictionaries(st.sampled_from(["a", "b", "text", "x"]), _VALUES))
def test_any_template_renders_or_tells(data: Any, given_values: dict[str, Any]) -> None:
    def rendered() -> None:
        tree = compile_tree(parsed(data))
        render(tree, Scope({"input": given_values, "item": 1, "result": "r", "jobs": {}, "env": {}}))

    is_loaded_or_told(rendered)


_CONDITIONS = st.recursive(
    st.fixed_dictionaries(
        {"input": VALUES, "operator": st.sampled_from([*COMPARISONS, "like", ""])}, optional={"value": VALUES}
    )
    | VALUES,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"all": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"any": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=4,
)


@fuzzed
@given(_CONDITIONS, st.dictionaries(st.sampled_from(["a", "b", "text", "x"]), _VALUES))
def test_any_condition_is_decided_or_told(condition: Any, given_values: dict[str, Any]) -> None:
    def decided() -> None:
        branch = {**condition, "if_true": "yes"} if isinstance(condition, dict) else condition
        tree = compile_tree(parsed({"?": [branch, {"all": [], "if_true": "no"}]}))
        render(tree, Scope({"input": given_values, "item": 1, "index": 0}))

    is_loaded_or_told(decided)


#: What grows with the length of a file, and the lengths of which one is four times the other.
LONG: dict[str, Callable[[int], str]] = {
    "alternatives": lambda n: "a: ${input.a" + " | ${input.a" * min(n, 40) + "}" * (min(n, 40) + 1),
    "open braces": lambda n: "a: '" + "${" * n + "'",
    "a long path": lambda n: "a: ${input" + ".a" * n + "}",
    "indexes": lambda n: "a: ${input" + "[0]" * n + "}",
    "many expressions": lambda n: "a: '" + "${input.a} " * n + "'",
    "options": lambda n: "a: ${input.a as select/" + "b," * n + "c}",
    "an annotation": lambda n: "a: ${input.a @(" + "(" * n + ")" * n + ")}",
    "backslashes": lambda n: "a: '${input.a | " + "\\\\" * n + "}'",
    "quotes": lambda n: "a: ${input.a | " + '"' * n + "}",
    "spaces": lambda n: "a: ${input.a" + " " * n + "as" + " " * n + "text}",
    "dollars": lambda n: "a: '" + "$" * n + "{'",
    "flow lists": lambda n: "a: " + "[" * n,
    "a long text": lambda n: "a: " + "x" * n,
    "many keys": lambda n: "a: {" + ", ".join(f"k{i}: 1" for i in range(n)) + "}",
    "one key often": lambda n: "a: {" + ", ".join("k: 1" for _ in range(n)) + "}",
    "tags": lambda n: "a: " + "!" * n,
    "anchors": lambda n: "a: [" + ", ".join(f"&a{i} 1" for i in range(n)) + "]",
    "comments": lambda n: "#" * n + "\n" + "# a\n" * n + "a: 1",
    "unknown components": lambda n: (
        "components: [" + ", ".join(f"{{id: c{i}, type: nope}}" for i in range(n // 10)) + "]"
    ),
    "unknown jobs": lambda n: (
        "workflow: {jobs: [" + ", ".join(f"{{id: j{i}, component: c{i}}}" for i in range(n // 10)) + "]}"
    ),
    "a chain of jobs": lambda n: (
        MODEL_OF_CHAIN
        + ", ".join(
            f"{{id: j{i}, component: cut, input: {{text: '${{jobs.j{i - 1}.output}}'}}}}"
            for i in range(1, n // 20)
        )
        + "]}"
    ),
}
MODEL_OF_CHAIN = (
    "component: {id: cut, type: text-splitter, text: '${input.text}'}\n"
    "workflow: {jobs: [{id: j0, component: cut, input: {text: a}}, "
)


@pytest.mark.parametrize("what", LONG)
def test_a_file_four_times_as_long_takes_hardly_more_than_four_times_as_many_steps(what: str) -> None:
    """Counted in lines of Python that run, so that a busy machine changes nothing."""
    short, long = _steps(LONG[what](500)), _steps(LONG[what](2000))
    assert long < 8 * short + 5000, (short, long)


def _steps(text: str) -> int:
    count = 0

    def trace(frame: Any, event: str, arg: Any) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        checked(text)
    finally:
        sys.settrace(before)
    return count
