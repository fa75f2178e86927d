"""How does OpenAI's client for Node get onto this machine, which a test runs against our service?

    python scripts/test_clients.py

installs it below `.cache/test-clients` with `npm`, without running any script of a package.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.api.openai.clients import NODE_CLIENTS

PACKAGES = ("openai@7.57.0",)


def main() -> None:
    """Install them."""
    NODE_CLIENTS.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--prefix", str(NODE_CLIENTS), "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run([*command, *PACKAGES], check=True)


if __name__ == "__main__":
    main()
