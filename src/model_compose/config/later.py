"""Which keys do other versions of this format have, and what can be said about them?

Every key here is an error that says so, instead of an unknown one. The text, if there is any, is what
to do about it. (Values are told with their fields: see `later` of `spec.doc`.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

Part = Literal["file", "controller", "adapter", "listener", "webui", "component", "workflow", "job", "source"]

KEYS: Final[Mapping[Part, Mapping[str, str | None]]] = {
    "file": dict.fromkeys(
        (
            *("gateway", "gateways", "logger", "loggers"),
            *("system", "systems", "tracer", "tracers"),
        )
    ),
    "controller": {
        "queue": None,
        "websocket": None,
        "runtime": "leave it out: the service is a process of its own",
        "threaded": "leave it out: nothing here waits in the way of something else",
    },
    "adapter": {"websocket": None},
    "listener": {"runtime": None},
    "webui": {"static_dir": None},
    "component": {
        "on_demand": "write `preload: false` to load it at the first request",
        "rate_limit": "`max_concurrent_count` bounds how many calls are under way",
        **dict.fromkeys(("manage", "scripts", "install", "build", "clean", "start", "runtime")),
        "idle_timeout": "write `keep_alive: 10m` to unload it after so long without a request",
    },
    "workflow": {"private": None},
    "job": {
        "interrupt": None,
        "hook": "code does not stand in files: call a component",
    },
    "source": {
        "allow_patterns": "name the one file that is wanted with `filename`",
        "url": None,
        "bundled": None,
        "name": "say where it comes from: `repository`, `path` or `package`",
    },
}
