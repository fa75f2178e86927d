"""What does a check say of a component that calls a server?"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.compose.apps import project_of

from model_compose.errors import ConfigErrors

ALONE = "component:\n  type: http-client\n"


def told(keys: str, folder: Path) -> list[str]:
    """The mistakes of a component with these keys, in one line each."""
    indented = "".join(f"  {line}\n" for line in keys.strip().splitlines())
    try:
        project_of(ALONE + indented, folder)
    except ConfigErrors as errors:
        return [error.message for error in errors.errors]
    return []


def warned(keys: str, folder: Path) -> list[str]:
    indented = "".join(f"  {line}\n" for line in keys.strip().splitlines())
    return [note.message for note in project_of(ALONE + indented, folder).warnings]


RIGHT = [
    "endpoint: http://localhost:11434/api/generate\nbody: {model: x, prompt: '${input.prompt as text}'}",
    "endpoint: https://example.com/v1/${input.id}\nmethod: GET",
    "endpoint: https://example.com?q=${input.q}\nmethod: GET",
    "base_url: http://localhost:8000/v1\npath: /chat\nheaders: {X-Caller: '${input.who}'}",
    "base_url: http://h\nactions:\n  - {id: a, path: /a, default: true}\n  - {id: b, path: /b, method: GET}",
    "base_url: http://h\npath: /a\ntimeouts: {connect: 1s, read: 1m, total: 5m}\nmax_response: 1MB",
    "base_url: http://h\npath: /a\nmethod: GET\nretry: {max_attempt_count: 2, delay: 10ms}",
    "base_url: http://h\npath: /a\nproxy: http://proxy:3128",
    """
base_url: http://h
path: /jobs
completion:
  type: polling
  path: /jobs/${response.id}
  status: ${result.status}
  success_when: [done]
  fail_when: [failed]
  interval: 1s
output: ${result.url}""",
    "endpoint: http://h\ncompletion: {type: polling, endpoint: '${response.url}', success_when: 2xx}",
    "base_url: http://h\npath: /a\ncompletion: {type: callback, wait_for: '${response.id}'}",
]


@pytest.mark.parametrize("keys", RIGHT)
def test_what_is_right_is_right(keys: str, tmp_path: Path) -> None:
    assert told(keys, tmp_path) == []
    assert warned(keys, tmp_path) == []


WRONG = [
    ("base_url: http://h", "`path` is missing: where does the call go?"),
    ("x-nothing: 1", "`endpoint` is missing: where does the call go?"),
    ("method: GET", "`endpoint` is missing: where does the call go?"),
    ("path: /a", "`path` needs a `base_url`"),
    (
        "base_url: http://h\nendpoint: http://h/a\npath: /a",
        "`endpoint` and `path` both say where the call goes",
    ),
    ("endpoint: ${input.url}", "`endpoint`: `${input.url}` would let the input say where the call goes"),
    ("endpoint: ${input.url}/a", "`endpoint`: `${input.url}` would say where the call goes"),
    ("endpoint: http://${input.host}/a", "`endpoint`: `${input.host}` would be a part of the host"),
    ("endpoint: http://h${input.port}/a", "`endpoint`: `${input.port}` would be a part of the host"),
    ("endpoint: http://h:${input.port}/a", "`endpoint`: `${input.port}` would be a part of the host"),
    ("endpoint: '${input.scheme}://h/a'", "`endpoint`: `${input.scheme}` would say where the call goes"),
    ("endpoint: ftp://h/a", "`endpoint`: it must begin with `http://` or `https://`"),
    ("endpoint: http://user:pw@h/a", "`endpoint`: it has a user or a password: send them as a header"),
    ("endpoint: http://user:${input.pw}@h/a", "`endpoint`: `${input.pw}` would be a part of the host"),
    (
        "endpoint: {'?': {input: '${input.x}', value: 1, if_true: http://h, if_false: http://g}}",
        "`endpoint` must be a text",
    ),
    ("base_url: localhost:80\npath: /a", "`base_url`: it is no http(s) URL"),
    (
        "base_url: http://${input.x}\npath: /a",
        "`${input.x}` has no value yet when `base_url` of the component is read",
    ),
    ("base_url: http://h\npath: /a\nproxy: nonsense", "`proxy` is no http(s) URL"),
    (
        "base_url: http://h\npath: /a\nmethod: ${input.method}",
        "`method` must stand in the file, and not come from an input",
    ),
    (
        "base_url: http://h\nactions: [{path: /a, headers: '${input.headers}'}]",
        "`headers` must be a map whose keys stand in the file",
    ),
    (
        "base_url: http://h\nactions: [{path: /a, headers: {...: '${input.headers}'}}]",
        "`headers` must be a map whose keys stand in the file",
    ),
    (
        "base_url: http://h\npath: /a\nheaders: {Content-Length: 1}",
        "the header `Content-Length` is written by the client itself",
    ),
    ("base_url: http://h\npath: /a\nheaders: {'a b': 1}", "`a b` is no name of a header"),
    (
        "base_url: http://h\npath: /a\nrate_limit: 5",
        "`rate_limit` of the component is known, and not supported yet",
    ),
    (
        "base_url: http://h\npath: /a\ncompletion: {type: polling, path: /b}",
        "`success_when` is missing in `completion`",
    ),
    (
        "base_url: http://h\npath: /a\ncompletion: {type: polling, path: /b, success_when: done}",
        "`done` is no HTTP status",
    ),
    (
        "base_url: http://h\npath: /a\ncompletion: {type: polling, success_when: 2xx}",
        "`path` is missing: where does the call go?",
    ),
    (
        "endpoint: http://h\ncompletion: {type: polling, endpoint: 'http://${response}', success_when: 2xx}",
        "`endpoint`: `${response}` would be a part of the host",
    ),
]


@pytest.mark.parametrize(("keys", "message"), WRONG)
def test_what_is_wrong_is_told(keys: str, message: str, tmp_path: Path) -> None:
    assert told(keys, tmp_path) == [message]


def test_retrying_what_may_do_harm_is_warned_of(tmp_path: Path) -> None:
    keys = "base_url: http://h\npath: /a\nretry: {}"
    assert "does not apply to a POST" in warned(keys, tmp_path)[0]
    assert warned(keys.replace("{}", "{idempotent: true}"), tmp_path) == []


@pytest.mark.parametrize("also", ["stream_format: json", "output: '${response[].choices[0].delta.content}'"])
def test_the_wrong_name_of_stream_is_warned_of(also: str, tmp_path: Path) -> None:
    keys = f"endpoint: http://h/v1/chat/completions\nbody: {{streaming: true}}\n{also}"
    assert warned(keys, tmp_path) == ["`streaming` is sent as `stream`, which is what such servers know"]
    for other in ("stream: true, streaming: true", "stream: true"):
        assert warned(keys.replace("streaming: true", other), tmp_path) == []
    assert warned(keys.replace("completions", "other"), tmp_path) == []
