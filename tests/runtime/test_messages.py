"""Do messages arrive as they were sent, however the bytes come?"""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_compose.drivers.contract import LoadedAdapter, LoadOptions, ModelInfo
from model_compose.errors import ErrorInfo
from model_compose.runtime.messages import (
    MAX_FRAME_BYTES,
    PROTOCOL,
    Call,
    Cancel,
    Chunk,
    Done,
    Failed,
    Frames,
    Hello,
    Hold,
    Lease,
    Leased,
    Load,
    Loaded,
    LoadFailed,
    Measured,
    Progress,
    Stop,
    ToGateway,
    ToWorker,
    encoder,
    frame,
)
from model_compose.sources.spec import LoadedSource
from model_compose.types import Usage

SOURCE = LoadedSource(path="/weights", format="gguf", revision="abc", origin="here", size_bytes=1 << 40)
OPTIONS = LoadOptions(
    task="chat-completion",
    source=SOURCE,
    threads=2,
    scratch="/tmp/x",
    adapters=(LoadedAdapter("pirate", SOURCE, 0.5),),
    options={"n_ctx": 4096, "nested": {"list": [1, 2.5, None, "text"]}},
)

ids = st.integers(0, 2**63 - 1)
texts = st.text(max_size=30)
sizes = st.dictionaries(texts, st.integers(0, 2**62), max_size=3)
raws = st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | texts, st.lists).map(
    lambda value: msgspec.Raw(encoder.encode(value))
)
errors = st.builds(
    ErrorInfo, texts, texts, st.none() | texts, st.dictionaries(texts, st.integers(-100, 100), max_size=2)
)

to_worker: st.SearchStrategy[ToWorker] = st.one_of(
    st.just(Load(PROTOCOL, "module:Class", "module:Request", OPTIONS)),
    st.builds(Call, ids, raws, st.booleans(), st.booleans()),
    st.builds(Cancel, ids),
    st.builds(Hold, ids, st.booleans()),
    st.builds(Lease, st.integers(1, 256)),
    st.just(Stop()),
)
to_gateway: st.SearchStrategy[ToGateway] = st.one_of(
    st.builds(Hello, ids, texts, texts),
    st.builds(Loaded, st.just(ModelInfo(slots=4, details={"device": "cpu"})), sizes),
    st.builds(LoadFailed, errors),
    st.builds(Chunk, ids, raws),
    st.builds(Progress, ids, ids, ids),
    st.builds(
        Done,
        ids,
        raws,
        st.none() | st.builds(Usage, ids, ids, ids),
        st.sampled_from([None, "stop", "length"]),
    ),
    st.builds(Failed, ids, errors),
    st.builds(Leased, st.integers(1, 256)),
    st.builds(Measured, sizes, st.dictionaries(texts, st.floats(allow_nan=False), max_size=3)),
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(
    st.lists(st.tuples(st.just(ToWorker), to_worker) | st.tuples(st.just(ToGateway), to_gateway), max_size=8)
)
def test_every_message_is_read_as_it_was_written(sent: list[tuple[Any, Any]]) -> None:
    bodies = Frames().feed(b"".join(frame(message) for _, message in sent))
    read = [msgspec.msgpack.decode(body, type=kind) for (kind, _), body in zip(sent, bodies, strict=True)]
    assert [encoder.encode(message) for message in read] == [encoder.encode(m) for _, m in sent]
    assert [type(message) for message in read] == [type(message) for _, message in sent]


@given(
    bodies=st.lists(st.binary(max_size=300), max_size=10), cuts=st.lists(st.integers(0, 10_000), max_size=20)
)
def test_frames_come_out_whole_however_the_bytes_are_cut(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(len(body).to_bytes(4, "little") + body for body in bodies)
    frames = Frames()
    out = [body for piece in pieces(stream, cuts) for body in frames.feed(piece)]
    assert out == bodies


def test_frames_come_out_whole_byte_by_byte() -> None:
    stream = frame(Cancel(1)) + frame(Hold(2, True))
    frames = Frames()
    out = [body for i in range(len(stream)) for body in frames.feed(stream[i : i + 1])]
    assert [msgspec.msgpack.decode(body, type=ToWorker) for body in out] == [Cancel(1), Hold(2, True)]


def test_a_frame_comes_out_as_soon_as_it_is_complete() -> None:
    frames = Frames()
    data = frame(Cancel(7))
    assert frames.feed(data[:-1]) == []
    assert len(frames.feed(data[-1:] + data[:3])) == 1
    assert len(frames.feed(data[3:])) == 1


def test_a_frame_that_is_too_long_is_refused_before_it_is_collected() -> None:
    frames = Frames()
    with pytest.raises(ValueError, match=str(MAX_FRAME_BYTES)):
        frames.feed((MAX_FRAME_BYTES + 1).to_bytes(4, "little"))


def test_a_message_of_the_other_direction_is_refused() -> None:
    (body,) = Frames().feed(frame(Leased(2)))
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(body, type=ToWorker)


def test_what_is_read_does_not_change_with_the_buffer_that_it_came_in() -> None:
    frames = Frames()
    buffer = bytearray(frame(Chunk(1, msgspec.Raw(encoder.encode("first")))))
    (body,) = frames.feed(bytes(buffer))
    chunk = msgspec.msgpack.decode(body, type=ToGateway)
    buffer[:] = b"\0" * len(buffer)
    frames.feed(frame(Chunk(2, msgspec.Raw(encoder.encode("second")))))
    assert isinstance(chunk, Chunk)
    assert msgspec.msgpack.decode(chunk.data) == "first"
