"""Where does a sentence end?

By rules, without a model: what ends a sentence, whether another begins behind it, and which dots are no
ends. A decision looks only so far ahead, so that a text can be cut while it is still being written, and
however it comes, the sentences are the same.
"""

from __future__ import annotations

import re
from typing import Final

#: Says that more of the text must be there to tell.
UNDECIDED: Final = -1
#: Characters behind the end of a sentence that may decide about it.
LOOKAHEAD: Final = 64
#: The same, with the longest end itself.
MARGIN: Final = LOOKAHEAD + 48

_CLOSERS: Final = r"\"'\u201d\u2019\u00bb)\]}\u300d\u300f\uff09\u3011\u300b*_"
_OPENERS: Final = "\"'\u201c\u2018\u00ab([{*_"
_END: Final = re.compile(
    # Scripts without spaces between sentences, and those whose full stop is nothing else.
    rf"(?P<full>[\u3002\uff01\uff1f\uff61\u0964\u0965\u06d4]{{1,32}}[{_CLOSERS}]{{0,8}})"
    rf"|(?P<stop>(?<![.!?\u2026\u061f])[.!?\u2026\u061f]{{1,32}}[{_CLOSERS}]{{0,8}})(?=\s|\Z)"
    # A line without text, and one that is an item of a list or a heading.
    r"|(?P<line>\n)(?=\s*\n|[^\S\n]*(?:[-*\u2022\u2013]|\#{1,6}|\d{1,3}[.)])[^\S\n])"
)
_SAID: Final = ("\u3068", "\u3063")
_WORD_BEFORE: Final = re.compile(r"[^\s(\[{\"'\u201c\u2018\u00ab]*\Z")
_WORD: Final = re.compile(r"[^\W\d_]+")

#: What stands before a name or a number, and never ends a sentence.
_BEFORE_NAMES: Final = frozenset(
    (
        *("mr", "mrs", "ms", "dr", "prof", "st", "rev", "hon", "gen", "col", "lt", "sgt", "capt", "maj"),
        *("gov", "sen", "rep", "pres", "messrs", "mme", "mlle", "hr", "fr"),
        *("e.g", "i.e", "eg", "ie", "vs", "cf", "viz", "ca", "approx", "resp", "z.b", "d.h", "bzw"),
    )
)
_BEFORE_NUMBERS: Final = frozenset(
    ("no", "nos", "nr", "p", "pp", "ch", "art", "fig", "figs", "sec", "vol", "vols", "eq", "eqs", "ref")
)
#: What ends a sentence only if a word follows that others begin with.
_MAY_END: Final = frozenset(
    ("etc", "al", "inc", "ltd", "co", "corp", "jr", "sr", "bros", "dept", "est", "ph.d", "usw", "usf")
)
_BEGINNERS: Final = frozenset(
    (
        *("a", "an", "the", "this", "that", "these", "those", "there", "here", "it", "he", "she", "they"),
        *("we", "you", "i", "his", "her", "its", "our", "their", "my", "your", "in", "on", "at", "as", "if"),
        *("when", "while", "after", "before", "since", "for", "from", "to", "by", "with", "but", "and", "or"),
        *("so", "yet", "however", "then", "what", "who", "why", "how", "where", "all", "some", "most", "no"),
    )
)


def sentence_end(text: str, most: int, *, final: bool) -> int | None:
    """Where the first sentence of a text ends, without the white space behind it.

    most   ends from there on are not looked for
    final  the text is complete
    -> None if there is no end before `most`, as far as the text goes; UNDECIDED if what follows tells
    """
    position = 0
    while (match := _END.search(text, position)) is not None and match.start() < most:
        position = match.end()
        if match.lastgroup == "line":
            end = len(text[: match.start()].rstrip())
            if end and text[:end].strip():
                return end
            continue  # nothing of the sentence has come yet
        if match.end() == len(text) and not final:
            return UNDECIDED
        if match.lastgroup == "full":
            # What was said goes on with who said it.
            ends: bool | None = not (len(match[0]) > 1 and text[match.end() : match.end() + 1] in _SAID)
        else:
            ends = _ends(text, match, final=final)
        if ends is None:
            return UNDECIDED
        if ends:
            return match.end()
    return None


def _ends(text: str, match: re.Match[str], *, final: bool) -> bool | None:
    """Whether a stop with white space behind it ends a sentence; None if nobody can tell yet."""
    ahead = text[match.end() : match.end() + LOOKAHEAD]
    complete = final or len(ahead) == LOOKAHEAD
    following = ahead.lstrip()
    if not following:
        return True if complete else None
    if ahead[: len(ahead) - len(following)].count("\n") > 1:
        return True
    following = following.lstrip(_OPENERS)
    if not following:
        return True if complete else None
    if following[0].islower():
        return False
    if match["stop"][0] != "." or match["stop"].startswith(".."):
        return True
    word = _WORD.match(following)
    cut = word is not None and word.end() == len(following) and not complete
    return _dot_ends(text, match.start(), following[0], None if cut else word[0].lower() if word else "")


def _dot_ends(text: str, dot: int, letter: str, word: str | None) -> bool | None:
    """Whether a dot is more than a part of the word before it: an abbreviation, an initial, a number.

    word  what follows, None if it is not complete; the same as an answer: that decides
    """
    found = _WORD_BEFORE.search(text, max(0, dot - LOOKAHEAD), dot)
    before = found[0] if found else ""
    said = before.lower()
    if said in _BEFORE_NAMES:
        return False
    if said in _BEFORE_NUMBERS:
        return not letter.isdigit()
    if said.isdigit():  # `1. First`, at the beginning of a line
        return bool(text[: dot - len(said)].rpartition("\n")[2].strip())
    if len(said) == 1 and before.isupper():
        return before == "I" or _begins(word, _BEGINNERS - {"i", "a"})
    if said in _MAY_END or (said and "." in said and all(len(part) == 1 for part in said.split("."))):
        return _begins(word, _BEGINNERS)
    return True


def _begins(word: str | None, beginners: frozenset[str]) -> bool | None:
    return None if word is None else word in beginners
