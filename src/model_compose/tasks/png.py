"""How does a picture become a PNG quickly?

Pillow tries five filters for each row and searches for repetitions, which takes longer than many a network
takes for the picture, and finds little in photographs. Here each row is written as the difference from the
one above, and coded by how often each number occurs and how often it is repeated; strips of rows are coded
side by side. Source: https://www.w3.org/TR/png-3/
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Number of each mode in the header, with the bits of a channel.
_COLOURS: Final = {"L": (0, 8), "I;16": (0, 16), "RGB": (2, 8), "LA": (4, 8), "RGBA": (6, 8)}
_UP: Final = 2
#: Bytes of a strip: fewer are not worth a thread.
_STRIP_BYTES: Final = 1 << 20
_MOST_THREADS: Final = 4
#: Of a window of 32 kB, compressed fast: what stands before all that follows.
_ZLIB_HEADER: Final = b"\x78\x01"
_LARGEST_CHUNK: Final = (1 << 31) - 1


def png(image: Image.Image) -> bytes:
    """A picture in mode `L`, `LA`, `RGB`, `RGBA` or `I;16` as a file."""
    colour, bits = _COLOURS[image.mode]
    rows = _filtered(image)
    header = struct.pack(">IIBBBBB", image.width, image.height, bits, colour, 0, 0, 0)
    parts = [_ZLIB_HEADER, *_compressed(rows), struct.pack(">I", zlib.adler32(rows))]
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", *_chunk(b"IHDR", [header]), *_chunk(b"IDAT", parts), *_chunk(b"IEND", [])]
    )


def _filtered(image: Image.Image) -> NDArray[np.uint8]:
    """Each row as the difference from the one above, behind the number that says so."""
    pixels: NDArray[Any] = np.asarray(image)
    if pixels.dtype == np.uint16:
        pixels = pixels.astype(">u2")
    flat = pixels.reshape(image.height, -1).view(np.uint8)
    rows = np.empty((image.height, flat.shape[1] + 1), np.uint8)
    rows[:, 0] = _UP
    rows[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])
    return rows


def _compressed(rows: NDArray[np.uint8]) -> Sequence[bytes]:
    """Strips that are one stream when they stand behind each other."""
    height = max(1, _STRIP_BYTES // rows.shape[1])
    starts = range(0, len(rows), height)
    last = starts[-1]

    def strip(start: int) -> bytes:
        coder = zlib.compressobj(1, zlib.DEFLATED, -15, 9, zlib.Z_RLE)
        end = zlib.Z_FINISH if start == last else zlib.Z_FULL_FLUSH
        return coder.compress(rows[start : start + height]) + coder.flush(end)

    threads = min(len(starts), os.cpu_count() or 1, _MOST_THREADS)
    if threads == 1:
        return [strip(start) for start in starts]
    with ThreadPoolExecutor(threads, "png") as pool:
        return list(pool.map(strip, starts))


def _chunk(name: bytes, parts: Sequence[bytes]) -> list[bytes]:
    """A chunk: length, name, content and checksum. Raises ValueError if it is too long for one."""
    length = sum(map(len, parts))
    if length > _LARGEST_CHUNK:
        raise ValueError(f"a PNG of {length} bytes")
    check = zlib.crc32(name)
    for part in parts:
        check = zlib.crc32(part, check)
    return [struct.pack(">I", length), name, *parts, struct.pack(">I", check)]
