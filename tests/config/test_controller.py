from __future__ import annotations

import pytest
from tests.config.projects import MODEL, errors, mistake, project, told, underlined

from model_compose.config.schema import Controller, WebUi

COMPONENT = f"component: {{{MODEL}}}\n"


def controller(text: str) -> Controller:
    return project(f"controller: {text}\n{COMPONENT}").controller


def test_no_controller_is_a_controller() -> None:
    assert project(COMPONENT).controller == Controller()
    assert controller("") == controller("{}") == controller("null") == Controller()
    assert Controller().host == "127.0.0.1"


@pytest.mark.parametrize(
    "text",
    [
        "{type: http-server, host: localhost, port: 80, base_path: /x, max_queue: 5}",
        "{adapter: {type: http-server, host: localhost, port: 80, base_path: /x}, max_queue: 5}",
        "{adapters: [{host: localhost, port: 80, base_path: /x}], max_queue: 5}",
        "{adapters: [{port: 80}], host: localhost, base_path: /x, max_queue: 5}",
    ],
)
def test_the_address_stands_in_the_controller_or_in_its_adapter(text: str) -> None:
    assert controller(text) == Controller(host="localhost", port=80, base_path="/x", max_queue=5)


@pytest.mark.parametrize(
    ("text", "message", "part"),
    [
        ("{adapter: {port: 80}, port: 81}", "`port` stands both in the adapter and beside it", "port"),
        ("{adapters: [{port: 80}, {port: 81}]}", "the service has one adapter", "{port: 81}"),
        ("{adapter: {}, adapters: [{}]}", "both `adapter` and `adapters` are given", "adapter"),
        ("{adapters: {port: 80}}", "`adapters` is not a list", "{port: 80}"),
        (
            "{adapter: {max_queue: 1}}",
            "unknown field `max_queue` in the adapter of the controller",
            "max_queue",
        ),
        ("{adapter: 80}", "the adapter of the controller: expected a map, found `80`", "80"),
        ("80", "the controller: expected a map, found `80`", "80"),
        (
            "{type: mcp-server}",
            "`mcp-server` as `type` of the controller is known, and not supported yet",
            "mcp-server",
        ),
        (
            "{adapter: {type: queue-subscriber, queue: jobs}}",
            "`queue-subscriber` as `type` of the adapter of the controller is known, and not supported yet",
            "queue-subscriber",
        ),
        (
            "{webui: {driver: static}}",
            "`static` as `driver` of `webui` of the controller is known, and not supported yet",
            "static",
        ),
        (
            "{webui: {static_dir: ./site}}",
            "`static_dir` of `webui` of the controller is known, and not supported yet",
            "static_dir",
        ),
        ("{webui: {porr: 1}}", "unknown field `porr` in `webui` of the controller", "porr"),
        ("{webui: {host: localhost}}", "`host` of `webui` needs a `port` beside it", "localhost"),
        ("{port: 81, webui: {port: 81}}", "port 81 is the service's own", "81"),
        (
            "{webui: {host: 0.0.0.0, port: 81}}",
            "`0.0.0.0` is reachable from other machines, and nobody is asked for a key",
            "0.0.0.0",
        ),
        (
            "{host: 0.0.0.0}",
            "`0.0.0.0` is reachable from other machines, and nobody is asked for a key",
            "0.0.0.0",
        ),
        ("{host: ''}", "`host` of the controller is empty", "''"),
        (
            "{api_keys: [same-key-as-the-next, same-key-as-the-next]}",
            "two of `api_keys` have the same key",
            None,
        ),
        (
            "{api_keys: [{key: one-key-of-two, name: a}, {key: another-key-of-two, name: a}]}",
            "two of `api_keys` have the same name",
            None,
        ),
        ("{api_keys: ' '}", "one of `api_keys` is empty", "' '"),
        ("{base_path: api}", "`api` is not the beginning of a path", "api"),
        ("{base_path: '/a?b'}", "`/a?b` is not the beginning of a path", "'/a?b'"),
        ("{origins: [http://a, ftp://b]}", "`ftp://b` is not a web origin", "ftp://b"),
        ("{origins: 'http://a, b'}", "`b` is not a web origin", "'http://a, b'"),
    ],
)
def test_what_cannot_work_is_told(text: str, message: str, part: str | None) -> None:
    found = errors(f"controller: {text}\n{COMPONENT}")
    assert [error.message for error in found if error.message == message] == [message]
    if part is not None:
        assert underlined(next(error for error in found if error.message == message)) == part


