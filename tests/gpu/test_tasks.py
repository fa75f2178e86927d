"""Each task in half precision on a real GPU, as `auto` chooses it, beside the CPU: `make test-gpu`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import tiny_diffusion, tiny_models, tiny_vision
from tests.engines import load_options
from tests.tasks.batches import outcomes, started

from model_compose.drivers.alone import Alone
from model_compose.drivers.contract import Quantization
from model_compose.errors import OutOfMemory
from model_compose.tasks.image_generation.spec import ImageGeneration
from model_compose.tasks.image_to_text.spec import ImageToText
from model_compose.tasks.image_upscale.spec import ImageUpscale
from model_compose.tasks.images import decode
from model_compose.tasks.text_classification.spec import TextClassification
from model_compose.tasks.text_embedding.spec import TextEmbedding
from model_compose.types import Blob

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning", "ignore:torch.meshgrid"),
]

TEXTS = ["w5", "w9 w11 w13 w4 w50 w60", "w20 w21 w22", " ".join(f"w{i}" for i in range(3, 90)), "w7 w8"]
CPU: dict[str, Any] = {"device": "cpu", "precision": "float32"}
GPU: dict[str, Any] = {"device": "auto", "precision": None}


def on(device: dict[str, Any], path: Path, task: str, **more: Any) -> Any:
    return load_options(path, task, **{**device, **more})


def told(model: Any, options: Any) -> dict[str, str]:
    """What a model says of itself when it is loaded."""
    info = model.load(options, lambda *_: None)
    return dict(info.details)


def vectors(model: Any) -> Any:
    found = outcomes(model, [TextEmbedding(text=text) for text in TEXTS])
    return np.array([outcome.result.embedding for outcome in found])


@pytest.mark.parametrize("kind", ["bert", "modernbert", "llama"])
def test_vectors_in_half_precision_are_near(kind: str, tmp_path: Path) -> None:
    from model_compose.tasks.text_embedding.huggingface import Embedder

    folder = tiny_models.encoder(kind, tmp_path / kind)
    cpu = vectors(started(Embedder(), on(CPU, folder, "text-embedding")))
    model = Embedder()
    details = told(model, on(GPU, folder, "text-embedding"))
    assert (details["device"], details["precision"]) == ("cuda:0", "float16")
    assert (vectors(model) * cpu).sum(1) == pytest.approx(1, abs=2e-3)
    assert model.memory()["cuda:0"] > 0


def test_labels_in_half_precision_are_the_same(tmp_path: Path) -> None:
    from model_compose.tasks.text_classification.huggingface import Classifier

    folder = tiny_models.classifier("bert", tmp_path / "bert", num_labels=5)
    found = {}
    for device in (CPU, GPU):
        model = started(Classifier(), on(device, folder, "text-classification"))
        found[device["device"]] = [
            outcome.result for outcome in outcomes(model, [TextClassification(text=text) for text in TEXTS])
        ]
    assert [each.label for each in found["auto"]] == [each.label for each in found["cpu"]]
    scores = [each.score for each in found["cpu"]]
    assert [each.score for each in found["auto"]] == pytest.approx(scores, abs=0.02)


@pytest.mark.parametrize("kind", tiny_vision.KINDS)
def test_images_are_described_in_half_precision(kind: str, tmp_path: Path) -> None:
    from model_compose.tasks.image_to_text.huggingface import Captioner

    model: Any = Captioner()
    details = told(model, on(GPU, tiny_vision.captioner(kind, tmp_path / kind), "image-to-text", warmup=True))
    assert (details["device"], details["precision"]) == ("cuda:0", "float16")
    asked = [
        ImageToText(image=tiny_vision.image(seed), max_output_length=8, do_sample=False) for seed in range(3)
    ]
    rows = [model.prepare(each) for each in asked]
    raws = iter(model.forward([item for row in rows for item in row], Alone(1)))
    said = [
        model.finish(each, list(itertools.islice(raws, len(row)))).result.text
        for each, row in zip(asked, rows, strict=True)
    ]
    assert len(said) == 3
    assert any(said)


def painted(model: Any, prompts: Sequence[str], **more: Any) -> list[Any]:
    """The pixels of pictures that are painted in one pass."""
    small: dict[str, Any] = {"width": 64, "height": 64, "num_inference_steps": 3, "seed": 7}
    asked = [ImageGeneration(prompt=prompt, **{**small, **more}) for prompt in prompts]
    items = [item for each in asked for item in model.prepare(each)]
    raws = model.forward(items, Alone(1))
    return [
        np.asarray(decode(model.finish(each, [raw]).result.image)).astype(int)
        for each, raw in zip(asked, raws, strict=True)
    ]


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pipelines")
    makes = (tiny_diffusion.sdxl, tiny_diffusion.flux, tiny_diffusion.hunyuan)
    return {make.__name__: make(root / make.__name__) for make in makes}


@pytest.mark.parametrize("family", ["sdxl", "flux", "hunyuan"])
@pytest.mark.parametrize("offload", [False, True], ids=["whole", "parts take turns"])
def test_a_seed_paints_nearly_what_it_paints_on_a_cpu(
    family: str, offload: bool, pipelines: dict[str, Path]
) -> None:
    from model_compose.tasks.image_generation.huggingface import Painter

    prompts = ["a cat", "a dog"]
    cpu = started(Painter(), on(CPU, pipelines[family], "image-generation"))
    expected = [painted(cpu, [prompt])[0] for prompt in prompts]
    for precision, most in (("float32", 2), ("auto", 25)):
        model = Painter()
        options = on(
            GPU,
            pipelines[family],
            "image-generation",
            precision=precision,
            options={"cpu_offload": True} if offload else {},
        )
        details = told(model, options)
        assert details["device"].startswith("cuda:0")
        for found, right in zip(painted(model, prompts), expected, strict=True):
            assert np.abs(found - right).mean() < most
        # Alone, it is what it is among others.
        assert np.abs(painted(model, prompts[:1])[0] - painted(model, prompts)[0]).mean() < most


@pytest.mark.parametrize("kind", ["int8", "nf4", "fp4", "int4"])
@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_a_quantized_painter_paints(kind: str, family: str, pipelines: dict[str, Path]) -> None:
    pytest.importorskip("bitsandbytes")
    from model_compose.tasks.image_generation.huggingface import Painter

    model = Painter()
    options = on(
        GPU,
        pipelines[family],
        "image-generation",
        quantization=Quantization(type=kind),  # type: ignore[arg-type]
    )
    assert kind in told(model, options)["quantization"]
    one, other = (painted(model, [prompt])[0] for prompt in ("a cat", "a dog"))
    assert one.std() > 1
    assert not np.array_equal(one, other)


def test_adapters_change_what_a_painter_paints(pipelines: dict[str, Path], tmp_path: Path) -> None:
    from model_compose.tasks.image_generation.huggingface import Painter

    lora = tiny_diffusion.lora(pipelines["sdxl"], tmp_path / "lora", rank=4, seed=1)
    model = started(
        Painter(), on(GPU, pipelines["sdxl"], "image-generation", adapters={"style": (lora, 1.0)})
    )
    cpu = started(Painter(), on(CPU, pipelines["sdxl"], "image-generation", adapters={"style": (lora, 1.0)}))
    plain, styled = (painted(model, ["a cat"], adapters={"style": weight})[0] for weight in (0.0, 1.0))
    assert not np.array_equal(plain, styled)
    assert np.abs(styled - painted(cpu, ["a cat"], adapters={"style": 1.0})[0]).mean() < 25


def picture(width: int, height: int) -> Blob:
    import io

    from PIL import Image

    chance = np.random.default_rng(0)
    rough = chance.random((-(-height // 6), -(-width // 6), 3)).repeat(6, 0).repeat(6, 1)
    out = io.BytesIO()
    Image.fromarray((rough[:height, :width] * 255).astype(np.uint8)).save(out, "png")
    return Blob("image/png", out.getvalue())


@pytest.mark.parametrize("make", ["esrgan", "swinir", "compact"])
def test_pictures_are_enlarged_as_on_a_cpu(make: str, tmp_path: Path) -> None:
    from tests.tasks import test_image_upscale as networks

    from model_compose.tasks.image_upscale.network import Upscaler

    path = getattr(networks, make)(tmp_path)
    found = []
    for device in (CPU, {**GPU, "precision": "float32"}, GPU):
        model = started(Upscaler(), on(device, path, "image-upscale"))
        (result,) = networks.results(model, [ImageUpscale(image=picture(150, 133), tile_size=64)])
        found.append(np.asarray(decode(result.image)).astype(int))
    assert np.abs(found[1] - found[0]).max() <= 1
    assert np.abs(found[2] - found[0]).mean() < 1


async def test_who_asks_for_more_than_the_gpu_has_gets_an_error_and_others_go_on(tmp_path: Path) -> None:
    from tests.engines import Collector

    from model_compose.tasks.text_generation.huggingface.model import Generator
    from model_compose.tasks.text_generation.spec import TextGeneration

    folder = tiny_models.decoder(
        "llama",
        tmp_path / "llama",
        hidden_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=1 << 20,
    )
    model = Generator()
    await model.load(on(GPU, folder, "text-generation"), lambda *_: None)
    # What is left is less than the cache of a long request takes.
    free, _ = torch.cuda.mem_get_info(0)
    filler = torch.empty(free - (1 << 30), dtype=torch.uint8, device="cuda:0")
    try:
        long = TextGeneration(prompt="w3 " * 400_000, temperature=0, max_output_length=2)
        short = TextGeneration(prompt="w3 w4", temperature=0, max_output_length=8)
        sinks = [Collector(streaming=False) for _ in range(2)]
        ends = await asyncio.gather(
            *(model.run(each, sink, sink.token) for each, sink in zip((long, short), sinks, strict=True)),
            return_exceptions=True,
        )
        assert isinstance(ends[0], OutOfMemory)
        assert ends[0].free_bytes is not None
        assert not isinstance(ends[1], BaseException)
        again = Collector(streaming=False)
        outcome = await model.run(short, again, again.token)
        assert outcome.result.text == ends[1].result.text
    finally:
        del filler
        torch.cuda.empty_cache()
        await model.close()
