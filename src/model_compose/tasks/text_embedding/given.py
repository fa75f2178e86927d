"""What of a text that came as tokens, which somebody else has made of it?"""

from __future__ import annotations

from model_compose.errors import InvalidInput, RequestTooLong


def given_tokens(ids: list[int], limit: int, vocabulary: int, *, truncate: bool) -> tuple[list[int], bool]:
    """Tokens as they are given, at most `limit` of them; -> them, and whether some were cut off.

    They are taken for this model's own: whoever sends tokens has its tokenizer.
    Raises InvalidInput, RequestTooLong.
    """
    wrong = next((each for each in ids if each >= vocabulary), None)
    if wrong is not None:
        raise InvalidInput(
            f"there is no token {wrong}: the model has {vocabulary}",
            field="text",
            hint="tokens must come from this model's own tokenizer; send texts if you have another",
        )
    if len(ids) <= limit:
        return ids, False
    if not truncate:
        raise RequestTooLong(
            f"the text has {len(ids)} tokens, and the limit is {limit}",
            size=len(ids),
            limit=limit,
            field="text",
            hint="shorten it, or set `truncate: true`",
        )
    return ids[:limit], True
