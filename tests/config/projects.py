"""What do tests of the check share? Texts in, a project or its mistakes out, without a disk."""

from __future__ import annotations

import functools
from pathlib import Path

from tests.config.catalog import FixedCatalog

from model_compose.config.check import check
from model_compose.config.environment import Environment, Value
from model_compose.config.expand import expand
from model_compose.config.load import parse
from model_compose.config.mistakes import Mistakes
from model_compose.config.schema import Project
from model_compose.config.spec import Catalog
from model_compose.config.tree import merge
from model_compose.errors import ConfigError, ConfigErrors, Note

FOLDER = Path("/project")

#: The keys of a component that is right.
MODEL = "type: model, task: text-generation, model: ./m.gguf"


def project(*texts: str, catalog: Catalog | None = None, **variables: str) -> Project:
    """The project of texts that are merged. Raises ConfigErrors."""
    environment = Environment({name: Value(text, ".env:1") for name, text in variables.items()})
    documents = [parse(text, f"{i}.yml" if i else "f.yml") for i, text in enumerate(texts)]
    expansion = expand(functools.reduce(merge, [each.root for each in documents]), environment)
    errors = [error for each in documents for error in each.errors]
    mistakes = Mistakes([*errors, *expansion.errors], expansion.warnings, expansion.secrets)
    return check(expansion.root, FOLDER, catalog or FixedCatalog(), mistakes)


def errors(*texts: str, catalog: Catalog | None = None, **variables: str) -> tuple[ConfigError, ...]:
    """The mistakes of texts, in the order of the file."""
    try:
        project(*texts, catalog=catalog, **variables)
    except ConfigErrors as found:
        return found.errors
    return ()


def told(*texts: str, catalog: Catalog | None = None, **variables: str) -> list[str]:
    """The messages of the mistakes."""
    return [error.message for error in errors(*texts, catalog=catalog, **variables)]


def mistake(*texts: str, **variables: str) -> ConfigError:
    """The only mistake."""
    (only,) = errors(*texts, catalog=None, **variables)
    return only


def underlined(at: ConfigError | Note) -> str:
    """What the carets stand under."""
    assert at.place is not None
    return at.place.text[at.place.column - 1 : at.place.end_column - 1]
