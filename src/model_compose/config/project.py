"""How do files and variables become a checked project?

The one way from paths to a `Project`, for every command and for notebooks.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

from model_compose.config.check import check
from model_compose.config.environment import Environment
from model_compose.config.expand import expand
from model_compose.config.load import find, read
from model_compose.config.mistakes import Mistakes
from model_compose.config.schema import Project
from model_compose.config.spec import Catalog
from model_compose.config.tree import merge
from model_compose.errors import ConfigError, ConfigErrors


def load_project(
    files: Sequence[Path], environment: Environment, catalog: Catalog, *, folder: Path | None = None
) -> Project:
    """The project that files describe, merged from left to right.

    files   none: `model-compose.yml` or `.yaml` in `folder` (default: the current one)
    Raises ConfigErrors with every mistake of every file.
    """
    paths = list(files) or [find(folder or Path())]
    roots, errors = [], list[ConfigError]()
    for path in paths:
        try:
            document = read(path)
        except ConfigErrors as unreadable:
            errors += unreadable.errors
        else:
            roots.append(document.root)
            errors += document.errors
    if len(roots) < len(paths):
        raise ConfigErrors(errors)  # what the others say together is not what is meant
    expansion = expand(functools.reduce(merge, roots), environment)
    mistakes = Mistakes([*errors, *expansion.errors], expansion.warnings, expansion.secrets)
    return check(expansion.root, paths[0].parent.resolve(), catalog, mistakes)
