"""Which messages cross between the gateway and a worker, and how are they framed?

msgspec structs in msgpack, each behind its length (4 bytes, little-endian), over a Unix socket.
Requests, chunks and results travel as `Raw`: the two ends know their types from the task.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from model_compose.drivers.contract import DeviceMemory, LoadOptions, ModelInfo
from model_compose.errors import ErrorInfo
from model_compose.types import FinishReason, Usage

#: Raised when either end changes a message in a way that the other cannot read.
PROTOCOL: Final = 4

#: A frame longer than this is a bug or an attack, not a request.
MAX_FRAME_BYTES: Final = 1 << 30


class _Message(msgspec.Struct, frozen=True, array_like=True):
    pass


class Load(_Message, frozen=True, tag="load"):
    """Load this model with this implementation (`package.module:Class`) of this request type."""

    protocol: int
    implementation: str
    request: str
    options: LoadOptions


class Call(_Message, frozen=True, tag="call"):
    """Serve a request; `alone` asks for a batch of its own.

    With `several` it is a list of requests, and so is the result; if one of them fails, all do.
    """

    id: int
    request: msgspec.Raw
    streaming: bool
    alone: bool = False
    several: bool = False


class Cancel(_Message, frozen=True, tag="cancel"):
    """Nobody waits for this call any more. It still ends with exactly one message."""

    id: int


class Hold(_Message, frozen=True, tag="hold"):
    """The reader of this call is slow (`held`), or has caught up."""

    id: int
    held: bool


class Lease(_Message, frozen=True, tag="lease"):
    """Compute with this many threads from the next batch on."""

    threads: int


class Stop(_Message, frozen=True, tag="stop"):
    """End the process; calls in flight are lost."""


ToWorker = Load | Call | Cancel | Hold | Lease | Stop


class Hello(_Message, frozen=True, tag="hello"):
    """Who the worker is: what it says first, before it is told to load. `version` is that of our package."""

    protocol: int
    version: str
    python: str


class Loading(_Message, frozen=True, tag="loading"):
    """How far the load is: in which stage, and how much of it is done. `total` is 0 if nobody knows."""

    stage: str
    done: int
    total: int


class Loaded(_Message, frozen=True, tag="loaded"):
    """The model answers requests. `memory` is what it takes, in bytes by pool (`host`, `cuda:0`).

    A pool that is not named could not be measured.

    devices  the GPUs that the worker is on; empty if it can use none, None if nobody knows
    """

    info: ModelInfo
    memory: dict[str, int]
    devices: dict[str, DeviceMemory] | None = None


class LoadFailed(_Message, frozen=True, tag="load_failed"):
    """The model could not be loaded, and would not be the next time either."""

    error: ErrorInfo


class Chunk(_Message, frozen=True, tag="chunk"):
    """One piece of a streamed result."""

    id: int
    data: msgspec.Raw


class Progress(_Message, frozen=True, tag="progress"):
    """How far a call is, in units of its task."""

    id: int
    done: int
    total: int


class Done(_Message, frozen=True, tag="done"):
    """A call ended well."""

    id: int
    result: msgspec.Raw
    usage: Usage | None = None
    finish_reason: FinishReason | None = None


class Failed(_Message, frozen=True, tag="failed"):
    """A call ended with an error, and only that call."""

    id: int
    error: ErrorInfo


class Leased(_Message, frozen=True, tag="leased"):
    """The worker computes with this many threads now."""

    threads: int


class Measured(_Message, frozen=True, tag="measured"):
    """Memory and engine metrics, sent now and then while the model is used."""

    memory: dict[str, int]
    metrics: dict[str, float]
    devices: dict[str, DeviceMemory] | None = None


ToGateway = Hello | Loading | Loaded | LoadFailed | Chunk | Progress | Done | Failed | Leased | Measured

_LENGTH = struct.Struct("<I")
encoder: Final = msgspec.msgpack.Encoder()


def frame(message: ToWorker | ToGateway) -> bytes:
    """A message as it goes over the wire."""
    body = encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Cuts a byte stream into frames; bytes may come in any pieces."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, piece: bytes) -> list[bytes]:
        """The bodies of all frames that are complete now. Raises ValueError for a frame too long."""
        pending = self._pending
        pending += piece
        bodies = []
        start = 0
        while len(pending) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(pending, start)
            if length > MAX_FRAME_BYTES:
                raise ValueError(f"a frame of {length} bytes (limit {MAX_FRAME_BYTES})")
            end = start + _LENGTH.size + length
            if end > len(pending):
                break
            bodies.append(bytes(pending[start + _LENGTH.size : end]))
            start = end
        del pending[:start]
        return bodies
