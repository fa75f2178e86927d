from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.compose.apps import project_of
from tests.docs.checking import said_of

from model_compose.components.http_server.spec import HttpServerConfig, commands


def config_of(keys: str, folder: Path) -> HttpServerConfig:
    text = "component:\n  type: http-server\n  path: /\n  start: [it]\n" + keys
    config = project_of(text, folder).components["__component__"].config
    assert isinstance(config, HttpServerConfig)
    return config


@pytest.mark.parametrize(
    "keys",
    [
        "  install: [a, b]\n  env: {N: 1}",
        "  manage: {install: [a, b], env: {N: 1}}",
        "  manage: {scripts: {install: [a, b]}, env: {N: 1}}",
        "  manage: {scripts: {install: [a, b], env: {N: 1}}}",
    ],
)
def test_commands_may_stand_in_three_places(keys: str, tmp_path: Path) -> None:
    config = config_of(keys, tmp_path)
    assert config.install == ("a", "b")
    assert config.env == {"N": "1"}


def test_a_command_is_a_text_a_list_of_words_or_a_list_of_lists(tmp_path: Path) -> None:
    keys = "  install: [[a, 1], [c]]\n  build: a && b\n  clean: [rm, -r, x]"
    assert list(commands(config_of(keys, tmp_path))) == [
        ("install", "a 1"),
        ("install", "c"),
        ("build", "sh -c: a && b"),
        ("start", "it"),
        ("clean", "rm -r x"),
    ]


SERVER = "component:\n  type: http-server\n  path: /\n"


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("  start: [it]\n  manage: {start: [it]}\n", "`start` stands here and elsewhere in the component"),
        ("  start: [it, '${input.x}']\n", "`${input.x}` has no value yet"),
        ("  install: echo ${input.x}\n", "`${input.x}` has no value yet"),
        ("  start: [[a], [b]]\n", "`start` of the component"),
        ("  start: ['', b]\n", "`start` has a command without a program"),
        ("  install: ' '\n", "`install` is empty"),
        ("  start: [it]\n  endpoint: http://localhost/x\n", "`endpoint` cannot be used here"),
        ("  start: [it]\n  base_path: v1\n", "`base_path` must begin with `/`"),
        ("  start: [it]\n  port: 0\n", "`port` of the component"),
        ("  start: [it]\n  healthcheck: {path: /x, colour: red}\n", "unknown field `colour`"),
        ("  start: [it]\n  healthcheck: {path: 'a b'}\n", "`path` is no path of a URL"),
        ("  manage: {begin: [it]}\n", "unknown field `begin`"),
    ],
)
def test_a_mistake_is_told(keys: str, told: str, tmp_path: Path) -> None:
    assert told in said_of(SERVER + keys, tmp_path)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("  install: [it]\n", "there is no `start`: somebody else must start the server"),
        ("  start: [ollama serve]\n", "`start` names one program, with spaces in its name"),
    ],
)
def test_what_is_hardly_meant_is_warned_of(keys: str, told: str, tmp_path: Path) -> None:
    (warning, *_) = project_of(SERVER + keys, tmp_path).warnings
    assert told in warning.message


def test_calls_go_to_the_server_itself(tmp_path: Path) -> None:
    from model_compose.components.http_server.spec import url_of

    keys: dict[str, Any] = {
        "  port: 9\n  base_path: /v1/\n": "http://127.0.0.1:9/v1",
        "": "http://127.0.0.1:8000",
    }
    for text, url in keys.items():
        assert url_of(config_of(text, tmp_path)) == url
