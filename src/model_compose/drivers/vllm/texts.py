"""How do texts become tokens for a model that reads them: with a second one, cut, with their segments?"""

from __future__ import annotations

from typing import Any, NamedTuple

from model_compose.errors import RequestTooLong


class Tokens(NamedTuple):
    """A text as the model gets it.

    segment  where the second text begins, for models that tell two texts apart; None for others
    """

    ids: list[int]
    segment: int | None
    truncated: bool


class Texts:
    """The tokenizer of a loaded model; from any thread.

    limit  the most tokens of a text, those that begin and end it included
    """

    def __init__(self, tokenizer: Any, limit: int) -> None:
        self._tokenizer = tokenizer
        self.limit = limit

    def tokens(self, text: str, limit: int | None, *, truncate: bool, pair: str | None = None) -> Tokens:
        """The tokens of a text, or of two, at most `limit` of them. Raises RequestTooLong if they are more.

        With `truncate` what is too long is cut, of two texts the longer one.
        """
        limit = min(limit or self.limit, self.limit)
        found = self._tokenizer(text, pair)
        size = len(found["input_ids"])
        if size <= limit:
            return Tokens(list(found["input_ids"]), _second(found), False)
        if not truncate:
            raise RequestTooLong(
                f"the text has {size} tokens, and the limit is {limit}",
                size=size,
                limit=limit,
                field="text",
                hint="shorten it, or set `truncate: true`",
            )
        cut = self._tokenizer(text, pair, truncation=True, max_length=limit)
        return Tokens(list(cut["input_ids"]), _second(cut), True)

    def beginning(self, text: str) -> int:
        """How many tokens a text has where another one follows: without the one that ends it."""
        ids = self._tokenizer(text)["input_ids"]
        return len(ids) - (bool(ids) and ids[-1] in self._tokenizer.all_special_ids)


def _second(found: Any) -> int | None:
    """Where the type of tokens becomes 1."""
    types = found.get("token_type_ids")
    return types.index(1) if types and 1 in types else None
