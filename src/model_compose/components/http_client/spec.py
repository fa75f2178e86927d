"""What may a file say about calls to an HTTP server, its own or one that runs already?

`HttpKeys` and `http_action_spec` are also those of `http-server`, which is the same with a process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET

from model_compose.config.expression import Reference, Renderable, Template, references
from model_compose.config.quantities import DURATION, PAUSE, SIZE
from model_compose.config.schema import Tree
from model_compose.config.spec import ActionSpec, Catalog, ComponentSpec, Remarks, Report, doc
from model_compose.config.template import Map

Config = TypeVar("Config", bound="HttpKeys")

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

#: Methods that mean the same once and twice.
IDEMPOTENT: Final = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})

#: Headers that say how a message travels, which is not for a file to say.
_FRAMING: Final = frozenset(
    {"connection", "content-length", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
#: Under what the headers of a component stand among the values of an action; no key of a file.
_OF_COMPONENT: Final = "headers of the component"
_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_CODE: Final = re.compile(r"[1-5](\d\d|xx)", re.IGNORECASE)


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """What a call may take."""

    connect: Annotated[float, doc("most time to reach the server", quantity=DURATION)] = 10.0
    read: Annotated[
        float, doc("most time between two pieces of what it sends, and before the first", quantity=DURATION)
    ] = 300.0
    total: Annotated[
        float | None, doc("most time for a call with its retries; no limit by default", quantity=DURATION)
    ] = None


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """What to do when the server cannot be reached, or answers 429, 502, 503 or 504."""

    max_attempt_count: Annotated[int, doc("most attempts, the first included", ge=1)] = 3
    delay: Annotated[float, doc("pause before the second attempt", quantity=PAUSE)] = 1.0
    backoff: Annotated[
        Literal["fixed", "exponential"], doc("whether each further pause is twice as long")
    ] = "exponential"
    max_delay: Annotated[
        float, doc("longest pause; a server that asks for a longer one is not tried again", quantity=PAUSE)
    ] = 30.0
    idempotent: Annotated[
        bool, doc("also retry POST and PATCH: the server does no harm when it gets them twice")
    ] = False


class HttpKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Keys of a component whose actions are HTTP calls."""

    headers: Annotated[
        dict[str, Any], doc("headers of every call; those of an action go before them", template=True)
    ] = {}
    timeouts: Annotated[Timeouts, doc("what a call may take")] = Timeouts()
    retry: Annotated[
        Retry | None, doc("try again what failed on the way, for methods that allow it; default: never")
    ] = None
    max_response: Annotated[
        int, doc("most bytes of a response that is taken as a whole, or of one event", quantity=SIZE)
    ] = 64 << 20


class HttpClientConfig(HttpKeys, frozen=True, kw_only=True):
    """Keys of a component that calls an HTTP server."""

    base_url: Annotated[str | None, doc("URL that the `path` of each action is added to")] = None
    proxy: Annotated[
        str | None,
        doc("URL of a proxy; variables of the environment, such as `HTTP_PROXY`, are not looked at"),
    ] = None


class Polling(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="polling"):
    """Ask again and again whether the work that a call began is done."""

    endpoint: Annotated[str | None, doc("the whole URL to ask; `${response}` is what the call gave")] = None
    path: Annotated[str | None, doc("the same below `base_url`")] = None
    method: Annotated[Method, doc("method of the question")] = "GET"
    headers: Annotated[dict[str, Any], doc("its headers, beside those of the component")] = {}
    params: Annotated[dict[str, Any], doc("its query")] = {}
    body: Annotated[Any, doc("its body")] = None
    status: Annotated[
        Any, doc("how far it is, such as `${result.status}`; default: the HTTP status of the answer")
    ] = UNSET
    success_when: Annotated[
        Any, doc("value of `status` that means success, or a list; without `status`: codes such as `2xx`")
    ] = UNSET
    fail_when: Annotated[Any, doc("the same for failure")] = UNSET
    interval: Annotated[float, doc("pause before each question", quantity=DURATION)] = 5.0
    timeout: Annotated[float, doc("most time until it is done", quantity=DURATION)] = 300.0


class Callback(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="callback"):
    """Wait until a listener of this file hears that the work is done."""

    wait_for: Annotated[str, doc("the id that the callback will carry, such as `${response.id}`")]
    timeout: Annotated[float, doc("most time until it comes", quantity=DURATION)] = 300.0


