"""What does a file say once the variables of the environment are filled in?

Works on the values of the parsed tree: a variable in a comment or a key means nothing, and no text
that comes out of a variable is read as YAML or as `${...}`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from model_compose.config.environment import Environment, Value, is_secret
from model_compose.config.expression import ExpressionError, Template, UnsetVariable
from model_compose.config.grammar import parse
from model_compose.config.scalars import Scalar
from model_compose.config.substitute import substitute_env
from model_compose.config.text import is_unicode
from model_compose.config.tree import Entry, Node
from model_compose.config.values import to_text
from model_compose.errors import ConfigError, ConfigErrors, Note, Place

_LONGEST_SHOWN = 60

# Maps with keys of the user's own: an `x-api-key` in them is a header, not an extension.
_OWN_KEYS = frozenset(("body", "env", "headers", "input", "metadata", "output", "params"))


class Expansion(msgspec.Struct, frozen=True):
    """A tree with its variables filled in; where that failed, it has null.

    errors   all mistakes; the tree can still be looked at for others
    secrets  values of variables that nobody should be shown
    """

    root: Node
    warnings: tuple[Note, ...]
    errors: tuple[ConfigError, ...]
    secrets: frozenset[str]


def expand(root: Node, env: Environment) -> Expansion:
    """The tree with every text parsed and every `${env.X}` replaced.

    A text that is exactly one reference becomes null, a boolean or a number if the variable reads
    like one; the node's `text` still has it as it was. What came out of a variable has a note that
    says so. An unset variable without default is a mistake, except below a key `token`, where it is
    null with a warning, and below a free key `x-...`, which stays as it is.
    """
    walk = _Walk(env)
    root = walk.node(root, "")
    return Expansion(
        root, tuple(walk.warnings.values()), tuple(walk.errors.values()), frozenset(walk.secrets)
    )


class _Walk:
    def __init__(self, env: Environment) -> None:
        self.env = env
        # By place and message: an alias brings the same mistake to several parts of the tree.
        self.errors: dict[tuple[Place | None, str], ConfigError] = {}
        self.warnings: dict[tuple[Place | None, str], Note] = {}
        self.secrets: set[str] = set()

    def node(self, node: Node, key: str, *, own_keys: bool = False, free: bool = False) -> Node:
        """The node below `key`, filled in.

        own_keys   whether keys are the user's own here
        free       whether mistakes do not matter here
        """
        if isinstance(node.value, str):
            is_token = key == "token" and not own_keys
            if "${" in node.value:
                return self._text(node, key, optional=is_token, free=free)
            if is_token and node.value:
                told = "a token stands in the file; as `${env.HF_TOKEN}` it can be kept out of it"
                self.warnings.setdefault((node.place, told), Note(told, node.place))
            return node
        if isinstance(node.value, tuple):
            items = (self.node(item, key, own_keys=own_keys, free=free) for item in node.value)
            return replace(node, value=tuple(items))
        if isinstance(node.value, dict):
            entries = {}
            for name, entry in node.value.items():
                child = self.node(
                    entry.node,
                    name,
                    own_keys=own_keys or name in _OWN_KEYS,
                    free=free or (name.startswith("x-") and not own_keys),
                )
                entries[name] = Entry(name, entry.key_place, child)
            return replace(node, value=entries)
        return node

    def _text(self, node: Node, key: str, *, optional: bool, free: bool) -> Node:
        used: dict[str, Value] = {}

        def get(name: str) -> str | None:
            value = self.env.get(name)
            if value is None:
                return None
            if not is_unicode(value.text):  # Python keeps other bytes of the process as half characters
                raise ConfigErrors([ConfigError(f"`{name}` is not UTF-8 text")])
            used[name] = value
            return value.text

        try:
            value = parse(str(node.value))
            if isinstance(value, Template):
                value = substitute_env(value, get)
        except ConfigErrors as mistakes:
            return node if free else self._failed(node, mistakes.errors, optional)
        self.secrets |= {each.text for name, each in used.items() if is_secret(name) or is_secret(key)}
        notes = (*node.notes, *(_origin(name, used[name], key) for name in used))
        if isinstance(value, dict | list):
            return _planted(value, replace(node, notes=notes, spots=()))
        return replace(node, value=value, notes=notes, text=_written(str(node.value), value, get))

    def _failed(self, node: Node, errors: Sequence[ConfigError], optional: bool) -> Node:
        for error in errors:
            span = (error.start, error.end) if isinstance(error, ExpressionError) else None
            error.place = node.place_of(*span) if span else node.place
            error.notes = node.notes
            if isinstance(error, UnsetVariable):
                error.hint = self._hint(error.variable)
                if optional:
                    warning = Note(f"{error.message}, so there is no token", error.place)
                    self.warnings.setdefault((error.place, error.message), warning)
                    continue
            self.errors.setdefault((error.place, error.message), error)
        return replace(node, value=None, text="", lost=True, spots=())

    def _hint(self, name: str) -> str:
        near = self.env.near(name)
        ways = f"set it in `.env` or with `-e {name}=...`, or give a default: `${{env.{name} | ...}}`"
        return f"did you mean `{near}`? otherwise {ways}" if near else ways


def _planted(value: Any, node: Node) -> Node:
    """A list or a map that a variable stands for; every part of it is where the variable is written."""
    if isinstance(value, dict):
        entries = {key: Entry(key, node.place, _planted(item, node)) for key, item in value.items()}
        return replace(node, value=entries)
    if isinstance(value, list):
        return replace(node, value=tuple(_planted(item, node) for item in value))
    return replace(node, value=value)


def _written(text: str, value: Scalar | Template, get: Callable[[str], str | None]) -> str | None:
    """The text of the variable or the default that a null, boolean or number was read from."""
    if isinstance(value, str | Template):
        return None
    template = parse(text, as_text=True)
    assert isinstance(template, Template)
    found = substitute_env(template, get, as_text=True)
    return None if found is None else to_text(found, "env")


def _origin(name: str, value: Value, key: str) -> Note:
    """Where the text came from, and what it is unless it may be a secret."""
    told = f"`{name}` comes from {value.origin}"
    if is_secret(name) or is_secret(key) or "://" in value.text:  # an address may have a password in it
        return Note(told)
    shown = "".join(char if char.isprintable() else "\ufffd" for char in value.text[:_LONGEST_SHOWN])
    return Note(f"{told} and is `{shown}`" + ("..." if len(value.text) > _LONGEST_SHOWN else ""))
