from __future__ import annotations

import pytest
from tests.config.projects import MODEL, errors, project, told, underlined

from model_compose.config.listeners import Callback, Trigger

COMPONENT = f"component: {{{MODEL}}}\n"


def told_of(listener: str) -> list[str]:
    return told(f"{COMPONENT}listener: {{{listener}}}")


def test_a_callback_has_defaults_and_its_keys_may_stand_in_the_listener() -> None:
    text = "listener: {type: http-callback, path: /done, identify_by: '${body.id}'}"
    (listener,) = project(COMPONENT + text).listeners
    assert (listener.type, listener.host, listener.port) == ("http-callback", "127.0.0.1", 8090)
    (route,) = listener.routes
    assert isinstance(route, Callback)
    assert (route.path, route.method, route.bulk, route.success_when) == ("/done", "POST", False, None)


def test_a_trigger_names_the_default_workflow() -> None:
    triggers = "triggers: [{path: /a}, {path: /b, method: GET}]"
    text = f"listeners: [{{type: http-trigger, base_path: /hooks, {triggers}}}]"
    (listener,) = project(COMPONENT + text).listeners
    assert listener.port == 8091
    first, second = listener.routes
    assert isinstance(first, Trigger)
    assert (first.path, first.workflow) == ("/hooks/a", "__workflow__")
    assert (second.path, second.method) == ("/hooks/b", "GET")


def test_triggers_ask_for_the_keys_of_the_controller_and_callbacks_for_their_own() -> None:
    text = """
controller: {api_keys: a-long-key-of-the-controller}
listeners:
  - {id: a, type: http-trigger, path: /a}
  - {id: b, type: http-callback, path: /b, identify_by: '${body.id}'}
  - {id: c, type: http-callback, port: 9000, path: /c, identify_by: '${body.i}', api_keys: [another-long-key]}
"""
    listeners = project(COMPONENT + text).listeners
    keys = [[key.key for key in listener.api_keys] for listener in listeners]
    assert keys == [["a-long-key-of-the-controller"], [], ["another-long-key"]]


CALLBACK = "type: http-callback, path: /a, identify_by: '${body.id}'"


@pytest.mark.parametrize(
    ("listener", "message"),
    [
        ("path: /a", "`type` is missing in the listener"),
        ("type: http-callback", "`path` is missing in a callback of the listener"),
        ("type: http-callback, path: /a", "`identify_by` is missing in a callback of the listener"),
        ("type: http-trigger, path: a", "`a` is no path of a URL"),
        ("type: http-trigger, path: '/{id}'", "`/{id}` is no path of a URL"),
        ("type: http-trigger, path: /a, workflow: none", "there is no workflow `none`"),
        ("type: http-trigger, path: /a, wokflow: x", "unknown field `wokflow` in a trigger of the listener"),
        ("type: http-trigger, path: /a, input: '${result.x}'", "`${result.x}`: there is no `result` here"),
        ("type: http-trigger, path: /a, item: '${item.x}'", "`${item.x}`: there is no `item` here"),
        ("type: http-trigger, path: /a, host: 0.0.0.0", "`0.0.0.0` is reachable from other machines, and"),
        ("type: http-trigger, path: /a, port: 8080", "port 8080 of the listener is that of the controller"),
        ("type: http-trigger, path: /a, port: 70000", "`70000` is no port"),
        ("type: http-trigger, path: /a, runtime: docker", "`runtime` of a trigger of the listener is known,"),
        ("type: http-trigger, triggers: [{path: /a}, {path: /a}]", "two paths of the listener are `POST /a`"),
        ("type: http-trigger, triggers: [{path: /a}], path: /b", "unknown field `path` in the listener"),
        ("type: http-trigger, callbacks: [{path: /a}]", "unknown field `callbacks` in a trigger"),
        (CALLBACK.replace("${body.id}", "id"), "`identify_by` is `id` for every answer"),
        (f"{CALLBACK}, success_when: done", "`success_when` says nothing without a `status`"),
        (f"{CALLBACK}, status: '${{body.s}}'", "nothing is said of the values of `status`"),
        (f"{CALLBACK}, status: s, fail_when: [x]", "`status` is `s` for every answer"),
    ],
)
def test_mistakes(listener: str, message: str) -> None:
    assert [each[: len(message)] for each in told_of(listener) if message in each] == [message]


def test_a_key_or_a_word_lets_other_machines_in() -> None:
    for more in ("insecure: true", "api_keys: a-key-that-is-long"):
        assert told_of(f"type: http-trigger, path: /a, host: 0.0.0.0, {more}") == []


def test_two_listeners_have_different_ports() -> None:
    text = "listeners: [{id: a, type: http-trigger, path: /a}, {id: b, type: http-trigger, path: /b}]"
    (error,) = errors(COMPONENT + text)
    assert error.message == "port 8091 of listener `b` is that of another listener"
    assert underlined(error.notes[0]).startswith("{id: a")
