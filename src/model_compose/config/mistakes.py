"""What is wrong with a file, and what is only odd?"""

from __future__ import annotations

from collections.abc import Collection

from model_compose.config.tree import Node
from model_compose.errors import ConfigError, Note, Place, UnknownName

_SHORTEST = 4
"""Characters of a value. In shorter ones there is no secret, and they are parts of many words."""
_TOLD_APART = 40
"""Characters of a value by which it is found in a text."""


class Mistakes:
    """Collects the mistakes of a file, each with the place and the history of what is wrong.

    An alias or a merge brings one text to several parts of a file; a mistake in it is told once. What
    tells it from others at its place is its message, or `once`, which does not name the part.

    secrets  values of variables that messages and hints show as `***`
    """

    def __init__(
        self,
        errors: Collection[ConfigError] = (),
        warnings: Collection[Note] = (),
        secrets: Collection[str] = (),
    ) -> None:
        self.errors = list(errors)
        self.warnings = list(warnings)
        # A long value is cut where it is shown, so its beginning stands for it.
        self._secrets = [secret[:_TOLD_APART] for secret in secrets if len(secret) >= _SHORTEST]
        self._seen: set[tuple[Place | None, str]] = set()

    def add(
        self,
        message: str,
        at: Node,
        *,
        place: Place | None = None,
        hint: str | None = None,
        notes: Collection[Note] = (),
        once: str | None = None,
    ) -> None:
        """Note a mistake.

        at     what is wrong: a value, or a key (`Entry.key_node`)
        place  the part of it that is meant
        notes  what explains it; how the value came there follows them
        """
        public, hint = self._public(message), hint and self._public(hint)
        error = ConfigError(public, hint=hint, place=place or at.place, notes=(*notes, *at.notes))
        self._keep(error, once or message)

    def unknown(self, kind: str, name: str, valid: Collection[str], where: str, at: Node) -> None:
        """Note a name that nothing answers to."""
        name = "***" if self._is_secret(name) else name
        error = UnknownName.of(kind, name, valid, where, at.place)
        error.notes = at.notes
        self._keep(error, kind)

    def later(self, what: str, at: Node, *, hint: str | None = None, once: str | None = None) -> None:
        """Note something that other versions of this format have."""
        self.add(f"{what} is known, and not supported yet", at, hint=hint, once=once)

    def warn(self, message: str, at: Node) -> None:
        """Note something that works, but is hardly meant."""
        note = Note(message, at.place)
        if note not in self.warnings:
            self.warnings.append(note)

    def _public(self, text: str) -> str:
        """A text without secrets in its backticks."""
        if not self._is_secret(text):
            return text
        parts = text.split("`")
        parts[1::2] = ["***" if self._is_secret(part) else part for part in parts[1::2]]
        return "`".join(parts)

    def _is_secret(self, text: str) -> bool:
        return any(secret in text for secret in self._secrets)

    def _keep(self, error: ConfigError, once: str) -> None:
        if (error.place, once) not in self._seen:
            self._seen.add((error.place, once))
            self.errors.append(error)
