"""How do tests get an app with a server that is started for it?"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Any

LITTLE = Path(__file__).with_name("little_server.py")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def start(port: int, *how: str) -> list[str]:
    """The command of a little server."""
    return [sys.executable, "-I", str(LITTLE), str(port), *how]


def file(port: int, *how: str, **keys: Any) -> str:
    """A file with a little server `it`, and an action for each thing that it does."""
    actions: list[dict[str, Any]] = [
        {"id": name, "path": f"/{name}", "method": "GET"} for name in ("pid", "env", "die", "asked")
    ]
    actions.append({"id": "echo", "path": "/echo", "body": {"said": "${input.text}"}})
    actions.append({"id": "pieces", "path": "/pieces", "output": "${response[].response}"})
    component = {
        "id": "it",
        "type": "http-server",
        "port": port,
        "actions": actions,
        "stop_timeout": "5s",
        **({} if "start" in keys else {"start": start(port, *how)}),
        **keys,
    }
    component = {key: value for key, value in component.items() if value is not None}
    workflows = [{"id": action["id"], "component": "it", "action": action["id"]} for action in actions]
    return json.dumps({"components": [component], "workflows": workflows})
