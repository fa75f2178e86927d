"""What is this program called, and which version is it?"""

from typing import Final

#: The distribution on the package index. The name `model-compose` belongs to somebody else there,
#: so every hint that tells a user what to install builds on this constant.
DISTRIBUTION: Final = "modelyard-compose"

COMMAND: Final = "model-compose"

__version__ = "0.1.0"


def install_command(extra: str) -> str:
    """The command that adds an optional part, such as the `llamacpp` engine."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"
