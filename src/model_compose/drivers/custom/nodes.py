"""What does the graph in an ONNX file compute? Read without the `onnx` package, which nothing else needs.

A file is a message of Protocol Buffers: fields with a number, each behind a tag. Weights are skipped, so that
files of any size are read in no time.
Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from model_compose.errors import ModelLoadError

#: Of `ModelProto`, of `GraphProto` and of `NodeProto`.
_GRAPH: Final = 7
_NODE: Final = 1
_NAME, _OPERATOR = 3, 4


class Node(NamedTuple):
    """One step of a graph, such as `Conv`."""

    name: str
    operator: str


def first_nodes(path: Path, count: int) -> list[Node]:
    """The first nodes of the graph in a file. Raises ModelLoadError if it is no ONNX file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found: list[Node] = []
        try:
            for number, start, end in _fields(content, 0, len(content)):
                if number != _GRAPH:
                    continue
                for inner, begin, stop in _fields(content, start, end):
                    if inner == _NODE:
                        found.append(_node(content, begin, stop))
                    if len(found) == count:
                        return found
        except (IndexError, UnicodeDecodeError) as error:
            raise ModelLoadError(f"`{path.name}` is no ONNX file, or not whole") from error
        return found


def _node(content: mmap.mmap, start: int, end: int) -> Node:
    texts = {number: content[begin:stop] for number, begin, stop in _fields(content, start, end)}
    return Node(texts.get(_NAME, b"").decode(), texts.get(_OPERATOR, b"").decode())


def _fields(content: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each field that has a length; the others are passed over."""
    while at < end:
        tag, at = _number(content, at)
        match tag & 7:
            case 0:
                _, at = _number(content, at)
            case 1:
                at += 8
            case 5:
                at += 4
            case 2:
                length, at = _number(content, at)
                if at + length > end:
                    raise IndexError
                yield tag >> 3, at, at + length
                at += length
            case _:
                raise IndexError


def _number(content: mmap.mmap, at: int) -> tuple[int, int]:
    """A number of any size, seven bits in a byte, and where it ends."""
    found = shift = 0
    while True:
        byte = content[at]
        found |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return found, at
