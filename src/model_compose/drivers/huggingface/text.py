"""How does text become tokens, and tokens text while they come: stop sequences, characters in pieces?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

#: Tokens of the prompt that are decoded along, because some tokenizers drop a space at the beginning.
_CONTEXT: Final = 6
#: What stands for bytes that are no character, or not yet.
_INCOMPLETE: Final = "\ufffd"


def tokens_of(tokenizer: Any, text: str, *, special: bool) -> list[int]:
    """The tokens of a text, with those that the model wants around it if `special`; from any thread."""
    if not tokenizer.is_fast:
        return list(tokenizer(text, add_special_tokens=special).input_ids)
    # The library's wrapper sets the tokenizer up for each call, which two threads must not do at once.
    return list(tokenizer.backend_tokenizer.encode(text, add_special_tokens=special).ids)


class Detokenizer:
    """Turns tokens into text piece by piece; the pieces together are the text of all tokens."""

    def __init__(self, tokenizer: Any, context: Sequence[int] = ()) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        # The library's own wrapper takes ten times as long for the same text.
        self._decoder = backend or tokenizer
        self._tokens = list(context[-_CONTEXT:])
        self._start = 0
        self._read = len(self._tokens)

    def add(self, token: int) -> str:
        """What a token adds to the text; nothing while it ends inside a character."""
        self._tokens.append(token)
        before = self._decode(self._start, self._read)
        now = self._decode(self._start, len(self._tokens))
        if now.endswith(_INCOMPLETE) or len(now) <= len(before):
            return ""
        self._start, self._read = self._read, len(self._tokens)
        return now[len(before) :]

    def rest(self) -> str:
        """What is left at the end: bytes that are no character."""
        before = self._decode(self._start, self._read)
        return self._decode(self._start, len(self._tokens))[len(before) :]

    def _decode(self, start: int, end: int) -> str:
        return str(self._decoder.decode(self._tokens[start:end], skip_special_tokens=True))


class Stops:
    """Ends a text before the first of its stop sequences."""

    def __init__(self, sequences: Sequence[str]) -> None:
        self._sequences = tuple(sequences)
        self._held = ""
        self.found = False

    def add(self, piece: str) -> str:
        """The part of what has come that can be shown: what may be the beginning of a stop is held."""
        if not self._sequences:
            return piece
        text = self._held + piece
        places = [place for place in map(text.find, self._sequences) if place >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        held = max(_beginning(text, sequence) for sequence in self._sequences)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def rest(self) -> str:
        """What was held, at the end of a text that no stop has ended."""
        held, self._held = self._held, ""
        return held


def _beginning(text: str, sequence: str) -> int:
    """How many characters at the end of a text are the beginning of a sequence."""
    longest = min(len(sequence) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if text.endswith(sequence[:n])), 0)
