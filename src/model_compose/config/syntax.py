"""What is wrong with a file that is no YAML, in words that help somebody who is new to it?

libyaml and the Python parser of PyYAML name the same mistake differently and tell neither the cause
nor the cure. So this looks at the text around the place where they stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from model_compose.config.text import Source
from model_compose.errors import ConfigError, Note, Place

if TYPE_CHECKING:
    from yaml import MarkedYAMLError
    from yaml.error import Mark

_LONGEST_KEY = 1024
"""What YAML allows on the line of its value."""

_CLOSING = {"[": "]", "{": "}"}


def explain(error: MarkedYAMLError, source: Source) -> ConfigError:
    """The mistake behind an error of PyYAML."""
    return _Stop(error, source).explain()


class _Stop:
    """Where and why PyYAML gave up."""

    def __init__(self, error: MarkedYAMLError, source: Source) -> None:
        self.source = source
        self.problem = error.problem or "it cannot be read"
        self.context = error.context or ""
        self.at = self._offset(error.problem_mark)
        self.begin = self._offset(error.context_mark) if error.context_mark else self.at
        self.char = source.text[self.at : self.at + 1]
        line, column = source.position(self.at)
        self.before = source.lines[line][:column]

    def explain(self) -> ConfigError:
        if "quoted scalar" in self.context:
            return self._quoted()
        if "while parsing a flow" in self.context:
            return self._brackets()
        indent = self.before[: len(self.before) - len(self.before.lstrip())]
        if self.char == "\t" or "\t" in indent:
            at = self.at if self.char == "\t" else self.at - len(self.before) + indent.index("\t")
            return self._mistake(
                "a tab stands where YAML wants spaces",
                hint="indent with spaces",
                place=self.source.character(at),
            )
        if "cannot start any token" in self.problem:
            return self._mistake(
                f"a value cannot start with `{self.char}`",
                hint=f"put it in quotes: {self._quoted_rest(self.at)}",
            )
        if "an alias" in self.context or "an anchor" in self.context:
            sign = self.source.text[self.begin]
            return self._mistake(
                f"`{sign}` starts the name of an {'alias' if sign == '*' else 'anchor'}, and no name follows",
                hint=f"put the value in quotes if it is text: {self._quoted_rest(self.begin)}",
                place=self.source.character(self.begin),
            )
        if "tag" in self.problem or "a tag" in self.context:
            return self._mistake("tags are not used here", hint="put the value in quotes if it is text")
        if "block scalar" in self.context:
            return self._mistake(
                "nothing can follow `|` or `>` on its line", hint="start the text on the next line, indented"
            )
        if "mapping values are not allowed" in self.problem:
            return self._stray_key()
        if "could not find expected ':'" in self.problem:
            return self._no_key(self.begin)
        if "sequence entries are not allowed" in self.problem:
            return self._mistake(
                "a list cannot start here", hint="start it on the line below its key, each item after a `- `"
            )
        if "block mapping" in self.context or "block collection" in self.context:
            return self._misplaced()
        if "document start" in self.problem:
            return self._mistake(
                "this line does not belong to what stands above it",
                hint="indent it like the other lines of its map or list",
                place=self.source.rest_of_line(self.at),
            )
        if "node content" in self.problem or "not allowed" in self.problem:
            return self._mistake(
                f"`{self.char}` is not expected here", hint="put the value in quotes if it is text"
            )
        return self._mistake(f"this is not valid YAML: {self.problem}")

    def _quoted(self) -> ConfigError:
        if "escape" in self.problem or "hex" in self.problem:
            # libyaml stops at the backslash, the Python parser somewhere after it.
            start = self.source.text.rfind("\\", self.begin, self.at + 1)
            return self._mistake(
                "this is no escape that YAML knows",
                hint="write `\\\\`, or use single quotes, between which a backslash is just a backslash",
                place=self.source.place(start, start + 2),
            )
        quote = self.source.text[self.begin]
        return self._mistake(
            "this quote is never closed",
            hint=f"end the text with `{quote}`",
            place=self.source.character(self.begin),
        )

    def _stray_key(self) -> ConfigError:
        if len(self.before.partition(":")[0]) > _LONGEST_KEY:
            return self._no_key(self.at - len(self.before.lstrip()))
        if ": " in self.before or self.before.endswith(":"):
            key = self.before.partition(": ")[0]
            value = self._quoted_rest(self.at - len(self.before) + len(key) + 2)
            return self._mistake(
                "a second `: ` on the line of a key",
                hint=f"put the value in quotes if the `: ` belongs to it: {value}",
            )
        above = self._line_above()
        if above is None:
            return self._mistake(f"`{self.char}` is not expected here")
        line = self.source.rest_of_line(above)
        if ": " not in line.text:
            return self._no_key(above)
        return self._mistake(
            "a key cannot stand below a key that has a value",
            hint="indent it like the line above, or remove the value there",
            place=self.source.rest_of_line(self.at - len(self.before.lstrip())),
            notes=[Note("this has a value", line)],
        )

    def _line_above(self) -> int | None:
        """Where the text of the nearest line above begins that is not empty."""
        start = self.at - len(self.before)
        while start > 0:
            start = self.source.start_of_line(start - 1)
            text = self.source.rest_of_line(start).text
            if text.strip():
                return start + len(text) - len(text.lstrip())
        return None

    def _no_key(self, offset: int) -> ConfigError:
        place = self.source.rest_of_line(offset)
        words = place.text[place.column - 1 : place.end_column - 1]
        key, colon, value = words.partition(":")
        if len(key) > _LONGEST_KEY:
            hint = f"a key has at most {_LONGEST_KEY:,} characters"
        elif colon and value and " " not in key:
            hint = f"put a space after the colon: `{key}: {value}`"
        else:
            hint = "write `key: value`; if the line belongs to the text above it, indent it like that text"
        return self._mistake("this line has no key", hint=hint, place=place)

    def _brackets(self) -> ConfigError:
        if self.char == "{" and self.before.endswith("$"):
            reference = self.source.text[self.at - 1 :].partition("}")[0]
            return self._mistake(
                "inside `[...]` and `{...}` a `${...}` needs quotes",
                hint=f'write `"{reference}}}"`',
                place=self.source.place(self.at - 1, self.at + len(reference)),
            )
        bracket = self.source.text[self.begin : self.begin + 1]
        if bracket in ("[", "{"):
            expected = Note(f"`,` or `{_CLOSING[bracket]}` is expected here", self.source.character(self.at))
            return self._mistake(
                f"this `{bracket}` is not closed, or a comma is missing",
                hint="put text that has one of `, : [ ] { }` in it in quotes",
                place=self.source.character(self.begin),
                notes=[expected],
            )
        if self.char:
            return self._mistake(f"`{self.char}` is not expected here")
        return self._mistake("the file ends before a bracket is closed", hint="add the `]` or `}`")

    def _misplaced(self) -> ConfigError:
        if self.before.strip():
            return self._mistake(
                "text follows the end of a value",
                hint="put quotes around the whole value; between single quotes, `'` is written `''`",
            )
        kind = "list" if "collection" in self.context else "map"
        return self._mistake(
            f"this line does not belong to the {kind} above it",
            hint="indent it like the other lines of its map or list",
            place=self.source.rest_of_line(self.at),
            notes=[Note(f"the {kind} begins here", self.source.rest_of_line(self.begin))],
        )

    def _quoted_rest(self, offset: int) -> str:
        """What stands from an offset to the end of its line, as it would stand in quotes."""
        place = self.source.rest_of_line(offset)
        text = place.text[place.column - 1 : place.end_column - 1]
        escaped = text.replace("'", "''")
        return f"`'{escaped}'`"

    def _mistake(
        self, message: str, *, hint: str | None = None, place: Place | None = None, notes: Sequence[Note] = ()
    ) -> ConfigError:
        place = place or self.source.character(self.at)
        return ConfigError(message, hint=hint, place=place, notes=notes)

    def _offset(self, mark: Mark | None) -> int:
        return self.source.offset(mark.line, mark.column) if mark else 0
