r"""How is a text with `${...}` in it read?

A `${` that is meant as text is written `$${`. (Of n dollars before a brace, n // 2 are kept, and an
odd one opens an expression.) Inside a default, `\$ \@ \{ \}` stand for the characters themselves.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from model_compose.config.expression import (
    Each,
    ExpressionError,
    Reference,
    Segment,
    Slice,
    Template,
    merged,
    template_of,
)
from model_compose.config.scalars import resolve
from model_compose.config.values import (
    FORMATS,
    MEDIA_TYPES,
    STREAM_FORMATS,
    TEXT_TYPES,
    TYPES,
    Type,
    convert,
)
from model_compose.errors import ConfigErrors, InvalidInput, did_you_mean

_MOST_MISTAKES: Final = 20
"""Of one text; it may be a file of another kind that somebody has put there."""

MAX_DEPTH: Final = 32
"""How deep expressions may stand in the defaults of expressions, and how many `[*]` a path may have."""


def parse(text: str, *, as_text: bool = False) -> str | Template:
    """`text` with its expressions read; one without any comes back as a `str` that is final.

    as_text  whether the value of a single expression becomes text, as beside other text

    Raises ConfigErrors: an ExpressionError for each expression that cannot be read.
    """
    if "${" not in text:
        return text
    reader = _Reader(text)
    pieces = reader.whole_text(as_text)
    if reader.errors:
        raise ConfigErrors(reader.errors)
    return template_of(text, pieces)


class _Reader:
    """Walks a text from left to right; `at` is the offset of what comes next."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.at = 0
        self.errors: list[ExpressionError] = []
        self.opened: list[int] = []
        """Where the expressions begin that are not closed yet."""
        self.literals: dict[int, str] = {}
        """Literal defaults as they are written, by the start of their reference."""

    def whole_text(self, as_text: bool) -> list[str | Reference]:
        pieces: list[str | Reference] = []
        while (dollar := self.source.find("$", self.at)) >= 0:
            pieces.append(self.source[self.at : dollar])
            self.at = dollar
            try:
                self.dollars(pieces)
            except ExpressionError as error:
                self.errors.append(error)
                if len(self.errors) == _MOST_MISTAKES:
                    break
                self.opened.clear()  # what follows the mistake may have others
        pieces.append(self.source[self.at :])
        return self.beside_text(pieces, as_text)

    def beside_text(self, pieces: list[str | Reference], as_text: bool = False) -> list[str | Reference]:
        parts = merged(pieces)
        if len(parts) == 1 and not as_text:
            return parts
        return [self.as_text(part) if isinstance(part, Reference) else part for part in parts]

    def as_text(self, reference: Reference) -> Reference:
        """The same where its value becomes text: a default `1.10` is then no number that loses its zero."""
        default = reference.default
        if reference.type is not None or default is None:
            return reference
        if isinstance(default, Reference):
            return replace(reference, default=self.as_text(default))
        return replace(reference, default=self.literals.get(reference.start, default))

    def dollars(self, pieces: list[str | Reference]) -> bool:
        """Read the dollars here and the expression they open; True if they gave a literal `{` instead."""
        start = self.at
        while self.peek() == "$":
            self.at += 1
        count = self.at - start
        if self.peek() != "{":
            pieces.append("$" * count)
            return False
        pieces.append("$" * (count // 2))
        if count % 2:
            self.at -= 1
            pieces.append(self.expression())
            return False
        pieces.append("{")
        self.at += 1
        return True

    def expression(self) -> Reference:
        start = self.at
        self.opened.append(start)
        if len(self.opened) > MAX_DEPTH:
            deepest = self.at
            self.at = len(self.source)  # nobody wants to hear more of this text
            raise self.error(f"expressions are nested more than {MAX_DEPTH} deep", self.opened[0], deepest)
        self.at += len("${")
        self.space()
        named = self.at
        key, path = self.key(), self.path()
        field = self.source[named : self.at].removeprefix("input.")
        as_type = self.as_type() if self.word("as") else None
        default = self.default(as_type, field) if self.take("|") else UNSET
        annotations: list[tuple[str, str]] = []
        while self.take("@("):
            annotations.append(self.annotation())
        if not self.take("}"):
            raise self.unexpected("`as`, `|`, `@(` or `}`")
        self.opened.pop()
        text = self.source[start : self.at]
        return Reference(text, start, self.at, key, path, field, as_type, default, tuple(annotations))

    def key(self) -> str:
        start = self.at
        if not (self.peek().isalpha() or self.peek() == "_"):
            raise self.unexpected("the name of a source, such as `input`")
        while _in_name(self.peek()) or self.peek() == ":":
            self.at += 1
        self.take("[]")
        return self.source[start : self.at]

    def path(self) -> tuple[Segment, ...]:
        path: list[Segment] = []
        while self.peek() in {".", "["}:
            path.append(self.name() if self.peek() == "." else self.bracket())
        if path.count(Each()) > MAX_DEPTH:
            raise self.error(f"a path has more than {MAX_DEPTH} `[*]`", self.opened[-1], self.at)
        return tuple(path)

    def name(self) -> str:
        self.at += 1
        name = self.word_here()
        if not name:
            raise self.unexpected("a name behind the `.`")
        return name

    def bracket(self) -> Segment:
        start = self.at
        inside = self.until("]").strip()
        if inside == "*":
            return Each()
        if _is_index(inside):
            return int(inside)
        first, colon, last = (part.strip() for part in inside.partition(":"))
        if colon and all(not part or _is_index(part) for part in (first, last)):
            return Slice(int(first) if first else None, int(last) if last else None)
        hint = "write `[0]`, `[-1]`, `[1:3]` or `[*]`; `[]` stands only behind the source: `${result[]}`"
        raise self.error(f"`[{inside}]` is no index, slice or `[*]`", start, self.at, hint)

    def as_type(self) -> Type:
        start = self.at
        name = self.word_here()
        if not name:
            raise self.unexpected("a type")
        if name not in TYPES:
            raise self.error(f"unknown type `{name}`", start, self.at, did_you_mean(name, TYPES))
        many = self.take("[]")
        listed = name in {"select", "slider"} or (name == "object" and many)
        subtype = self.subtype(listed) if self.take("/") else None
        options = tuple(option.strip() for option in subtype.split(",")) if listed and subtype else ()
        attributes = self.attributes() if self.peek() == "[" else ()
        form = self.media_format() if self.take(";") else None
        as_type = Type(name, many, None if listed else subtype, options, attributes, form)
        if form in STREAM_FORMATS and name not in MEDIA_TYPES:
            is_text = form == "sse-text" or (form == "stream" and name in TEXT_TYPES)
            as_type = Type("stream", subtype="text" if is_text else "json")
        if (problem := as_type.problem()) is not None:
            raise self.error(problem, start, self.at)
        return as_type

    def subtype(self, listed: bool) -> str:
        """What stands behind the `/`; only a list of options may have space and brackets in it."""
        start = self.at
        while self.peek() not in {"", ";", "|", "}"} and not self.source.startswith("@(", self.at):
            if not listed and (self.peek() == "[" or self.peek().isspace()):
                break
            self.at += 1
        subtype = self.source[start : self.at].strip()
        if not subtype:
            raise self.unexpected("a subtype behind the `/`")
        return subtype

    def attributes(self) -> tuple[tuple[str, str], ...]:
        start = self.at
        pairs = [pair.partition("=") for pair in self.until("]").split(",")]
        if not all(name.strip() and equals for name, equals, _ in pairs):
            raise self.error("attributes are written `[name=value,...]`", start, self.at)
        return tuple((name.strip(), value.strip()) for name, _, value in pairs)

    def media_format(self) -> str:
        self.space()
        start = self.at
        form = self.word_here()
        if not form:
            raise self.unexpected("a format behind the `;`")
        if form not in FORMATS:
            raise self.error(f"unknown format `{form}`", start, self.at, did_you_mean(form, FORMATS))
        return form

    def default(self, as_type: Type | None, field: str) -> Any:
        self.space()
        start = self.at
        quote = self.peek() if self.peek() in {"'", '"'} else ""
        parts = self.beside_text(self.pieces(quote))
        if len(parts) == 1 and isinstance(parts[0], Reference):
            return self.as_text(parts[0]) if as_type and as_type.is_text else parts[0]
        default = template_of(self.source[start : self.at], parts)
        if isinstance(default, Template):
            return default
        self.literals[self.opened[-1]] = default
        try:
            return _literal(default, as_type, field, quoted=bool(quote))
        except InvalidInput as error:
            raise self.error(f"default of {error.message}", start, self.at) from None

    def pieces(self, quote: str) -> list[str | Reference]:
        """A default up to its closing quote or, without one, to the `}` or `@(` behind it."""
        start, depth = self.at, 0
        self.at += len(quote)
        pieces: list[str | Reference] = []
        while char := self.peek():
            after = self.source[self.at + 1 : self.at + 2]
            if char == "\\" and (literal := _unescaped(after, quote)):
                pieces.append(literal)
                self.at += 2
            elif char == "$":
                depth += self.dollars(pieces)
            elif char == after == quote == "'":
                pieces.append("'")
                self.at += 2
            elif char == quote:
                self.at += 1
                return pieces
            elif not quote and depth == 0 and (char == "}" or char + after == "@("):
                return _rstripped(pieces)
            else:
                depth += (char == "{") - (char == "}")
                pieces.append(char)
                self.at += 1
        if quote:
            raise self.error(f"the quote `{quote}` is not closed", start, self.at)
        raise self.not_closed()

    def annotation(self) -> tuple[str, str]:
        start, depth = self.at, 1
        while depth:
            if not self.peek():
                raise self.error("`@(` is not closed", start - len("@("), self.at)
            depth += (self.peek() == "(") - (self.peek() == ")")
            self.at += 1
        words = self.source[start : self.at - 1].split(maxsplit=1)
        if not words:
            raise self.error("an annotation has a name: `@(description ...)`", start - len("@("), self.at)
        return words[0], words[1].strip() if len(words) > 1 else ""

    def peek(self) -> str:
        return self.source[self.at : self.at + 1]

    def space(self) -> None:
        while self.peek().isspace():
            self.at += 1

    def take(self, token: str) -> bool:
        """Read `token` if it is what comes next; space may stand before one that is no bracket."""
        before = self.at
        if token not in {"[]", "/"}:
            self.space()
        if self.source.startswith(token, self.at):
            self.at += len(token)
            return True
        self.at = before
        return False

    def word(self, word: str) -> bool:
        """Read `word` and the space around it, if it comes next."""
        before = self.at
        self.space()
        if self.at > before and self.word_here() == word and (self.peek() == "}" or self.peek().isspace()):
            self.space()
            return True
        self.at = before
        return False

    def word_here(self) -> str:
        start = self.at
        while _in_name(self.peek()):
            self.at += 1
        return self.source[start : self.at]

    def until(self, bracket: str) -> str:
        """Read an opening bracket and everything up to the closing one; what is between them."""
        start = self.at
        end = self.source.find(bracket, start)
        if end < 0:
            raise self.error(f"`{self.peek()}` is not closed", start, start + 1)
        self.at = end + 1
        return self.source[start + 1 : end]

    def unexpected(self, wanted: str) -> ExpressionError:
        self.space()
        if not self.peek():
            return self.not_closed()
        hint = "a `${` that is meant as text is written `$${`"
        return self.error(f"unexpected `{self.peek()}`, expected {wanted}", self.at, self.at + 1, hint)

    def not_closed(self) -> ExpressionError:
        hint = "add the `}`; a `${` that is meant as text is written `$${`"
        return self.error("`${` is not closed", self.opened[-1], len(self.source), hint)

    def error(self, message: str, start: int, end: int, hint: str | None = None) -> ExpressionError:
        return ExpressionError(message, start, max(end, min(start + 1, len(self.source))), hint=hint)


def _in_name(char: str) -> bool:
    return char.isalnum() or char in {"_", "-"}


def _is_index(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isdecimal() and digits.isascii() and len(digits) < 10


def _unescaped(char: str, quote: str) -> str | None:
    """What a backslash and `char` stand for in a default, None if for themselves."""
    if char and char in "$@{}":
        return char
    return {'"': '"', "\\": "\\", "n": "\n", "t": "\t", "r": "\r"}.get(char) if quote == '"' else None


def _rstripped(pieces: list[str | Reference]) -> list[str | Reference]:
    while pieces and isinstance(pieces[-1], str) and pieces[-1].isspace():
        pieces.pop()
    return pieces


def _literal(text: str, as_type: Type | None, field: str, *, quoted: bool) -> Any:
    """The value of a default without references: what YAML makes of it, or what its type does.

    Unlike in YAML, `{` and `[` begin JSON; where it is none, the text stays text.
    """
    if not quoted and resolve(text) is None:
        return None
    if as_type is None or as_type.name in {"slider", "stream"}:
        if quoted:
            return text
        if text.startswith(("[", "{")):
            try:
                return msgspec.json.decode(text)
            except (msgspec.DecodeError, RecursionError):
                return text
        return resolve(text)
    if as_type.name == "boolean" and not as_type.many and text.lower() not in {"true", "false", "1", "0"}:
        raise InvalidInput(f"`{field}`: `{text}` is neither `true` nor `false`", field=field)
    # A base64 default is encoded when it is used; encoded here, it would be so twice.
    return text if as_type.name == "base64" else convert(text, as_type, field, {})
