"""How many requests at once, how long, and how much memory: planned from the file's metadata."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from gguf.constants import GGML_QUANT_SIZES
from hypothesis import given
from hypothesis import strategies as st
from tests import models
from tests.engines import load_options

from model_compose.drivers.llamacpp import gguf
from model_compose.drivers.llamacpp.gguf import Gguf
from model_compose.drivers.llamacpp.size import DEFAULT_CACHE_BYTES, estimate, layout
from model_compose.drivers.llamacpp.spec import LlamaCppOptions
from model_compose.errors import ModelLoadError


def model(**more: int | None) -> Gguf:
    values: dict[str, Any] = {
        "size_bytes": 4 << 30,
        "context_length": 32768,
        "layers": 32,
        "key_width": 1024,
        "value_width": 1024,
    }
    return Gguf(
        architecture="llama", vocabulary=32000, pooling_type=None, chat_template=None, **{**values, **more}
    )


def test_the_metadata_of_a_real_file_is_read() -> None:
    found = gguf.read(models.tiny_chat())
    assert (found.architecture, found.context_length, found.embeds) == ("llama", 8192, False)
    assert found.chat_template is not None
    assert "im_start" in found.chat_template
    assert found.size_bytes == models.tiny_chat().stat().st_size


def test_a_vocabulary_may_be_small(tmp_path: Path) -> None:
    def text(value: bytes) -> bytes:
        return struct.pack("<Q", len(value)) + value

    header = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    tokens = (
        text(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 3) + text(b"a") + text(b"b") + text(b"c")
    )
    path = tmp_path / "small.gguf"
    path.write_bytes(header + tokens)
    assert gguf.read(path).vocabulary == 3


def test_sizes_of_tensors_are_those_of_the_format() -> None:
    assert {
        int(kind): size for kind, size in GGML_QUANT_SIZES.items() if int(kind) in gguf.BLOCKS
    } == gguf.BLOCKS


@pytest.mark.parametrize("alignment", [(4, 0), (5, -8), (8, 3)], ids=["zero", "negative", "text"])
def test_an_alignment_that_cannot_be_is_a_damaged_header(tmp_path: Path, alignment: tuple[int, int]) -> None:
    kind, value = alignment
    key = b"general.alignment"
    told = struct.pack("<Q", value) + b"abc" if kind == 8 else struct.pack("<I" if kind == 4 else "<i", value)
    path = tmp_path / "odd.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, len(key)) + key + struct.pack("<I", kind) + told)
    with pytest.raises(ModelLoadError, match="is damaged"):
        gguf.read(path)


@pytest.mark.model
def test_an_embedding_model_is_known_by_its_pooling() -> None:
    assert gguf.read(models.minilm_gguf()).embeds


def test_the_context_is_what_was_trained_but_not_more_than_4096_unless_asked() -> None:
    assert layout(model(), None, LlamaCppOptions()).context_length == 4096
    assert layout(model(context_length=512), None, LlamaCppOptions()).context_length == 512
    assert layout(model(), None, LlamaCppOptions(context_length=20000)).context_length == 20000


def test_batch_size_is_the_number_of_slots() -> None:
    assert layout(model(), 3, LlamaCppOptions()).slots == 3


def test_prompts_are_computed_in_smaller_pieces_on_a_cpu() -> None:
    assert layout(model(), None, LlamaCppOptions()).prompt_batch == 96
    assert layout(model(), None, LlamaCppOptions(), on_gpu=True).prompt_batch == 512
    for on_gpu in (False, True):
        assert layout(model(), None, LlamaCppOptions(prompt_batch=32), on_gpu=on_gpu).prompt_batch == 32


@pytest.mark.parametrize(("device", "batch"), [("cpu", 96), ("auto", 96), ("cuda", 512), ("mps", 512)])
def test_an_estimate_has_room_for_the_logits_of_a_batch(device: str, batch: int) -> None:
    file = models.tiny_chat()
    vocabulary = gguf.read(file).vocabulary

    def total(**options: int) -> int:
        return sum(estimate(load_options(file, "text-generation", device=device, options=options)).values())

    assert total() == total(prompt_batch=batch)
    assert total(prompt_batch=batch + 1) - total() == 4 * vocabulary


def test_slots_are_as_many_as_their_caches_may_take() -> None:
    small = layout(
        model(layers=30, key_width=192, value_width=192, size_bytes=98 << 20), None, LlamaCppOptions()
    )
    large = layout(model(), None, LlamaCppOptions())
    huge = layout(model(layers=80, key_width=8192, value_width=8192), None, LlamaCppOptions())
    assert (small.slots, large.slots, huge.slots) == (8, 4, 1)


@given(
    layers=st.integers(1, 120),
    width=st.integers(1, 16384),
    size=st.integers(1 << 20, 1 << 38),
    batch=st.none() | st.integers(1, 64),
    kind=st.sampled_from(["f16", "q8_0", "f32", "q4_0"]),
)
def test_a_plan_always_has_a_slot_and_counts_its_caches(
    layers: int, width: int, size: int, batch: int | None, kind: str
) -> None:
    options = LlamaCppOptions(key_cache_type=kind, value_cache_type=kind)  # type: ignore[arg-type]
    plan = layout(model(layers=layers, key_width=width, value_width=width, size_bytes=size), batch, options)
    assert plan.slots >= 1
    assert plan.size_bytes > size
    if batch is None and plan.slots > 1:
        assert plan.size_bytes <= size + max(DEFAULT_CACHE_BYTES, size // 2) + (200 << 20)


def test_the_estimate_is_for_the_hosts_memory_unless_a_gpu_is_named() -> None:
    assert set(estimate(load_options(models.tiny_chat(), "text-generation"))) == {"host"}
    assert set(estimate(load_options(models.tiny_chat(), "text-generation", device="cuda:1"))) == {"cuda:1"}
