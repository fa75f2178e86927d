"""Unsloth on a real GPU: `make test-gpu`, with an interpreter that has it in MODEL_COMPOSE_UNSLOTH_PYTHON."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import tiny_models
from tests.drivers.loras import made
from tests.drivers.worker import Worker, running
from tests.engines import Collector, load_options

from model_compose.drivers.contract import Quantization
from model_compose.runtime import messages
from model_compose.tasks.text_generation.spec import TextGeneration

torch = pytest.importorskip("torch")
PYTHON = os.environ.get("MODEL_COMPOSE_UNSLOTH_PYTHON")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.process,
    pytest.mark.skipif(
        PYTHON is None or not torch.cuda.is_available(), reason="there is no CUDA GPU, or no Unsloth"
    ),
    pytest.mark.timeout(300),
]

PROMPTS = ["w3 w4 w5", "w7", "w90 w3 w17 w30 w41 w52 w63", "w80 w81", "w12 w13", "w44"]
#: Heads as wide as those that Unsloth's kernels are for.
WIDTH = 256
FOUR_BITS = Quantization(type="nf4", double_quant=True)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "toy"
    return tiny_models.decoder(
        "llama", folder, hidden_size=WIDTH, intermediate_size=512, num_key_value_heads=4
    )


def starting(path: Path, **more: Any) -> Any:
    assert PYTHON is not None
    return running("unsloth", PYTHON, "text-generation", path, device="cuda", **more)


def prompt(text: str, **more: Any) -> TextGeneration:
    length = {"min_output_length": 12, "max_output_length": 12}
    return TextGeneration(prompt=text, **{"temperature": 0.0, **length, **more})


@pytest.fixture(scope="module")
def whole(toy: Path) -> Iterator[Worker]:
    with starting(toy, warmup=True) as worker:
        yield worker


def test_what_was_loaded_is_told(whole: Worker) -> None:
    details = whole.info.details
    assert details["device"] == "cuda:0"
    assert details["precision"] in ("bfloat16", "float16")
    assert details["batching"] == "none: one request at a time"
    assert whole.devices is not None
    assert whole.devices["cuda:0"].total > whole.devices["cuda:0"].free > 0


async def test_it_says_nearly_what_transformers_says(whole: Worker, toy: Path) -> None:
    from model_compose.tasks.text_generation.huggingface.model import Generator

    asked = [prompt(text) for text in PROMPTS]
    ended = whole.together(asked)
    found = [each.result.text.split() for each in ended]
    model = Generator()
    precision = whole.info.details["precision"]
    await model.load(load_options(toy, "text-generation", device="cuda:0", precision=precision), print)
    try:
        sinks = [Collector(streaming=False) for _ in asked]
        ends = await asyncio.gather(
            *(model.run(each, sink, sink.token) for each, sink in zip(asked, sinks, strict=True))
        )
    finally:
        await model.close()
    right = [end.result.text.split() for end in ends]
    assert all(each.usage is not None and each.usage.completion_tokens == 12 for each in ended)
    # Kernels round differently, and one other word changes all that follow.
    assert sum(a[0] == b[0] for a, b in zip(found, right, strict=True)) >= len(PROMPTS) - 1


def test_a_stream_is_the_same_in_pieces(whole: Worker) -> None:
    ended = whole.ask(prompt("w3 w4 w5"), streaming=True)
    assert len(ended.chunks) >= 8
    assert "".join(chunk.text for chunk in ended.chunks) == ended.result.text
    assert whole.ask(prompt("w3 w4 w5")).result.text == ended.result.text


def test_sampling_and_several_outputs(whole: Worker) -> None:
    hot: dict[str, Any] = {"temperature": 1.5, "top_k": 20, "repetition_penalty": 1.2}
    one, same, other = (whole.ask(prompt("w9", **hot, seed=seed)).result.text for seed in (1, 1, 2))
    assert one == same != other


def test_who_goes_away_ends_at_once(whole: Worker) -> None:
    ended, pieces = whole.left(prompt("w3", min_output_length=200, max_output_length=200))
    assert isinstance(ended, messages.Failed)
    assert ended.error.code == "cancelled"
    assert pieces < 150
    assert whole.ask(prompt("w5")).result.text


def test_weights_become_4_bits_with_adapters_on_them(toy: Path, tmp_path: Path) -> None:
    targets = ["q_proj", "o_proj"]
    layers = {f"model.layers.{i}.self_attn.{name}": 4 for i in range(2) for name in targets}
    adapters = {
        name: (made(tmp_path / name, layers, wide=WIDTH, high=WIDTH, target_modules=targets), 0.0)
        for name in ("formal", "brief")
    }
    with starting(toy, quantization=FOUR_BITS, adapters=adapters) as worker:
        assert worker.info.details["quantization"] == "nf4 (bitsandbytes), 14 layers"
        blends: list[dict[str, float] | None]
        blends = [None, {"formal": 1.0}, {}, {"brief": 0.5, "formal": 0.5}, {"formal": 1.0}, {"brief": 1.0}]
        found = [each.result.text for each in worker.together([prompt("w3 w4", adapters=b) for b in blends])]
        assert found[0] == found[2]
        assert found[1] == found[4]
        assert len({found[0], found[1], found[3], found[5]}) == 4


def test_a_checkpoint_of_4_bits(toy: Path, tmp_path: Path) -> None:
    folder = tiny_models.of_four_bits(toy, tmp_path / "toy-bnb-4bit")
    with starting(folder) as worker:
        assert worker.info.details["quantization"].startswith("nf4 (bitsandbytes)")
        ended = worker.ask(prompt("w3 w4 w5"))
        assert ended.usage is not None
        assert ended.usage.completion_tokens == 12
        assert ended.result.text
