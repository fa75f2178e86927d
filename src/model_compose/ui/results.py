"""How is an output shown? Decided from the value itself: text, pictures, a table, numbers, or JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from model_compose.types import Blob
from model_compose.ui.blobs import from_uri

#: Numbers of a vector that are shown.
FIRST_NUMBERS: Final = 8

#: From so many numbers on, a list of them is a vector.
_VECTOR: Final = 8
_MOST_ROWS: Final = 1000


class Picture(msgspec.Struct, frozen=True):
    """An image or another file of an output, and where in it that was."""

    blob: Blob
    name: str


class Table(msgspec.Struct, frozen=True):
    """Rows with the same columns."""

    columns: list[str]
    rows: list[list[Any]]


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What a page shows of an output; what is None is not shown.

    scores  of labels, from 0 to 1
    rest    what none of the others shows, as JSON with long things cut short
    """

    text: str | None = None
    images: list[Picture] = []
    files: list[Picture] = []
    scores: dict[str, float] | None = None
    table: Table | None = None
    rest: Any = None


def shown(output: Any) -> Shown:
    """How to show an output."""
    images: list[Picture] = []
    files: list[Picture] = []
    for picture in _pictures(output, ""):
        (images if picture.blob.media_type.startswith("image/") else files).append(picture)
    if images or files:
        alone = isinstance(output, str) or (isinstance(output, list) and all(map(_is_file, output)))
        return Shown(images=images, files=files, rest=None if alone else shortened(output))
    if isinstance(output, str):
        return Shown(text=output)
    if isinstance(output, list) and output and all(isinstance(each, str) for each in output):
        return Shown(table=Table(["#", "text"], [[i, each] for i, each in enumerate(output, 1)]))
    if _is_classification(output):
        return Shown(scores=_scores(output), rest=shortened(output))
    if isinstance(output, list) and output and all(map(_is_classification, output)):
        return Shown(table=_labels(output[:_MOST_ROWS]))
    vectors = [output] if _is_vector(output) else output
    if isinstance(vectors, list) and vectors and all(map(_is_vector, vectors)):
        return Shown(table=_vectors(vectors[:_MOST_ROWS]))
    return Shown(rest=shortened(output))


def shortened(value: Any) -> Any:
    """A value as it is shown: files as what they are, of vectors the first numbers."""
    if isinstance(value, dict):
        return {key: shortened(each) for key, each in value.items()}
    if _is_vector(value):
        first = ", ".join(f"{number:.4g}" for number in value[:FIRST_NUMBERS])
        return f"{len(value)} numbers: {first}, ..." if len(value) > FIRST_NUMBERS else value
    if isinstance(value, list):
        return [shortened(each) for each in value]
    blob = from_uri(value) if isinstance(value, str) else None
    return value if blob is None else f"{blob.media_type}, {len(blob.data):,} bytes"


def _pictures(value: Any, name: str) -> Iterator[Picture]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _pictures(each, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and not _is_vector(value):
        for index, each in enumerate(value, 1):
            yield from _pictures(each, f"{name} {index}".strip())
    elif isinstance(value, str) and (blob := from_uri(value)) is not None:
        yield Picture(blob, name)


def _is_file(value: Any) -> bool:
    return isinstance(value, str) and from_uri(value) is not None


def _is_vector(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) >= _VECTOR
        and all(isinstance(each, int | float) and not isinstance(each, bool) for each in value)
    )


def _is_classification(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    return isinstance(value.get("label"), str) and isinstance(value.get("score"), float)


def _scores(output: Mapping[str, Any]) -> dict[str, float] | None:
    """The probabilities of labels by name; of those whose names an output does not tell, by number.

    None where the score is none: a reranker gives any number.
    """
    if not 0 <= output["score"] <= 1:
        return None
    given = output.get("probabilities")
    if not isinstance(given, list):
        return {output["label"]: output["score"]}
    own = output.get("label_id")
    return {output["label"] if i == own else f"label {i}": each for i, each in enumerate(given)}


def _labels(outputs: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        ["#", "label", "score"],
        [[i, each["label"], round(each["score"], 4)] for i, each in enumerate(outputs, 1)],
    )


def _vectors(vectors: Sequence[Sequence[float]]) -> Table:
    rows = [
        [i, len(each), ", ".join(f"{number:.4f}" for number in each[:FIRST_NUMBERS])]
        for i, each in enumerate(vectors, 1)
    ]
    return Table(["#", "dimensions", f"first {FIRST_NUMBERS}"], rows)
