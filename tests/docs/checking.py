"""What does `check` say of the YAML of a page?"""

from __future__ import annotations

import contextlib
import textwrap
from pathlib import Path

from model_compose.compose.catalog import BuiltIn
from model_compose.config.environment import Environment
from model_compose.config.project import load_project
from model_compose.errors import ConfigErrors
from model_compose.frames import render

NAME = "model-compose.yml"


def texts_of(text: str, part: str | None) -> list[str]:
    """The text of a file, or of several that are merged from left to right.

    part  what the text is if it is no whole file: `component` and the task that the rest names, or
          nothing more
    """
    if part is None:
        return [text]
    section, _, task = part.partition(" ")
    rest = f"component: {{type: model, task: {task or 'text-generation'}, model: ./model.gguf}}\n"
    if section == "component":
        text = "component:\n" + textwrap.indent(text, "  ")
    return [rest, text]


def said_of(text: str, folder: Path, *, part: str | None = None, variables: str = "") -> str:
    """The mistakes of a file, as `check` prints them; empty if there are none.

    folder     an empty one, to work in
    variables  the text of an `.env`
    """
    *others, whole = texts_of(text, part)
    (folder / NAME).write_text(whole)
    if variables:
        (folder / ".env").write_text(variables)
    files = [Path(f"{i}.yml") for i in range(len(others))]
    with contextlib.chdir(folder):
        for file, other in zip(files, others, strict=True):
            file.write_text(other)
        try:
            load_project([*files, Path(NAME)], Environment.collect(Path(), [], [], {}), BuiltIn())
        except ConfigErrors as mistakes:
            return render(mistakes)
    return ""
