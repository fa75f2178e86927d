"""What does a GGUF file say of itself, and is all of it there?

Reads the header only, without the engine and without numpy.
Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path
from typing import Any, Final

import msgspec

from model_compose.errors import ModelLoadError

_SCALARS: Final = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_STRING, _ARRAY = 8, 9
#: Numbers in a block and bytes of it, by type of tensor, as `ggml_type` counts them.
BLOCKS: Final = {
    0: (1, 4),  # f32
    1: (1, 2),  # f16
    2: (32, 18),  # q4_0
    3: (32, 20),  # q4_1
    6: (32, 22),  # q5_0
    7: (32, 24),  # q5_1
    8: (32, 34),  # q8_0
    10: (256, 84),  # q2_K
    11: (256, 110),  # q3_K
    12: (256, 144),  # q4_K
    13: (256, 176),  # q5_K
    14: (256, 210),  # q6_K
    16: (256, 66),  # iq2_xxs
    17: (256, 74),  # iq2_xs
    18: (256, 98),  # iq3_xxs
    19: (256, 50),  # iq1_s
    20: (32, 18),  # iq4_nl
    21: (256, 110),  # iq3_s
    22: (256, 82),  # iq2_s
    23: (256, 136),  # iq4_xs
    24: (1, 1),  # i8
    25: (1, 2),  # i16
    26: (1, 4),  # i32
    27: (1, 8),  # i64
    28: (1, 8),  # f64
    29: (256, 56),  # iq1_m
    30: (1, 2),  # bf16
    34: (256, 54),  # tq1_0
    35: (256, 66),  # tq2_0
    39: (32, 17),  # mxfp4
}
_ALIGNMENT: Final = 32
#: Longer arrays are vocabularies: nobody here needs them, and they take time to build.
_LONGEST_ARRAY: Final = 1024


class Gguf(msgspec.Struct, frozen=True):
    """The metadata of a file. Lengths are in tokens, sizes in numbers per token and layer."""

    architecture: str
    size_bytes: int
    context_length: int | None
    layers: int
    key_width: int
    value_width: int
    vocabulary: int
    pooling_type: int | None
    chat_template: str | None

    @property
    def embeds(self) -> bool:
        """Whether it is a model for embeddings, which gives no text."""
        return self.pooling_type is not None


def read(path: Path) -> Gguf:
    """Read the metadata of a file. Raises ModelLoadError when it is none, or ends too early."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            reader = _Reader(view)
            values = reader.metadata()
            alignment = values.get("general.alignment", _ALIGNMENT)
            if not isinstance(alignment, int) or alignment < 1:
                raise struct.error(f"an alignment of {alignment!r}")
            needed = reader.end_of_tensors(alignment)
            size = len(view)
    except OSError as error:
        raise ModelLoadError(f"cannot read `{path}`: {error.strerror}") from error
    except (struct.error, UnicodeDecodeError, OverflowError) as error:
        raise ModelLoadError(
            f"`{path}` is damaged: its GGUF header cannot be read",
            hint="it may be the beginning of a file; download it again",
        ) from error
    except ValueError as error:  # an empty file cannot be mapped
        raise ModelLoadError(f"`{path}` is not a GGUF file: {error}") from error
    if size < needed:
        raise ModelLoadError(
            f"`{path}` is incomplete: it has {size} bytes, and its tensors end at {needed}",
            hint="download it again; `model-compose cache rm` removes one that was pulled",
        )
    return _gguf(values, size)


def _gguf(values: dict[str, Any], size: int) -> Gguf:
    architecture = str(values.get("general.architecture", "unknown"))

    def number(key: str) -> int | None:
        value = values.get(f"{architecture}.{key}")
        if isinstance(value, list):  # one for each layer
            value = max((v for v in value if isinstance(v, int)), default=None)
        return value if isinstance(value, int) else None

    heads = number("attention.head_count") or 1
    key_heads = number("attention.head_count_kv") or heads
    head_width = (number("embedding_length") or 0) // heads
    return Gguf(
        architecture=architecture,
        size_bytes=size,
        context_length=number("context_length"),
        layers=number("block_count") or 0,
        key_width=key_heads * (number("attention.key_length") or head_width),
        value_width=key_heads * (number("attention.value_length") or head_width),
        vocabulary=number("vocab_size") or _count(values.get("tokenizer.ggml.tokens", 0)),
        pooling_type=number("pooling_type"),
        chat_template=values.get("tokenizer.chat_template"),
    )


def _count(tokens: Any) -> int:
    """How many tokens there are: a long list of them is only its length."""
    return len(tokens) if isinstance(tokens, list) else int(tokens)


class _Reader:
    def __init__(self, view: mmap.mmap) -> None:
        self._view = view
        self._at = 0
        self._tensors = 0

    def metadata(self) -> dict[str, Any]:
        magic = self._view[:4]
        if magic != b"GGUF":
            raise ValueError(f"it begins with {magic!r}")
        self._at = 4
        version = self._scalar("<I")
        if version not in (2, 3):
            raise ValueError(f"its GGUF version is {version}, and 2 and 3 are known")
        self._tensors = self._scalar("<Q")
        count = self._scalar("<Q")
        return {self._string(): self._value(self._scalar("<I")) for _ in range(count)}

    def end_of_tensors(self, alignment: int) -> int:
        """Where the last tensor ends, in bytes; those of unknown types count as empty."""
        end = 0
        for _ in range(self._tensors):
            self._skip(_STRING)
            dimensions = [self._scalar("<Q") for _ in range(self._scalar("<I"))]
            kind, offset = self._scalar("<I"), self._scalar("<Q")
            numbers, size = BLOCKS.get(kind, (1, 0))
            end = max(end, offset + math.prod(dimensions) // numbers * size)
        return self._at + -self._at % alignment + end

    def _scalar(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self._view, self._at)
        self._at += struct.calcsize(form)
        return value

    def _string(self) -> str:
        length = self._scalar("<Q")
        end = self._at + length
        if end > len(self._view):
            raise struct.error("a text goes beyond the end of the file")
        text = self._view[self._at : end].decode()
        self._at = end
        return text

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array()
        if kind not in _SCALARS:
            raise struct.error(f"an unknown type {kind}")
        return self._scalar(_SCALARS[kind])

    def _array(self) -> Any:
        """The items of a short array, the length of a long one."""
        kind, count = self._scalar("<I"), self._scalar("<Q")
        if count <= _LONGEST_ARRAY:
            return [self._value(kind) for _ in range(count)]
        if kind in _SCALARS:
            self._at += count * struct.calcsize(_SCALARS[kind])
        else:
            for _ in range(count):
                self._skip(kind)
        return count

    def _skip(self, kind: int) -> None:
        if kind != _STRING:
            self._value(kind)
            return
        (length,) = struct.unpack_from("<Q", self._view, self._at)
        self._at += 8 + length
