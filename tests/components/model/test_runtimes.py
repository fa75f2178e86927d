"""Are the keys of `runtime` checked together?"""

from __future__ import annotations

import pytest
from tests.config.projects import errors, mistake, project

from model_compose.components.model.runtimes import redacted
from model_compose.components.model.spec import ModelConfig
from model_compose.compose.catalog import BuiltIn

MODEL = "component: {type: model, task: text-generation, model: ./m.gguf, runtime: %s}"


def said(runtime: str) -> tuple[str, str]:
    error = mistake(MODEL % runtime)
    return error.message, str(error.hint)


@pytest.mark.parametrize(
    "runtime",
    [
        "virtualenv",
        "{type: virtualenv}",
        "{type: virtualenv, path: .venvs/x, requirements: [a==1, 'a @ https://x/a.whl'], python: 3.12}",
        "{type: virtualenv, requirements: ./requirements.txt, python: /usr/bin/python3}",
        "{type: virtualenv, requirements: [], python: 3.11.7}",
        "{type: process, python: ./venv/bin/python}",
        "{type: native, python: ~/venv/bin/python}",
    ],
)
def test_a_worker_may_run_elsewhere(runtime: str) -> None:
    (component,) = project(MODEL % runtime).components.values()
    assert isinstance(component.config, ModelConfig)
    assert component.config.elsewhere
    assert not component.config.embedded


@pytest.mark.parametrize(
    ("runtime", "message", "hint"),
    [
        ("{type: process, path: x}", "`path` is of `type: virtualenv`", "write `type: virtualenv`"),
        (
            "{type: embedded, requirements: [x]}",
            "`requirements` is of `type: vir",
            "write `type: virtualenv`",
        ),
        ("{type: embedded, python: ./p}", "`python` cannot be chosen with `type: embedded`", "None"),
        ("{type: process, python: 3.12}", "`python` is the version `3.12`, and must be", "write the path"),
        (
            "{type: process, python: python3}",
            "`python` is `python3`, and must be a path",
            "write `./python3`",
        ),
        ("{type: virtualenv, python: 3.10}", "`python` is `3.10`, and workers need 3.11 or newer", "None"),
        ("{type: virtualenv, python: 2.7.18}", "`python` is `2.7.18`, and workers need 3.11", "None"),
        (
            "{type: virtualenv, python: new}",
            "`python` is `new`, and must be a path, or a vers",
            "write `./new`",
        ),
        ("{type: virtualenv, path: ..}", "`path` must name a folder of its own", "such as"),
        ("{type: virtualenv, path: /}", "`path` must name a folder of its own", "such as"),
        ("{type: virtualenv, requirements: vllm}", "`requirements` is `vllm`, and must be a", "write a list"),
        ("{type: virtualenv, requirements: ['-r x']}", "`-r x` is no requirement", "such as `vllm"),
        ("{type: virtualenv, requirements: ['--pre']}", "`--pre` is no requirement", "such as `vllm"),
        ("{type: virtualenv, requirements: [./x.whl]}", "`./x.whl` is no requirement", "such as `vllm"),
        (r"{type: virtualenv, requirements: ['x\n-r y']}", "`x\n-r y` is no requirement", "such as `vllm"),
    ],
)
def test_what_does_not_go_together_is_told(runtime: str, message: str, hint: str) -> None:
    told = said(runtime.replace(r"['x\n-r y']", r'["x\n-r y"]'))
    assert told[0].startswith(message)
    assert told[1].startswith(hint)


def test_an_engine_without_requirements_of_its_own_must_be_given_some() -> None:
    text = "component: {type: model, task: text-embedding, model: a/b, runtime: virtualenv}"
    (error,) = errors(text, catalog=BuiltIn())
    assert error.message == "`requirements` is missing: what brings `torch` into the environment?"
    assert error.hint == "write `requirements: [torch]`, or what it is called there"


def test_passwords_of_urls_are_not_shown() -> None:
    assert (
        redacted("x @ https://me:secret@host/x.whl and http://t@h") == "x @ https://host/x.whl and http://h"
    )
    assert redacted("a@b https://host/a@b") == "a@b https://host/a@b"
    error = mistake(MODEL % "{type: virtualenv, requirements: ['-i https://me:secret@host/']}")
    assert "secret" not in error.message