def test_keys_are_given_in_several_ways() -> None:
    assert controller("{api_keys: 0123456789abcdef}").keys[0].role == "use"
    keys = controller("{api_keys: [0123456789abcdef, {key: fedcba9876543210, role: admin}]}").keys
    assert [(key.name, key.role) for key in keys] == [("key-0", "use"), ("key-1", "admin")]
    assert controller("{}").keys == ()


def test_with_keys_others_may_reach_the_service() -> None:
    assert controller("{host: 0.0.0.0, api_keys: 0123456789abcdef}").host == "0.0.0.0"


def test_a_short_key_is_a_warning() -> None:
    found = project(f"controller: {{api_keys: secret}}\n{COMPONENT}")
    assert "could be guessed" in found.warnings[0].message
    assert "secret" not in found.warnings[0].message


def test_an_adapter_that_comes_later_is_one_mistake_whatever_its_keys() -> None:
    text = "controller: {adapters: [{port: 80}, {type: mcp-server, stdio: true}]}\n"
    assert len(told(text + COMPONENT)) == 1


def test_an_address_that_is_meant_to_be_reached_is_allowed() -> None:
    assert controller("{host: 0.0.0.0, insecure: true}").host == "0.0.0.0"
    assert "`insecure: true`" in str(mistake(f"controller: {{host: '::'}}\n{COMPONENT}").hint)


@pytest.mark.parametrize("path", ["", "/", "/api", "/a/b-c"])
def test_paths(path: str) -> None:
    assert controller(f"{{base_path: '{path}'}}").base_path == path


@pytest.mark.parametrize(
    "origins",
    ["http://localhost:3000", "[https://a.b/, 'http://[::1]:80']", "http://a, https://b", "[]", "''"],
)
def test_origins(origins: str) -> None:
    found = project(f"controller:\n  origins: {origins}\n{COMPONENT}")
    assert found.warnings == ()
    assert found.controller.origins is not None


@pytest.mark.parametrize(
    "origin",
    ["example.com", "http://", "http://a/b", "http://a?b", "http://u@a", "http://a:b", "//a", "null"],
)
def test_what_is_no_origin(origin: str) -> None:
    assert "is not a web origin" in mistake(f"controller: {{origins: ['{origin}']}}\n{COMPONENT}").message


def test_every_origin_is_a_warning() -> None:
    (warning,) = project(f"controller: {{origins: 'http://a, *'}}\n{COMPONENT}").warnings
    assert "every web page" in warning.message
    assert underlined(warning) == "'http://a, *'"


@pytest.mark.parametrize(("written", "size"), [("1MB", 1_000_000), ("4096", 4096)])
def test_the_size_of_a_body_may_have_a_unit(written: str, size: int) -> None:
    assert controller(f"{{max_body: {written}}}").max_body == size


def test_the_service_may_stop_at_once() -> None:
    assert controller("{shutdown_timeout: 0}").shutdown_timeout == 0
    assert controller("{shutdown_timeout: 1m}").shutdown_timeout == 60


@pytest.mark.parametrize("text", ["{}", "{webui: true}", "{webui: {}}", "{webui: {driver: gradio}}"])
def test_there_are_pages_unless_the_file_says_otherwise(text: str) -> None:
    assert controller(text).ui == WebUi()
    assert controller("{webui: false}").ui is None


def test_pages_may_have_an_address_of_their_own() -> None:
    apart = controller("{port: 80, webui: {host: localhost, port: 80}}")
    assert apart.hosts == ("127.0.0.1", "localhost")
    assert controller("{webui: {port: 81}}").hosts == ("127.0.0.1",)
