"""What does a server get from a call: URL, headers, body?"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from tests.components.http_client.upstream import Asked, answers, upstream
from tests.compose.apps import app_of, output_of

from model_compose.errors import InvalidInput


async def asked_by(keys: str, given: Any, folder: Path) -> Asked:
    """The one request that a call makes; `URL` in the keys is where the server is."""
    async with upstream(answers({"ok": True})) as server:
        text = "component:\n  type: http-client\n" + "".join(
            f"  {line}\n" for line in keys.replace("URL", server.url).strip().splitlines()
        )
        async with app_of(text, folder) as app:
            assert await output_of(app, given) == {"ok": True}
    (asked,) = server.asked
    return asked


async def test_a_map_is_sent_as_json_by_post(tmp_path: Path) -> None:
    keys = "endpoint: URL/api\nbody: {a: '${input.a}', t: '${input.t as number | 0.7}', n: [1, null]}"
    asked = await asked_by(keys, {"a": "ä"}, tmp_path)
    assert (asked.method, asked.target) == ("POST", "/api")
    assert asked.headers["content-type"] == "application/json"
    assert asked.json() == {"a": "ä", "t": 0.7, "n": [1, None]}
    assert isinstance(asked.json()["t"], float)


@pytest.mark.parametrize(
    ("body", "content_type", "sent", "as_type"),
    [
        ("[1, 2]", None, b"[1,2]", "application/json"),
        ("'a text'", None, b"a text", "text/plain; charset=utf-8"),
        ("'{\"raw\": 1}'", "application/json", b'{"raw": 1}', "application/json"),
        ("{a: 1}", "application/vnd.api+json", b'{"a":1}', "application/vnd.api+json"),
        (
            "{a: x y, b: [1, 2], c: null, d: true}",
            "application/x-www-form-urlencoded",
            b"a=x+y&b=1&b=2&d=true",
            "application/x-www-form-urlencoded",
        ),
        ("7", "text/plain", b"7", "text/plain"),
        ("true", None, b"true", "application/json"),
    ],
)
async def test_a_body_is_sent_as_its_type_says(
    body: str, content_type: str | None, sent: bytes, as_type: str, tmp_path: Path
) -> None:
    headers = f"\nheaders: {{Content-Type: {content_type}}}" if content_type else ""
    asked = await asked_by(f"endpoint: URL/\nbody: {body}{headers}", {}, tmp_path)
    assert (asked.body, asked.headers["content-type"]) == (sent, as_type)


async def test_no_body_is_no_body(tmp_path: Path) -> None:
    asked = await asked_by("endpoint: URL/\nmethod: GET", {}, tmp_path)
    assert (asked.method, asked.body, asked.headers.get("content-type")) == ("GET", b"", None)


async def test_a_form_with_files_is_multipart(tmp_path: Path) -> None:
    keys = """
endpoint: URL/
headers: {content-type: multipart/form-data}
body: {picture: "${input.picture as image/png}", title: a title, tags: [x, y], about: {k: 1}}
"""
    picture = base64.b64encode(b"\x89PNG not really").decode()
    asked = await asked_by(keys, {"picture": picture}, tmp_path)
    kind, _, boundary = asked.headers["content-type"].partition("; boundary=")
    assert kind == "multipart/form-data"
    parts = asked.body.split(f"--{boundary}".encode())
    assert b'name="picture"; filename="picture"\r\nContent-Type: image/png' in parts[1]
    assert parts[1].endswith(b"\x89PNG not really\r\n")
    assert [part.partition(b"\r\n\r\n")[2].strip() for part in parts[2:-1]] == [
        *(b"a title", b"x", b"y"),
        b'{"k":1}',
    ]
    assert b"filename" not in b"".join(parts[2:])


async def test_a_file_in_json_is_a_data_uri(tmp_path: Path) -> None:
    keys = "endpoint: URL/\nbody: {url: '${input.picture as image/png}'}"
    asked = await asked_by(keys, {"picture": base64.b64encode(b"12").decode()}, tmp_path)
    assert asked.json() == {"url": "data:image/png;base64,MTI="}


async def test_a_file_is_sent_as_it_is(tmp_path: Path) -> None:
    keys = "endpoint: URL/\nbody: ${input.picture as image/png}"
    asked = await asked_by(keys, {"picture": base64.b64encode(b"12").decode()}, tmp_path)
    assert (asked.body, asked.headers["content-type"]) == (b"12", "image/png")


async def test_a_url_of_a_client_is_fetched_for_a_form_only_under_the_guard(tmp_path: Path) -> None:
    keys = "endpoint: URL/\nheaders: {content-type: multipart/form-data}\nbody: {f: '${input.f as file}'}"
    with pytest.raises(InvalidInput, match="no public address"):
        await asked_by(keys, {"f": "http://127.0.0.1:1/x"}, tmp_path)


async def test_headers_of_an_action_go_before_those_of_the_component(tmp_path: Path) -> None:
    keys = """
