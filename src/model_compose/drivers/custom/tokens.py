"""How does text become tokens with nothing but the `tokenizer.json` beside a graph?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from model_compose.errors import DriverMissing, ModelLoadError, RequestTooLong

#: Libraries write 1e30 where a tokenizer has no limit.
_NO_LIMIT: Final = 1_000_000_000


class Tokens(NamedTuple):
    """A text as the model gets it; `types` (of segments) only where they are not all 0."""

    ids: list[int]
    types: list[int] | None
    truncated: bool


class Tokenizer:
    """A tokenizer of the `tokenizers` library, with what the files beside it say.

    limit  most tokens of a text that it was made for; None: it does not say
    pad    what fills rows up
    vocabulary  how many different tokens there are
    """

    def __init__(self, backend: Any, settings: dict[str, Any]) -> None:
        padding = backend.padding
        backend.no_padding()
        backend.no_truncation()
        self._backend = backend
        self.vocabulary = int(backend.get_vocab_size())
        self._side = settings.get("truncation_side", "right")
        own = settings.get("model_max_length")
        self.limit: int | None = int(own) if own is not None and own < _NO_LIMIT else None
        pad = _content(settings.get("pad_token"))
        found = None if pad is None else backend.token_to_id(pad)
        self.pad: int | None = padding["pad_id"] if found is None and padding else found
        added = backend.get_added_tokens_decoder()
        self._special = {number for number, token in added.items() if token.special}

    @classmethod
    def load(cls, find: Callable[[str], Path | None], origin: str) -> Tokenizer:
        """Load the files that `find` has. Raises ModelLoadError, DriverMissing."""
        try:
            import tokenizers
        except ImportError as error:
            raise DriverMissing(
                f"`tokenizers` cannot be imported: {error}", hint="pip install tokenizers"
            ) from error
        path = find("tokenizer.json")
        if path is None:
            raise ModelLoadError(
                f"`{origin}` has no `tokenizer.json`",
                hint="put the model's own beside the ONNX file; `save_pretrained` of a fast tokenizer "
                "writes it",
            )
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise ModelLoadError(f"`{path.name}` of `{origin}` cannot be read: {error}") from error
        settings = read_json(find("special_tokens_map.json")) | read_json(find("tokenizer_config.json"))
        return cls(backend, settings)

    def encode(self, text: str, limit: int, *, truncate: bool, pair: str | None = None) -> Tokens:
        """At most `limit` tokens of a text, or of two. Raises RequestTooLong if nothing may be cut."""
        found = self._backend.encode(text, pair)
        if len(found.ids) <= limit:
            return _tokens(found, truncated=False)
        if not truncate:
            raise RequestTooLong(
                f"the text has {len(found.ids)} tokens, and the limit is {limit}",
                size=len(found.ids),
                limit=limit,
                field="text",
                hint="shorten it, or set `truncate: true`",
            )
        # The tokens around a text stay, which only the library knows.
        self._backend.enable_truncation(limit, direction=self._side)
        try:
            return _tokens(self._backend.encode(text, pair), truncated=True)
        finally:
            self._backend.no_truncation()

    def beginning(self, text: str) -> int:
        """How many tokens a text has where another one follows: without the one that ends it."""
        ids = self._backend.encode(text).ids
        return len(ids) - (bool(ids) and ids[-1] in self._special)


def _tokens(found: Any, *, truncated: bool) -> Tokens:
    return Tokens(found.ids, found.type_ids if any(found.type_ids) else None, truncated)


def _content(token: Any) -> str | None:
    """The text of a special token, which may stand in a map with its settings."""
    return token.get("content") if isinstance(token, dict) else token


def read_json(path: Path | None) -> dict[str, Any]:
    """The map in a file; an empty one where there is none. Raises ModelLoadError."""
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"`{path}` cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ModelLoadError(f"`{path}` has no map in it")
    return found
