"""What other versions of this format have, and we do not yet, is known: nothing of it is an unknown key."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.compose.apps import project_of

from model_compose.errors import ConfigErrors

SHELL = "component: {type: shell, command: [ls]%s}\n"
MODEL = "component: {type: model, task: text-generation, model: ./m.gguf%s}\n"
TYPES = ("mcp-server", "mcp-client", "model-trainer", "datasets", "image-processor")


def told(text: str, folder: Path) -> list[str]:
    with pytest.raises(ConfigErrors) as errors:
        project_of(text, folder)
    return [error.message for error in errors.value.errors]


@pytest.mark.parametrize("name", TYPES)
def test_types_of_components(tmp_path: Path, name: str) -> None:
    messages = told(f"component: {{type: {name}, action: {{anything: 1}}}}", tmp_path)
    assert messages == [f"component type `{name}` is known, and not supported yet"]


@pytest.mark.parametrize(
    "section", ["gateway", "gateways", "logger", "loggers", "system", "systems", "tracer", "tracers"]
)
def test_sections(tmp_path: Path, section: str) -> None:
    messages = told(SHELL % "" + f"{section}: [{{type: x, any: 1}}]", tmp_path)
    assert messages == [f"`{section}` of the file is known, and not supported yet"]


@pytest.mark.parametrize("runtime", ["docker", "apple-container"])
@pytest.mark.parametrize("form", ["runtime: %s", "runtime: {type: %s, image: x}"])
def test_runtimes(tmp_path: Path, runtime: str, form: str) -> None:
    (message,) = told(MODEL % f", {form % runtime}", tmp_path)
    assert message.startswith(f"`{runtime}` as `")
    assert message.endswith("is known, and not supported yet")
    (message,) = told(SHELL % f", {form % runtime}", tmp_path)
    assert message == "`runtime` of the component is known, and not supported yet"


@pytest.mark.parametrize("key", ["manage", "install", "build", "clean", "start", "scripts"])
def test_how_a_command_is_installed(tmp_path: Path, key: str) -> None:
    (message,) = told(SHELL % f", {key}: [pip, install, x]", tmp_path)
    assert message == f"`{key}` of the component is known, and not supported yet"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("controller: {queue: {}}", "`queue` of the controller"),
        ("controller: {threaded: true}", "`threaded` of the controller"),
        ("controller: {runtime: docker}", "`runtime` of the controller"),
        ("controller: {adapter: {type: queue-subscriber}}", "`queue-subscriber` as `type` of the adapter"),
        ("workflow: {private: true}", "`private` of the workflow"),
        ("workflow: {job: {interrupt: {}}}", "`interrupt` of the job of the workflow"),
        ("workflow: {job: {hook: {}}}", "`hook` of the job of the workflow"),
        (
            "listener: {type: http-trigger, path: /a, runtime: docker}",
            "`runtime` of a trigger of the listener",
        ),
    ],
)
def test_keys(tmp_path: Path, text: str, what: str) -> None:
    (message,) = told(SHELL % "" + text, tmp_path)
    assert message.startswith(what)
    assert message.endswith("is known, and not supported yet")


def test_a_gateway_in_an_expression(tmp_path: Path) -> None:
    (message,) = told(SHELL % ", stdin: '${gateway:8080.url}'", tmp_path)
    assert message == "`${gateway:8080.url}`: gateways are known, and not supported yet"
