"""What does a file say of a `text-splitter`?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec

from model_compose.config.expression import Renderable
from model_compose.config.spec import (
    ActionSpec,
    Catalog,
    ComponentSpec,
    Natural,
    Positive,
    Remarks,
    Report,
    doc,
)

Method = Literal["recursive", "sentence", "paragraph", "word", "character"]

#: Characters of a chunk, where the method needs a number and the file says none.
DEFAULT_SIZE: Final = 1000
SEPARATORS: Final = ("\n\n", "\n", ". ", " ")
_UNITS: Final = ("sentence", "paragraph")


class SplitterConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A splitter of texts; it has no keys of its own."""


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """Split a text into chunks."""

    text: Annotated[str, doc("the text, or a list of texts", many=True)]
    by: Annotated[
        Method,
        doc(
            "where a chunk may end; `recursive` takes the first of the `separators` that fits",
            aliases=("method",),
            later={"token": "write `by: word`, or `by: character` with about 4 characters for a token"},
        ),
    ] = "recursive"
    chunk_size: Annotated[
        Positive | None,
        doc("most characters of a chunk; default: 1000, and each sentence or paragraph by itself"),
    ] = None
    chunk_overlap: Annotated[Natural, doc("characters of a chunk that the next one begins with again")] = 0
    separators: Annotated[
        list[str] | None,
        doc("for `by: recursive`, the best first; default: paragraphs, lines, sentences, words"),
    ] = None

    def __post_init__(self) -> None:
        if self.separators is not None and self.by != "recursive":
            raise ValueError(f"`separators` are for `by: recursive`, not for `{self.by}`")
        if self.chunk_overlap and self.size is None:
            raise ValueError("`chunk_overlap` needs a `chunk_size`")
        if self.size is not None and self.chunk_overlap >= self.size:
            raise ValueError(f"`chunk_overlap` is {self.chunk_overlap}, and a chunk has only {self.size}")

    @property
    def size(self) -> int | None:
        """Most characters of a chunk; None for each unit by itself."""
        return self.chunk_size or (None if self.by in _UNITS else DEFAULT_SIZE)


def _check(values: Mapping[str, Any], remarks: Remarks) -> None:
    parameters = {name: value for name, value in values.items() if name not in ("text", "output")}
    if any(isinstance(value, Renderable) for value in parameters.values()):
        return  # the call will tell
    try:
        Split(text="", **parameters)
    except (ValueError, TypeError) as error:
        remarks.error(str(error), "separators" if "separators" in str(error) else "chunk_overlap")


_ACTION: Final = ActionSpec(
    Split, main="text", result=list[str], chunk=str, streams_in=("text",), check=_check
)


def _action(config: SplitterConfig, catalog: Catalog, report: Report) -> ActionSpec:
    return _ACTION


SPEC = ComponentSpec(
    "text-splitter",
    "Splits texts into chunks.",
    SplitterConfig,
    _action,
    "model_compose.components.text_splitter.component:TextSplitter",
    requests=(Split,),
)
