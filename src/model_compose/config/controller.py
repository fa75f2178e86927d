"""How is the service reached, in each of the ways in which files say that?

Older files have it all in `controller`, newer ones keep the address in its `adapter`.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from msgspec.structs import replace

from model_compose.config.mistakes import Mistakes
from model_compose.config.network import is_loopback
from model_compose.config.read import WRONG, Reader
from model_compose.config.schema import Adapter, Controller
from model_compose.config.shape import listed, names_of
from model_compose.config.tree import Entry, Node, locate
from model_compose.errors import Note

_WHERE = "the controller"
_SHORT_KEY = 16


def read_controller(node: Node | None, reader: Reader, mistakes: Mistakes) -> Controller:
    """What a file says of the controller; the defaults where it says nothing, or nothing right."""
    if node is None or node.lost or node.value is None:
        return Controller()
    if isinstance(node.value, dict):
        node = _with_adapter(node, node.value, reader, mistakes)
    controller = reader.struct(node, Controller, _WHERE, "controller")
    if controller is WRONG:
        return Controller()
    assert isinstance(controller, Controller)
    _check_host(controller, controller.host, ["host"], node, mistakes)
    _check_webui(controller, node, mistakes)
    _check_base_path(controller, node, mistakes)
    _check_origins(controller, node, mistakes)
    _check_keys(controller, node, mistakes)
    return controller


def _with_adapter(node: Node, entries: dict[str, Entry], reader: Reader, mistakes: Mistakes) -> Node:
    """The controller with the keys of its adapter among its own."""
    where = f"the adapter of {_WHERE}"
    adapters = listed(entries, "adapter", mistakes)
    adapters = [each for each in adapters if not reader.comes_later(each, "type", Adapter, where)]
    for other in adapters[1:]:
        note = Note("the first is here", adapters[0].place)
        mistakes.add("the service has one adapter", other, hint="keep one of them", notes=[note])
    flat = {key: entry for key, entry in entries.items() if key not in ("adapter", "adapters")}
    if adapters:
        for key, entry in (reader.entries(adapters[0], names_of(Adapter), where, "adapter") or {}).items():
            if key in flat:
                note = Note("it stands here too", flat[key].key_place)
                mistakes.add(
                    f"`{key}` stands both in the adapter and beside it", entry.key_node, notes=[note]
                )
            flat[key] = entry
    return replace(node, value=flat)


def _check_webui(controller: Controller, node: Node, mistakes: Mistakes) -> None:
    """Note an address of the pages that nobody may have, or that the service has, or that means nothing."""
    ui = controller.ui
    if ui is None:
        return
    if ui.port is None:
        if ui.host is not None:
            at = locate(node, ["webui", "host"])
            mistakes.add("`host` of `webui` needs a `port` beside it", at, hint="such as `port: 8081`")
        return
    if ui.host is not None:
        _check_host(controller, ui.host, ["webui", "host"], node, mistakes)
    if ui.port and ui.port == controller.port and ui.host in (None, controller.host):
        hint = "leave it out: the pages are at `/ui/` of the service's port"
        mistakes.add(f"port {ui.port} is the service's own", locate(node, ["webui", "port"]), hint=hint)


def _check_host(
    controller: Controller, host: str, path: list[str | int], node: Node, mistakes: Mistakes
) -> None:
    """Note an address that other machines reach, unless the file says that this is meant."""
    if not host:
        where = _WHERE if path == ["host"] else "`webui`"
        mistakes.add(f"`host` of {where} is empty", locate(node, path), hint="write `127.0.0.1`")
    elif not is_loopback(host) and not controller.insecure and not controller.keys:
        mistakes.add(
            f"`{host}` is reachable from other machines, and nobody is asked for a key",
            locate(node, path),
            hint="set `api_keys`, listen on `127.0.0.1`, or write `insecure: true` if that is what you want",
        )


def _check_keys(controller: Controller, node: Node, mistakes: Mistakes) -> None:
    """Note keys that cannot be told apart, and warn of those that can be guessed or read."""
    keys, at = controller.keys, locate(node, ["api_keys"])
    for what, values in (("name", [key.name for key in keys]), ("key", [key.key for key in keys])):
        if len(set(values)) < len(values):
            mistakes.add(f"two of `api_keys` have the same {what}", at)
    if any(0 < len(key.key) < _SHORT_KEY for key in keys):
        message = f"one of `api_keys` has fewer than {_SHORT_KEY} characters, and could be guessed"
        mistakes.warn(message, at)
    if any(not key.key.strip() for key in keys):
        mistakes.add("one of `api_keys` is empty", at, hint="is the variable set to something?")


def _check_base_path(controller: Controller, node: Node, mistakes: Mistakes) -> None:
    path = controller.base_path
    if not path or (path.startswith("/") and not any(char in path for char in "?#% \\") and "//" not in path):
        return
    hint = "such as `/api`"
    mistakes.add(f"`{path}` is not the beginning of a path", locate(node, ["base_path"]), hint=hint)


def _check_origins(controller: Controller, node: Node, mistakes: Mistakes) -> None:
    at = locate(node, ["origins"])
    items = at.value if isinstance(at.value, tuple) else (at,)
    given = controller.origins
    for item, text in zip(items, (given,) if isinstance(given, str) else given, strict=False):
        for origin in filter(None, map(str.strip, text.split(","))):
            if origin == "*":
                mistakes.warn("`*`: every web page that somebody here opens can call this service", item)
            elif not _is_origin(origin):
                hint = "an origin is written `https://example.com` or `http://localhost:3000`"
                mistakes.add(f"`{origin}` is not a web origin", item, hint=hint, once=origin)


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  # refuses what is no number
    except ValueError:
        return False
    rest = (parts.path.rstrip("/"), parts.query, parts.fragment, parts.username)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not any(rest)
