"""How does OpenAI's client for Node get onto this machine, which a test runs against our service?

    python scripts/test_clients.py

installs it below `.cache/test-clients` with the `npm` of the environment; no script of a package is run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.api.openai.clients import NODE_CLIENTS

PACKAGES = {"openai": "7.57.0"}


def main() -> None:
    """Install them, unless they are there."""
    if all(_version(name) == version for name, version in PACKAGES.items()):
        return
    NODE_CLIENTS.mkdir(parents=True, exist_ok=True)
    npm = str(Path(sys.executable).with_name("npm"))
    command = [npm, "install", "--prefix", str(NODE_CLIENTS), "--ignore-scripts", "--no-audit", "--no-fund"]
    packages = [f"{name}@{version}" for name, version in PACKAGES.items()]
    subprocess.run([*command, "--silent", *packages], check=True)


def _version(name: str) -> str | None:
    """The version of a package that is installed."""
    about = NODE_CLIENTS / "node_modules" / name / "package.json"
    return str(json.loads(about.read_text())["version"]) if about.is_file() else None


if __name__ == "__main__":
    main()
