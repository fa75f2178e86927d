"""What comes in from outside, beside calls of the API, and what happens then?

An `http-callback` hears the answers that calls wait for; an `http-trigger` starts runs of a workflow. Each
listens on a port of its own, and has one or several paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET

from model_compose.config.expression import Renderable
from model_compose.config.mistakes import Mistakes
from model_compose.config.network import is_loopback
from model_compose.config.quantities import SIZE
from model_compose.config.read import WRONG, Reader
from model_compose.config.references import Known, check_references, compiled
from model_compose.config.schema import DEFAULT, ApiKey, Controller, Tree, Workflow, default_of
from model_compose.config.shape import Ids, listed, names_of, part
from model_compose.config.spec import doc
from model_compose.config.tree import Node, at_key, locate
from model_compose.errors import Note, did_you_mean

SYNTHESISED_LISTENER: Final = "__listener__"

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Status: TypeAlias = str | int | bool


class ListenerKeys(msgspec.Struct, frozen=True, kw_only=True):
    """A port that others send something to."""

    id: Annotated[str, doc("a name for it, for messages")] = SYNTHESISED_LISTENER
    type: Annotated[
        Literal["http-callback", "http-trigger"],
        doc("`http-callback` hears answers that calls wait for, `http-trigger` starts runs"),
    ]
    host: Annotated[str, doc("address to listen on; other machines reach only what is not loopback")] = (
        "127.0.0.1"
    )
    port: Annotated[
        int | None,
        doc("port to listen on; 0 takes a free one; default: 8090 for callbacks, 8091 for triggers"),
    ] = None
    base_path: Annotated[str, doc("path in front of the others")] = ""
    insecure: Annotated[
        bool, doc("allow `host` to be reachable from other machines, for anybody, without a key")
    ] = False
    api_keys: Annotated[
        tuple[str, ...] | str | None,
        doc(
            "keys, one of which every request must bring; default: none for callbacks, and for triggers "
            "those of the controller"
        ),
    ] = None
    max_body: Annotated[int, doc("most bytes of a request body", quantity=SIZE)] = 4 << 20


class CallbackKeys(msgspec.Struct, frozen=True, kw_only=True):
    """A path where answers come in. Its expressions see `${body}`, `${query}` and `${item}`."""

    path: Annotated[str, doc("path of the URL, such as `/done`")]
    method: Annotated[Method, doc("method of the request")] = "POST"
    bulk: Annotated[bool, doc("a request has a list of answers: `item`, or else the body")] = False
    item: Annotated[Any, doc("where the answer is in a request; default: `${body}`", template=True)] = UNSET
    identify_by: Annotated[Any, doc("which call it answers: the id that the call waits for", template=True)]
    status: Annotated[Any, doc("how far the work is, for the two fields below", template=True)] = UNSET
    success_when: Annotated[
        tuple[Status, ...] | Status | None, doc("values of `status` that mean that it is done; default: all")
    ] = None
    fail_when: Annotated[
        tuple[Status, ...] | Status | None, doc("values of `status` that mean that it has failed")
    ] = None
    result: Annotated[Any, doc("what the call gets; default: `${item}`", template=True)] = UNSET


class TriggerKeys(msgspec.Struct, frozen=True, kw_only=True):
    """A path that starts runs. Its expressions see `${body}`, `${query}` and `${item}`."""

    path: Annotated[str, doc("path of the URL, such as `/new`")]
    method: Annotated[Method, doc("method of the request")] = "POST"
    bulk: Annotated[bool, doc("a run for each item of a list: `item`, or else the body")] = False
    item: Annotated[Any, doc("what the run is about; default: `${body}`", template=True)] = UNSET
    workflow: Annotated[str, doc("the id of the workflow that runs; default: the default one")] = DEFAULT
    input: Annotated[
        Any, doc("what the workflow gets; default: `${item}`, or `${query}` without a body", template=True)
    ] = UNSET


class Callback(msgspec.Struct, frozen=True):
    """A path where answers come in; trees are UNSET where the file says nothing."""

    path: str
    method: str
    bulk: bool
    item: Tree
    identify_by: Tree
    status: Tree
    success_when: tuple[Status, ...] | None
    fail_when: tuple[Status, ...]
    result: Tree


class Trigger(msgspec.Struct, frozen=True):
    """A path that starts runs of a workflow, which is named by its id."""

    path: str
    method: str
    bulk: bool
    item: Tree
    workflow: str
    input: Tree


Route: TypeAlias = Callback | Trigger


class Listener(msgspec.Struct, frozen=True):
    """A port that others send something to."""

    id: str
    type: str
    host: str
    port: int
    insecure: bool
    max_body: int
    api_keys: tuple[ApiKey, ...]
    routes: tuple[Route, ...]


_CALLBACK: Final = "http-callback"
_PORTS: Final = {_CALLBACK: 8090, "http-trigger": 8091}
_SOURCES: Final[Mapping[str, Known]] = {"body": None, "query": None, "item": None}
_OWN: Final = names_of(ListenerKeys)
_TREES: Final = ("item", "identify_by", "status", "result", "input")


def read_listeners(
    nodes: list[Node],
    controller: Controller,
    workflows: Mapping[str, Workflow],
    reader: Reader,
    mistakes: Mistakes,
) -> tuple[Listener, ...]:
    """The listeners of a file, as far as they can be read."""
    ids = Ids("listener", SYNTHESISED_LISTENER, mistakes)
    ports: dict[int, Node] = {}
    found = []
    for node in nodes:
        name = ids.add(node) or SYNTHESISED_LISTENER
        where = "the listener" if name == SYNTHESISED_LISTENER else f"listener `{name}`"
        listener = _Reading(where, controller, workflows, reader, mistakes).listener(node)
        if listener is None:
            continue
        if listener.port and listener.port in (*ports, controller.port):
            other = ports.get(listener.port)
            notes = [Note("the other is here", other.place)] if other else []
            whose = "another listener" if other else "the controller"
            message = f"port {listener.port} of {where} is that of {whose}"
            mistakes.add(message, locate(node, ["port"]), hint="choose another `port`", notes=notes)
        ports.setdefault(listener.port, node)
        found.append(listener)
    return tuple(found)


class _Reading:
    """Reads one listener, which `where` names in messages."""

    def __init__(
        self,
        where: str,
        controller: Controller,
        workflows: Mapping[str, Workflow],
        reader: Reader,
        mistakes: Mistakes,
    ) -> None:
        self._where = where
        self._controller = controller
        self._workflows = workflows
        self._reader = reader
        self._mistakes = mistakes

    def listener(self, node: Node) -> Listener | None:
        if not self._reader.is_map(node, self._where):
            return None
        assert isinstance(node.value, dict)
        keys = self._reader.struct(part(node, _OWN), ListenerKeys, self._where)
        if keys is WRONG:
            return None
        routes = self._routes(node, keys)
        self._check_host(keys, node)
        return Listener(
            keys.id,
            keys.type,
            keys.host,
            _PORTS[keys.type] if keys.port is None else keys.port,
            keys.insecure,
            keys.max_body,
            self._keys(keys),
            tuple(routes),
        )

    def _keys(self, keys: ListenerKeys) -> tuple[ApiKey, ...]:
        if keys.api_keys is None:
            return () if keys.type == _CALLBACK else self._controller.keys
        return Controller(api_keys=keys.api_keys).keys

    def _check_host(self, keys: ListenerKeys, node: Node) -> None:
        port = at_key(node, "port")
        if port is not None and keys.port is not None and not 0 <= keys.port <= 65535:
            self._mistakes.add(f"`{keys.port}` is no port", port, hint="a port is a number up to 65535")
        if not (is_loopback(keys.host) or keys.insecure or self._keys(keys)):
            hint = "set `api_keys`, listen on `127.0.0.1`, or write `insecure: true` if that is what you want"
            message = f"`{keys.host}` is reachable from other machines, and nobody is asked for a key"
            self._mistakes.add(message, locate(node, ["host"]), hint=hint)
        if keys.base_path and not _is_path(keys.base_path):
            message = f"`{keys.base_path}` is not the beginning of a path"
            self._mistakes.add(message, locate(node, ["base_path"]), hint="such as `/hooks`")

    def _routes(self, node: Node, keys: ListenerKeys) -> list[Route]:
        assert isinstance(node.value, dict)
        kind = keys.type.removeprefix("http-")
        own = CallbackKeys if keys.type == _CALLBACK else TriggerKeys
        entries = {key: entry for key, entry in node.value.items() if not key.startswith("x-")}
        nodes = listed(entries, kind, self._mistakes)
        if nodes:
            self._reader.entries(node, _OWN | {kind, f"{kind}s"}, self._where, "listener")
        else:
            nodes = [part(node, node.value.keys() - _OWN)]
        routes: list[Route] = []
        first: dict[tuple[str, str], Node] = {}
        for each in nodes:
            read = self._reader.struct(each, own, f"a {kind} of {self._where}", "listener")
            if read is WRONG:
                continue
            at = locate(each, ["path"])
            if not _is_path(read.path) or "{" in read.path:
                self._mistakes.add(f"`{read.path}` is no path of a URL", at, hint="such as `/hooks/done`")
            path = keys.base_path.rstrip("/") + read.path
            if (read.method, path) in first:
                note = Note("the other is here", first[read.method, path].place)
                self._mistakes.add(f"two paths of {self._where} are `{read.method} {path}`", at, notes=[note])
            first[read.method, path] = at
            routes.append(self._route(each, read, path))
        return routes

    def _route(self, node: Node, keys: CallbackKeys | TriggerKeys, path: str) -> Route:
        trees = {key: self._tree(node, key) for key in _TREES if at_key(node, key) is not None}
        item = trees.get("item", UNSET)
        if isinstance(keys, TriggerKeys):
            workflow = self._workflow(node, keys.workflow)
            return Trigger(path, keys.method, keys.bulk, item, workflow, trees.get("input", UNSET))
        self._check_callback(node, keys, trees)
        success = None if keys.success_when is None else _several(keys.success_when)
        return Callback(
            path,
            keys.method,
            keys.bulk,
            item,
            trees.get("identify_by"),
            trees.get("status", UNSET),
            success,
            () if keys.fail_when is None else _several(keys.fail_when),
            trees.get("result", UNSET),
        )

    def _tree(self, node: Node, key: str) -> Tree:
        at = locate(node, [key])
        tree = compiled(at, self._mistakes)
        sources = {name: known for name, known in _SOURCES.items() if name != key}
        check_references(at, tree, sources, self._mistakes)
        return tree

    def _check_callback(self, node: Node, keys: CallbackKeys, trees: Mapping[str, Tree]) -> None:
        for key in ("identify_by", "status"):
            tree = trees.get(key)
            if isinstance(tree, str | int | float) and not isinstance(tree, Renderable):
                message = f"`{key}` is `{tree}` for every answer"
                hint = f"say where it is: `${{body.{tree}}}`"
                self._mistakes.add(message, locate(node, [key]), hint=hint)
        wanted = next((k for k in ("success_when", "fail_when") if at_key(node, k) is not None), None)
        if wanted is not None and "status" not in trees:
            message = f"`{wanted}` says nothing without a `status`"
            hint = "say where it is, such as `status: ${body.status}`"
            self._mistakes.add(message, locate(node, [wanted]), hint=hint)
        elif "status" in trees and wanted is None:
            message = "nothing is said of the values of `status`"
            hint = "write `success_when`, `fail_when` or both"
            self._mistakes.add(message, locate(node, ["status"]), hint=hint)

    def _workflow(self, node: Node, name: str) -> str:
        at = locate(node, ["workflow"])
        if name != DEFAULT:
            if name not in self._workflows and not at.lost:
                hint = did_you_mean(name, self._workflows) or "declare it under `workflows:`"
                self._mistakes.add(f"there is no workflow `{name}`", at, hint=hint)
            return name
        found = default_of(tuple(self._workflows.values()))
        if found is None:
            names = did_you_mean("", self._workflows)
            message = "no workflow is named here, and none is the default"
            self._mistakes.add(message, at, hint=names)
        return DEFAULT if found is None else found.id


def _several(values: tuple[Status, ...] | Status) -> tuple[Status, ...]:
    return values if isinstance(values, tuple) else (values,)


def _is_path(path: str) -> bool:
    return path.startswith("/") and "//" not in path and not any(char in path for char in "?#% \\")
