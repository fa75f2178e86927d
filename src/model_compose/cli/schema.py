"""`schema` and `version`: what may a file say, and which program is this?"""

from __future__ import annotations

from model_compose.about import COMMAND, __version__
from model_compose.cli.terminal import say, say_json


def schema() -> None:
    """Print the JSON Schema of the file, for editors."""
    from model_compose.compose.catalog import Installed
    from model_compose.config.json_schema import document

    say_json(document(Installed()))


def version() -> None:
    """Print the version."""
    say(f"{COMMAND} {__version__}")