base_url: URL/v1/
headers: {Authorization: "Bearer ${input.key}", X-A: component, X-B: component, X-N: "${input.none}"}
actions:
  - path: /a
    headers: {x-a: action, X-C: 7}
"""
    asked = await asked_by(keys, {"key": "k"}, tmp_path)
    assert asked.path == "/v1/a"
    found = {name: asked.headers.get(name) for name in ("authorization", "x-a", "x-b", "x-c", "x-n")}
    assert found == {
        "authorization": "Bearer k",
        "x-a": "action",
        "x-b": "component",
        "x-c": "7",
        "x-n": None,
    }


async def test_a_header_cannot_be_split(tmp_path: Path) -> None:
    keys = "endpoint: URL/\nheaders: {X-A: '${input.a}'}"
    with pytest.raises(InvalidInput, match="`X-A` would have a line break"):
        await asked_by(keys, {"a": "x\r\nX-Admin: 1"}, tmp_path)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("a/../b", "a%2F..%2Fb"),
        ("x?y=1#z", "x%3Fy%3D1%23z"),
        ("%2e%2e", "%252e%252e"),
        ("@evil.example", "%40evil.example"),
        ("ä \\", "%C3%A4%20%5C"),
        ("...", "..."),
    ],
)
async def test_a_value_in_a_path_is_one_segment(value: str, encoded: str, tmp_path: Path) -> None:
    for where in ("endpoint: URL/items/${input.id}/x", "base_url: URL\npath: items/${input.id}/x"):
        asked = await asked_by(f"{where}\nmethod: GET", {"id": value}, tmp_path)
        assert asked.target == f"/items/{encoded}/x"


@pytest.mark.parametrize("given", [{"a": ".."}, {"a": "."}, {"a": ".", "b": "."}])
async def test_a_value_in_a_path_is_no_way_up(given: Any, tmp_path: Path) -> None:
    both = "${input.a}${input.b}" if "b" in given else "${input.a}"
    with pytest.raises(InvalidInput, match="would leave its folder"):
        await asked_by(f"endpoint: URL/items/{both}", given, tmp_path)


@pytest.mark.parametrize("given", [{}, {"id": ""}, {"id": None}])
async def test_a_value_in_a_path_is_there(given: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="`id` is empty"):
        await asked_by("endpoint: URL/items/${input.id}", given, tmp_path)


async def test_the_query_comes_from_params_and_from_the_url(tmp_path: Path) -> None:
    keys = """
endpoint: URL/find?v=1&w=${input.q}
method: GET
params: {q: "${input.q}", many: [1, 2], none: "${input.none}", yes: true}
"""
    asked = await asked_by(keys, {"q": "a&b=c ü"}, tmp_path)
    query = parse_qs(asked.target.partition("?")[2])
    assert query == {"v": ["1"], "w": ["a&b=c ü"], "q": ["a&b=c ü"], "many": ["1", "2"], "yes": ["true"]}


@pytest.mark.parametrize("also", ["stream_format: json", "output: '${response[].ok}'"])
async def test_streaming_of_a_completion_is_sent_as_stream(also: str, tmp_path: Path) -> None:
    keys = f"endpoint: URL/v1/completions\nbody: {{model: m, streaming: true, n: 1}}\n{also}"
    async with upstream(answers({"ok": True})) as server:
        text = "component:\n  type: http-client\n" + "".join(
            f"  {line}\n" for line in keys.replace("URL", server.url).splitlines()
        )
        async with app_of(text, tmp_path) as app:
            await output_of(app)
    assert server.asked[0].json() == {"model": "m", "stream": True, "n": 1}


async def test_connections_are_used_again_and_cookies_are_not_kept(tmp_path: Path) -> None:
    handler = answers({}, headers={"Set-Cookie": "session=1"})
    keys = "component: {type: http-client, endpoint: URL/}"
    async with upstream(handler) as server, app_of(keys.replace("URL", server.url), tmp_path) as app:
        for _ in range(3):
            await output_of(app)
    assert server.connections == 1
    assert [asked.headers.get("cookie") for asked in server.asked] == [None] * 3