class HttpAction(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP call."""

    endpoint: Annotated[
        str | None, doc("the whole URL; where it goes (`https://host`) stands in the file, not in an input")
    ] = None
    path: Annotated[str | None, doc("what is added to `base_url`")] = None
    method: Annotated[Method, doc("HTTP method")] = "POST"
    headers: Annotated[dict[str, Any], doc("headers of this call")] = {}
    params: Annotated[dict[str, Any], doc("the query of the URL; null is left out, a list is repeated")] = {}
    body: Annotated[
        Any,
        doc("what is sent: maps and lists as JSON, unless `Content-Type` says otherwise; texts as they are"),
    ] = None
    stream_format: Annotated[
        Literal["json", "text"] | None,
        doc("what the pieces of a streamed response are; default: told by its `Content-Type`"),
    ] = None
    completion: Annotated[
        Polling | Callback | None, doc("how to wait for work that the call only begins")
    ] = None


def http_action_spec(
    *,
    base_url: str | None,
    headers: Tree = None,
    retry: Retry | None = None,
    refuses: Mapping[str, str] = {},
) -> ActionSpec:
    """What the HTTP calls of a component take.

    base_url  what a `path` is added to; None if each action needs an `endpoint`
    headers   compiled ones of the component: what they refer to is an input of each action too
    refuses   keys that an action cannot have here, each with the reason
    """

    def check(values: Mapping[str, Any], remarks: Remarks) -> None:
        _check_call(values, base_url, remarks, ())
        _check_constants(values, remarks, retry)
        _check_streaming(values, base_url, remarks)
        completion = values.get("completion")
        if completion is not None:
            _check_completion(completion, base_url, remarks)

    names = tuple(HttpAction.__struct_fields__)
    return ActionSpec(
        HttpAction,
        chunk=Any,
        late=("completion",),
        fixed=names,
        refuses=refuses,
        given={_OF_COMPONENT: headers} if headers else {},
        check=check,
    )


def part_of(tree: Tree, key: str) -> Tree:
    """What stands under a key of a compiled map; UNSET if there is nothing."""
    if isinstance(tree, Map):
        return dict(tree.rendered).get(key, tree.constants.get(key, UNSET))
    return tree.get(key, UNSET) if isinstance(tree, dict) else UNSET


def _check_call(call: Mapping[str, Any], base_url: str | None, remarks: Remarks, at: tuple[str, ...]) -> None:
    """Where a call goes, and its headers."""
    endpoint, path = (None if call.get(name) is UNSET else call.get(name) for name in ("endpoint", "path"))
    said = {name for name in ("endpoint", "path") if call.get(name, UNSET) is not UNSET}
    if len(said) == 2:
        remarks.error("`endpoint` and `path` both say where the call goes", *at, "path", hint="keep one")
    elif not said:
        wanted = "`path` is missing" if base_url else "`endpoint` is missing"
        remarks.error(f"{wanted}: where does the call go?", *at, hint=_WHERE)
    elif "path" in said and not base_url:
        hint = "write `base_url` in the component, or the whole URL as `endpoint`"
        remarks.error("`path` needs a `base_url`", *at, "path", hint=hint)
    for name, value in (("endpoint", endpoint), ("path", path)):
        if isinstance(value, Renderable) and not isinstance(value, Reference | Template):
            remarks.error(f"`{name}` must be a text", *at, name)
    if isinstance(endpoint, str | Reference | Template):
        problem = problem_of_origin(endpoint)
        if problem is not None:
            remarks.error(f"`endpoint`: {problem}", *at, "endpoint", hint=_WHERE)
    if call.get("headers") is not None:
        check_headers(call["headers"], remarks, *at, "headers")
    params = call.get("params")
    if isinstance(params, Renderable) and not isinstance(params, Map):
        remarks.error("`params` must be a map whose keys stand in the file", *at, "params")


_WHERE: Final = "such as `endpoint: https://example.com/v1/items/${input.id}`, or `base_url` and `path`"


def problem_of_origin(endpoint: str | Reference | Template) -> str | None:
    """Why a URL, or what is written of it, does not say by itself where it goes.

    What an answer of the same server names may be a whole URL: that is compared when it is there.
    """
    if isinstance(endpoint, Reference):
        own = endpoint.source in ("response", "result", "output")
        return None if own else f"`{endpoint.text}` would let the input say where the call goes"
    known = endpoint if isinstance(endpoint, str) else endpoint.parts[0]
    if not isinstance(known, str):
        assert isinstance(known, Reference)
        return f"`{known.text}` would say where the call goes"
    match = re.match(r"https?://[^/?#]*", known, re.IGNORECASE)
    if match is None:
        return "it must begin with `http://` or `https://`"
    if not isinstance(endpoint, str) and match.end() == len(known):
        assert isinstance(endpoint.parts[1], Reference)
        return f"`{endpoint.parts[1].text}` would be a part of the host"
    return problem_of_url(match[0])


def problem_of_url(url: str) -> str | None:
    """What is wrong with a URL that stands in a file."""
    try:
        at = urlsplit(url)
        host, _ = at.hostname, at.port
    except ValueError as error:
        return str(error)
    if at.scheme not in ("http", "https") or not host:
        return "it is no http(s) URL"
    if at.username or at.password:
        return "it has a user or a password: send them as a header"
    return None


def check_headers(tree: Tree, remarks: Remarks, *at: str) -> None:
    """Headers have their names in the file: what a client sends becomes no header of its own."""
    if not isinstance(tree, dict | Map):
        remarks.error("`headers` must be a map whose keys stand in the file", *at)
        return
    for name in tree.constants if isinstance(tree, Map) else tree:
        if not _TOKEN.fullmatch(name):
            remarks.error(f"`{name}` is no name of a header", *at, name)
        elif name.lower() in _FRAMING:
            remarks.error(f"the header `{name}` is written by the client itself", *at, name)


def _check_constants(values: Mapping[str, Any], remarks: Remarks, retry: Retry | None) -> None:
    for name in ("method", "stream_format"):
        if isinstance(values.get(name), Renderable):
            remarks.error(f"`{name}` must stand in the file, and not come from an input", name)
    method = values.get("method", "POST")
    if retry is not None and not retry.idempotent and isinstance(method, str) and method not in IDEMPOTENT:
        remarks.warn(
            f"`retry` does not apply to a {method}, which may do its work twice; "
            "`retry.idempotent: true` says that this does no harm",
            *(("method",) if "method" in values else ()),
        )


def _check_streaming(values: Mapping[str, Any], base_url: str | None, remarks: Remarks) -> None:
    if renames_streaming(values, base_url):
        remarks.warn("`streaming` is sent as `stream`, which is what such servers know", "body", "streaming")


def renames_streaming(values: Mapping[str, Any], base_url: str | None) -> bool:
    """Whether `streaming` of a body means the `stream` of OpenAI's API.

    values  the compiled ones, and `output`
    """
    wants_pieces = isinstance(values.get("stream_format"), str) or _has_pieces(values.get("output"))
    body = values.get("body")
    if not wants_pieces or part_of(body, "streaming") is UNSET or part_of(body, "stream") is not UNSET:
        return False
    to = values.get("endpoint") or values.get("path") or base_url or ""
    last = to.parts[-1] if isinstance(to, Template) else to
    return isinstance(last, str) and urlsplit(last).path.rstrip("/").endswith("/completions")


def _has_pieces(output: Tree) -> bool:
    return any(reference.per_chunk for reference in references(output))


def _check_completion(tree: Tree, base_url: str | None, remarks: Remarks) -> None:
    if not isinstance(tree, dict | Map):
        remarks.error("`completion` must be a map whose keys stand in the file", "completion")
        return
    keys = tree.constants if isinstance(tree, Map) else tree
    parts = {name: part_of(tree, name) for name in keys}
    for name in ("type", "method"):
        if isinstance(parts.get(name), Renderable):
            remarks.error(f"`{name}` must stand in the file", "completion", name)
    if parts.get("type") == "callback":
        return
    _check_call(parts, base_url, remarks, ("completion",))
    if parts.get("success_when") is None:
        hint = "such as `success_when: [completed]` with a `status`, or `success_when: 2xx` without one"
        remarks.error("`success_when` is missing in `completion`", "completion", hint=hint)
    if parts.get("status") is None:
        for name in ("success_when", "fail_when"):
            for value in _values(parts.get(name)):
                if not isinstance(value, Renderable) and not _CODE.fullmatch(str(value)):
                    hint = "write `status`, such as `${result.status}`, or codes such as `200` and `5xx`"
                    remarks.error(
                        f"{value!r} is no HTTP status".replace("'", "`"), "completion", name, hint=hint
                    )


def _values(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        yield from value
    elif value is not None and value is not UNSET:
        yield value


def with_headers(config: Config, report: Report) -> Config:
    """A configuration whose `headers` are a compiled tree, looked at."""
    if not config.headers:
        return config
    tree = report.tree("headers")
    if tree is None:
        return msgspec.structs.replace(config, headers={})  # it has mistakes, which have been told
    check_headers(tree, report, "headers")
    return msgspec.structs.replace(config, headers=tree)


def _complete(config: HttpClientConfig, catalog: Catalog, report: Report) -> HttpClientConfig:
    return with_headers(config, report)


def _action(config: HttpClientConfig, catalog: Catalog, report: Report) -> ActionSpec:
    if config.base_url is not None and (problem := problem_of_url(config.base_url)) is not None:
        report.error(f"`base_url`: {problem}", "base_url", hint="such as `http://localhost:11434`")
    if config.proxy is not None and urlsplit(config.proxy).scheme not in ("http", "https"):
        report.error("`proxy` is no http(s) URL", "proxy", hint="such as `http://proxy.example:3128`")
    # One that cannot be read has been told, and is one.
    base_url = "http://unknown.invalid" if report.wrong("base_url") else config.base_url
    return http_action_spec(base_url=base_url, headers=config.headers, retry=config.retry)


SPEC = ComponentSpec(
    name="http-client",
    summary="Calls an HTTP server that runs already, and reads what it answers, also piece by piece.",
    config=HttpClientConfig,
    action=_action,
    complete=_complete,
    implementation="model_compose.components.http_client.component:HttpClient",
    requests=(HttpAction,),
)
