"""The driver on a real GPU, with random weights: `make test-gpu`. Elsewhere these tests are skipped."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests import tiny_models
from tests.engines import Collector, load_options, unseen

from model_compose.tasks.text_generation.spec import TextGeneration

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU"),
]

PROMPTS = ["w3 w4 w5", "w7", "w90 w3 w17 w30 w41 w52 w63"]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.decoder("llama", tmp_path_factory.mktemp("models") / "llama")


async def said(path: Path, **more: Any) -> tuple[list[str], dict[str, str]]:
    """What a model says to the prompts, all at once, and what it says of itself."""
    from model_compose.tasks.text_generation.huggingface.model import Generator

    model = Generator()
    options = load_options(path, "text-generation", **more)
    info = await model.load(options, unseen)
    asked = [TextGeneration(prompt=prompt, temperature=0, max_output_length=12) for prompt in PROMPTS]
    sinks = [Collector(streaming=False) for _ in asked]
    try:
        outcomes = await asyncio.gather(
            *(model.run(request, sink, sink.token) for request, sink in zip(asked, sinks, strict=True))
        )
        if more["device"] != "cpu":
            assert model.memory()["cuda:0"] > 0
    finally:
        await model.close()
    return [outcome.result.text for outcome in outcomes], info.details


async def test_the_gpu_says_what_the_cpu_says(llama: Path) -> None:
    cpu, _ = await said(llama, device="cpu", precision="float32")
    gpu, details = await said(llama, device="cuda:0", precision="float32")
    assert gpu == cpu
    assert details["device"] == "cuda:0"
    assert details["batching"].startswith("continuous")


async def test_auto_takes_the_gpu_in_half_precision(llama: Path) -> None:
    _, details = await said(llama, device="auto")
    assert (details["device"], details["precision"]) == ("cuda:0", "float16")


@pytest.mark.parametrize("kind", ["int8", "nf4", "fp4", "int4"])
async def test_quantization_is_applied(llama: Path, kind: str) -> None:
    pytest.importorskip("bitsandbytes")
    from model_compose.drivers.contract import Quantization

    texts, details = await said(llama, device="cuda:0", quantization=Quantization(type=kind))  # type: ignore[arg-type]
    assert all(texts)
    assert kind in details["quantization"]
