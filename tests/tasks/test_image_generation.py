"""image-generation by diffusers, with random pipelines of each family in their real folder formats."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests import tiny_diffusion
from tests.api.serving import parse_events, serving
from tests.tasks.batches import load_options, started

from model_compose.drivers.alone import Alone
from model_compose.drivers.contract import Quantization
from model_compose.drivers.huggingface.size import PROCESS_BYTES, estimate
from model_compose.errors import Cancelled, InvalidInput, ModelLoadError, OutOfMemory, RequestTooLong
from model_compose.tasks.image_generation.huggingface import Painter
from model_compose.tasks.image_generation.spec import ImageGeneration
from model_compose.tasks.images import decode
from model_compose.tasks.pictures import Picture

# A scheduler of diffusers asks numpy for what newer ones of it do otherwise.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

FAMILIES = ("sdxl", "flux", "hunyuan")
Pixels = NDArray[np.uint8]
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's pipeline, made when it is asked for."""
    root, made = tmp_path_factory.mktemp("pipelines"), dict[str, Path]()

    def folder(name: str) -> Path:
        if name not in made:
            build: Callable[[Path], Path] = {
                "sdxl": tiny_diffusion.sdxl,
                "flux": tiny_diffusion.flux,
                "hunyuan": tiny_diffusion.hunyuan,
                "schnell": lambda path: tiny_diffusion.flux(path, distilled=True),
                "lora-x": lambda path: tiny_diffusion.lora(folder("sdxl"), path, rank=4, seed=1),
                "lora-y": lambda path: tiny_diffusion.lora(folder("sdxl"), path, rank=8, seed=2),
                "lora-flux": lambda path: tiny_diffusion.lora(folder("flux"), path, rank=4, seed=1),
            }[name]
            made[name] = build(root / name)
        return made[name]

    return folder


@pytest.fixture(scope="module")
def painter(base: Callable[[str], Path]) -> Make:
    """A loaded painter of a family; the same one for all who ask."""
    made: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in made:
            made[name] = loaded(base(name))
        return made[name]

    return get


def loaded(folder: Path, **more: Any) -> Any:
    return started(Painter(), load_options(folder, "image-generation", **more))


def wanted(prompt: str = "a cat", **more: Any) -> ImageGeneration:
    small: dict[str, Any] = {"width": 64, "height": 64, "num_inference_steps": 3, "seed": 7}
    return ImageGeneration(prompt=prompt, **{**small, **more})


def painted(model: Any, *requests: ImageGeneration, step: Any = None) -> list[Any]:
    """Results of requests that are computed in one pass."""
    rows = [model.prepare(request) for request in requests]
    items = [item for row in rows for item in row]
    assert len({item.key for item in items}) == 1
    raws = iter(model.forward(items, step or Alone(1)))
    return [
        model.finish(request, list(itertools.islice(raws, len(row)))).result
        for request, row in zip(requests, rows, strict=True)
    ]


def pixels(picture: Picture) -> Pixels:
    return np.asarray(decode(picture.image))


def paint(model: Any, prompt: str = "a cat", **more: Any) -> Pixels:
    return pixels(painted(model, wanted(prompt, **more))[0])


def differs(one: Pixels, other: Pixels) -> bool:
    return one.shape != other.shape or not np.array_equal(one, other)


def rounded(one: Pixels, other: Pixels) -> bool:
    """Whether they are the same but for how numbers were rounded on the way."""
    far = np.abs(one.astype(int) - other.astype(int))
    return bool(far.max() <= 1 and (far > 0).mean() < 0.01)


class Watched:
    """A `Step` that keeps what it is told, and whose callers leave after so many steps."""

    threads = 1

    def __init__(self, leave_after: dict[int, int] | None = None) -> None:
        self.told: list[tuple[int, int, int]] = []
        self.steps = 0
        self._leave_after = leave_after or {}

    def emit(self, i: int, chunk: Any) -> None:
        raise AssertionError

    def progress(self, i: int, done: int, total: int) -> None:
        self.told.append((i, done, total))

    def cancelled(self, i: int) -> bool:
        if i == 0:
            self.steps += 1
        return i in self._leave_after and self.steps > self._leave_after[i]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_gives_the_same_picture_alone_and_among_others(painter: Make, family: str) -> None:
    model = painter(family)
    alone = [paint(model, "a cat", seed=7), paint(model, "a dog", seed=8)]
    assert alone[0].shape == (64, 64, 3)
    assert not differs(paint(model, "a cat", seed=7), alone[0])
    together = painted(model, wanted("a cat", seed=7), wanted("a dog", seed=8), wanted("a cat", seed=9))
    assert [picture.seed for picture in together] == [7, 8, 9]
    assert rounded(pixels(together[0]), alone[0])
    assert rounded(pixels(together[1]), alone[1])
    assert not rounded(pixels(together[2]), alone[0])
    assert not rounded(alone[0], alone[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_everything_that_is_asked_for_changes_the_picture(painter: Make, family: str) -> None:
    model = painter(family)
    before = paint(model)
    assert np.unique(before).size > 20
    assert differs(paint(model, "a dog"), before)
    assert differs(paint(model, num_inference_steps=4), before)
    assert differs(paint(model, guidance_scale=9.0), before)
    if family != "flux":
        assert differs(paint(model, negative_prompt="a dog"), before)
        assert differs(paint(model, negative_prompt="a cow"), paint(model, negative_prompt="a dog"))


@pytest.mark.parametrize(
    ("family", "steps", "guidance", "limit"),
    [("sdxl", 30, 7.5, None), ("flux", 28, 3.5, 512), ("hunyuan", 50, 5.0, None), ("schnell", 4, None, 256)],
)
def test_what_is_not_asked_for_is_as_its_makers_recommend(
    painter: Make, family: str, steps: int, guidance: float | None, limit: int | None
) -> None:
    (item,) = painter(family).prepare(ImageGeneration(prompt="a cat"))
    key = item.key
    assert (key.width, key.height, key.steps, key.guidance) == (1024, 1024, steps, guidance)
    assert key.max_sequence_length == limit
    assert item.cost == 1024 * 1024


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_have_the_size_that_was_asked_for(painter: Make, family: str) -> None:
    (picture,) = painted(painter(family), wanted(width=96, height=32))
    assert (picture.width, picture.height) == (96, 32)
    assert pixels(picture).shape == (32, 96, 3)


@pytest.mark.parametrize(("family", "multiple"), [("sdxl", 8), ("flux", 16), ("hunyuan", 16)])
def test_a_size_that_the_model_cannot_make_is_refused_with_the_nearest(
    painter: Make, family: str, multiple: int
) -> None:
    model = painter(family)
    for field in ("width", "height"):
        with pytest.raises(InvalidInput, match=f"`{field}` must be a multiple of {multiple}") as caught:
            model.prepare(wanted("a cat", **{field: 1000 + multiple // 4}))
        assert caught.value.field == field
        assert caught.value.hint == f"the nearest is {1000 // multiple * multiple}".replace("992", "1008")
    assert model.prepare(wanted(width=512 + multiple))


def test_several_images_of_a_prompt_have_seeds_in_a_row(painter: Make) -> None:
    model = painter("sdxl")
    (pictures,) = painted(model, wanted(num_images_per_prompt=3))
    assert [picture.seed for picture in pictures] == [7, 8, 9]
    assert [picture.image.name for picture in pictures] == ["image-1.png", "image-2.png", "image-3.png"]
    assert rounded(pixels(pictures[1]), paint(model, seed=8))
    last = 2**32 - 2
    assert [item.payload.seed for item in model.prepare(wanted(seed=last, num_images_per_prompt=2))] == [
        last,
        0,
    ]


def test_without_a_seed_each_picture_is_new_and_tells_the_seed_that_gives_it_again(painter: Make) -> None:
    model = painter("sdxl")
    one, other = (painted(model, wanted(seed=None))[0] for _ in range(2))
    assert one.seed != other.seed
    assert differs(pixels(one), pixels(other))
    assert not differs(paint(model, seed=one.seed), pixels(one))


@pytest.mark.parametrize("family", FAMILIES)
def test_each_step_is_told_to_everybody_in_the_batch(painter: Make, family: str) -> None:
    step = Watched()
    painted(painter(family), wanted(seed=1), wanted(seed=2), step=step)
    assert step.told == [(i, done, 3) for done in (1, 2, 3) for i in (0, 1)]


def test_the_steps_of_all_images_of_a_request_are_counted_together(painter: Make) -> None:
    model, request = painter("sdxl"), wanted(num_images_per_prompt=2)
    items, told = model.prepare(request), list[tuple[int, int, int]]()
    for item in items:  # in two passes, where a batch is full
        step = Watched()
        model.forward([item], step)
        told += step.told
    assert told == [(0, done, 6) for done in range(1, 7)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_that_nobody_waits_for_ends_within_a_step(painter: Make, family: str) -> None:
    model, step = painter(family), Watched({0: 2, 1: 1})
    before = paint(model)
    with pytest.raises(Cancelled):
        painted(model, wanted(num_inference_steps=50, seed=1), wanted(num_inference_steps=50), step=step)
    assert step.steps == 3
    assert step.told == [(0, 1, 50), (1, 1, 50), (0, 2, 50)]
    assert not differs(paint(model), before)


def test_one_who_waits_gets_the_picture_when_the_others_are_gone(painter: Make) -> None:
    model = painter("sdxl")
    raws = model.forward(model.prepare(wanted(seed=1)) + model.prepare(wanted()), Watched({0: 0}))
    assert rounded(np.asarray(raws[1].image), paint(model))


@pytest.mark.parametrize(
    "other",
    [
        {"width": 32},
        {"num_inference_steps": 4},
        {"guidance_scale": 2.0},
        {"negative_prompt": "x"},
        {"num_inference_steps": 4, "guidance_scale": 2.0},
    ],
)
def test_only_what_is_computed_alike_shares_a_batch(painter: Make, other: dict[str, Any]) -> None:
    model = painter("sdxl")
    (one,), (two,) = model.prepare(wanted()), model.prepare(wanted(**other))
    assert one.key != two.key
    (same,) = model.prepare(wanted("something else", seed=None))
    assert one.key == same.key
    assert hash(one.key) == hash(same.key)


def test_negative_prompts_share_a_batch(painter: Make) -> None:
    model = painter("hunyuan")
    one, other = painted(model, wanted(negative_prompt="a dog"), wanted(negative_prompt="a cow"))
    assert rounded(pixels(one), paint(model, negative_prompt="a dog"))
    assert rounded(pixels(other), paint(model, negative_prompt="a cow"))


@pytest.mark.cpu
def test_a_file_says_how_much_is_computed_at_once(base: Callable[[str], Path], painter: Make) -> None:
    assert painter("sdxl").budget()[0] == 1  # on a CPU
    rows, most = loaded(base("sdxl"), batch_size=2).budget()
    assert rows == 2
    assert most > 2 * 8192 * 8192


@pytest.mark.parametrize(
    ("family", "given", "field", "said"),
    [
        ("flux", {"negative_prompt": "a dog"}, "negative_prompt", "cannot be used with `flux`"),
        ("sdxl", {"negative_prompt": "x", "guidance_scale": 1.0}, "negative_prompt", "without guidance"),
        ("sdxl", {"max_sequence_length": 77}, "max_sequence_length", "is for `flux` only"),
        ("hunyuan", {"max_sequence_length": 77}, "max_sequence_length", "is for `flux` only"),
        ("flux", {"max_sequence_length": 513}, "max_sequence_length", "is 513, and 512 is the most"),
        ("schnell", {"guidance_scale": 3.5}, "guidance_scale", "was distilled"),
        ("sdxl", {"adapters": {"ink": 1.0}}, "adapters", "there is no adapter `ink`; there are: none"),
    ],
)
def test_what_a_model_would_ignore_is_refused(
    painter: Make, family: str, given: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        painter(family).prepare(wanted(**given))
    assert caught.value.field == field


def test_a_guidance_of_none_is_what_a_distilled_model_has(painter: Make) -> None:
    model = painter("schnell")
    assert not differs(paint(model, guidance_scale=0.0), paint(model))


@pytest.mark.parametrize(
    ("family", "more", "words", "limit"),
    # A word is a token of CLIP's here, and two of T5's; one more ends a text, and of CLIP's one begins it.
    [("sdxl", {}, 75, 77), ("flux", {"max_sequence_length": 21}, 10, 21), ("hunyuan", {}, 127, 256)],
)
def test_a_prompt_that_would_be_cut_is_refused_with_both_numbers(
    painter: Make, family: str, more: dict[str, Any], words: int, limit: int
) -> None:
    model = painter(family)
    assert model.prepare(wanted("a " * words, **more))
    with pytest.raises(RequestTooLong) as caught:
        model.prepare(wanted("a " * (words + 1), **more))
    assert (caught.value.limit, caught.value.field) == (limit, "prompt")
    assert caught.value.size > limit
    if family != "flux":
        with pytest.raises(RequestTooLong) as caught:
            model.prepare(wanted(negative_prompt="a " * (words + 1), **more))
        assert caught.value.field == "negative_prompt"


@pytest.mark.parametrize(
    ("more", "kind", "begins"),
    [
        ({}, "image/png", b"\x89PNG"),
        ({"output_format": "jpeg", "output_quality": 80}, "image/jpeg", b"\xff\xd8"),
        ({"output_format": "webp"}, "image/webp", b"RIFF"),
    ],
)
def test_a_picture_is_written_as_asked_for(
    painter: Make, more: dict[str, Any], kind: str, begins: bytes
) -> None:
    (picture,) = painted(painter("sdxl"), wanted(**more))
    assert (picture.image.media_type, picture.image.data[: len(begins)]) == (kind, begins)
    assert pixels(picture).shape == (64, 64, 3)


# Adapters


def test_adapters_change_the_picture_by_their_weights_and_0_is_the_base(
    base: Callable[[str], Path], painter: Make
) -> None:
    adapters = {"x": (base("lora-x"), 0.5), "y.2": (base("lora-y"), 0.0)}
    model, plain = loaded(base("sdxl"), adapters=adapters), paint(painter("sdxl"))
    blends: list[dict[str, float] | None] = [None, {}, {"x": 1.0}, {"y.2": 1.0}, {"x": 1.0, "y.2": 1.0}]
    default, none, x, y, both = (paint(model, adapters=blend) for blend in blends)
    assert not differs(none, plain)
    assert not differs(paint(model, adapters={"x": 0.0, "y.2": 0.0}), plain)
    assert not differs(paint(model, adapters={"x": 0.5}), default)
    for one, other in itertools.combinations((plain, default, x, y, both), 2):
        assert differs(one, other)
    assert not differs(paint(model, adapters={"y.2": 1.0}), y)
    with pytest.raises(InvalidInput, match=r"there is no adapter `z`; there are: `x`, `y\.2`"):
        model.prepare(wanted(adapters={"z": 1.0}))
    assert model.prepare(wanted(adapters={"x": 0.5}))[0].key == model.prepare(wanted())[0].key
    assert model.prepare(wanted(adapters={"x": 0.6}))[0].key != model.prepare(wanted())[0].key


def test_two_adapters_are_the_exact_sum_of_what_they_add(base: Callable[[str], Path]) -> None:
    import torch
    from safetensors.torch import load_file

    adapters = {"x": (base("lora-x"), 1.0), "y": (base("lora-y"), 1.0)}
    model = loaded(base("sdxl"), adapters=adapters)
    model.forward(model.prepare(wanted(adapters={"x": 0.7, "y": -0.3})), Alone(1))
    path = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    layer = model._pipeline.pipe.unet.get_submodule(path)
    expected = layer.base_layer.weight.detach().clone()
    for name, weight in (("x", 0.7), ("y", -0.3)):
        saved = load_file(base(f"lora-{name}") / "pytorch_lora_weights.safetensors", str(expected.device))
        up, down = (saved[f"unet.{path}.lora_{half}.weight"] for half in "BA")
        expected += weight * 2 * (up @ down)
    found = layer(torch.eye(layer.in_features, device=expected.device)).T
    assert torch.allclose(found, expected, atol=1e-5)


def test_flux_takes_adapters_too(base: Callable[[str], Path], painter: Make) -> None:
    model = loaded(base("flux"), adapters={"x": (base("lora-flux"), 1.0)})
    assert differs(paint(model), paint(painter("flux")))
    assert not differs(paint(model, adapters={"x": 0.0}), paint(painter("flux")))


def test_an_adapter_may_be_named_by_its_file(base: Callable[[str], Path], tmp_path: Path) -> None:
    file = tmp_path / "ink.safetensors"
    shutil.copyfile(base("lora-x") / "pytorch_lora_weights.safetensors", file)
    by_file = loaded(base("sdxl"), adapters={"x": (file, 1.0)})
    by_folder = loaded(base("sdxl"), adapters={"x": (base("lora-x"), 1.0)})
    assert not differs(paint(by_file), paint(by_folder))


def test_an_adapter_of_another_model_is_refused(base: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"adapter `x`.* fits 0 of the 4 layers"):
        loaded(base("sdxl"), adapters={"x": (base("lora-flux"), 1.0)})
    with pytest.raises(ModelLoadError, match="diffusers cannot add LoRA adapters to `hunyuan`"):
        loaded(base("hunyuan"), adapters={"x": (base("lora-x"), 1.0)})
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ModelLoadError, match=r"adapter `x`.* has no weights"):
        loaded(base("sdxl"), adapters={"x": (empty, 1.0)})
    (empty / "pytorch_lora_weights.bin").write_bytes(b"code")
    with pytest.raises(ModelLoadError, match="may hold code and is not read"):
        loaded(base("sdxl"), adapters={"x": (empty, 1.0)})


def test_an_adapter_that_fits_in_part_is_refused(base: Callable[[str], Path], tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(base("lora-x") / "pytorch_lora_weights.safetensors")
    for half in "AB":
        some = next(weights[name] for name in weights if f"lora_{half}" in name)
        weights[f"unet.no_such_block.to_q.lora_{half}.weight"] = some
    save_file(weights, tmp_path / "part.safetensors")
    with pytest.raises(ModelLoadError, match=r"fits 16 of the 17 layers"):
        loaded(base("sdxl"), adapters={"x": (tmp_path / "part.safetensors", 1.0)})


# Loading


def changed(folder: Path, to: Path, **index: Any) -> Path:
    """A copy of a pipeline whose index says something else."""
    shutil.copytree(folder, to)
    told = json.loads((to / "model_index.json").read_text())
    (to / "model_index.json").write_text(json.dumps({**told, **index}))
    return to


def test_a_family_that_is_named_must_be_the_one_in_the_folder(base: Callable[[str], Path]) -> None:
    assert loaded(base("sdxl"), architecture="sdxl")
    assert loaded(base("sdxl"), architecture="auto")
    with pytest.raises(ModelLoadError, match="is of family `sdxl`, and the file says `flux`"):
        loaded(base("sdxl"), architecture="flux")


def test_what_is_no_pipeline_that_we_know_is_refused(base: Callable[[str], Path], tmp_path: Path) -> None:
    other = changed(base("sdxl"), tmp_path / "other", _class_name="StableDiffusionPipeline")
    with pytest.raises(ModelLoadError, match="is a `StableDiffusionPipeline`, which is not supported"):
        loaded(other)
    with pytest.raises(ModelLoadError, match=r"it has no `model_index\.json`"):
        loaded(base("sdxl") / "unet")
    file = base("sdxl") / "unet" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(ModelLoadError, match="is not the folder"):
        loaded(file)
    (other / "model_index.json").write_text("[]")
    with pytest.raises(ModelLoadError, match="cannot be read"):
        loaded(other)


def test_code_of_others_is_not_run(base: Callable[[str], Path], tmp_path: Path) -> None:
    foreign = changed(base("sdxl"), tmp_path / "foreign", unet=["my_unet", "MyUNet"])
    (foreign / "unet" / "my_unet.py").write_text("raise AssertionError('it was run')")
    with pytest.raises(ModelLoadError, match="the `unet` of `foreign` is a `MyUNet` of `my_unet`"):
        loaded(foreign)
    custom = changed(base("sdxl"), tmp_path / "custom", _class_name=["my_pipeline", "MyPipeline"])
    with pytest.raises(ModelLoadError, match="which is not supported"):
        loaded(custom)


def test_weights_that_are_missing_are_not_replaced_by_random_ones(
    base: Callable[[str], Path], tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    for part, name in (("unet", "diffusion_pytorch_model"), ("text_encoder_2", "model")):
        folder = changed(base("sdxl"), tmp_path / part)
        file = folder / part / f"{name}.safetensors"
        weights = load_file(file)
        gone = sorted(weights)[3]
        del weights[gone]
        save_file(weights, file, metadata={"format": "pt"})
        with pytest.raises(ModelLoadError, match=f"the `{part}` of `{part}` has no weights for `{gone}`"):
            loaded(folder)


def test_only_safetensors_are_read(base: Callable[[str], Path], tmp_path: Path) -> None:
    folder = changed(base("sdxl"), tmp_path / "pickled")
    file = folder / "vae" / "diffusion_pytorch_model.safetensors"
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(ModelLoadError, match="the `vae` of `pickled` cannot be loaded"):
        loaded(folder)


def test_weights_of_half_precision_have_a_name_of_their_own(
    base: Callable[[str], Path], painter: Make, tmp_path: Path
) -> None:
    folder = changed(base("sdxl"), tmp_path / "halves")
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        (file,) = (folder / part).glob("*.safetensors")
        file.rename(file.with_suffix(".fp16.safetensors"))
    assert not differs(paint(loaded(folder)), paint(painter("sdxl")))


@pytest.fixture
def other_chance_of_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CPUs with AVX-512: a seed gives other numbers of 16 bits than of 32."""
    import torch

    draw = torch.randn

    def drawn(*args: Any, dtype: Any = None, **kwargs: Any) -> Any:
        found = draw(*args, dtype=dtype, **kwargs)
        return found if dtype == torch.float32 else -found

    monkeypatch.setattr(torch, "randn", drawn)


@pytest.mark.usefixtures("other_chance_of_16_bits")
@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_paints_much_the_same(base: Callable[[str], Path], painter: Make, family: str) -> None:
    model = loaded(base(family), precision="bfloat16")
    assert model._pipeline.details["precision"] == "bfloat16"
    exact, near = paint(painter(family)).astype(int), paint(model).astype(int)
    assert 0 < np.abs(exact - near).mean() < 12


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_quantized_denoiser_paints_much_the_same(
    base: Callable[[str], Path], painter: Make, kind: Any
) -> None:
    model = loaded(base("flux"), quantization=Quantization(type=kind))
    assert model._pipeline.details["quantization"].startswith(f"transformer: {kind}")
    exact, near = paint(painter("flux")).astype(int), paint(model).astype(int)
    assert 0 < np.abs(exact - near).mean() < 12


def test_savers_of_memory_are_options(base: Callable[[str], Path], painter: Make) -> None:
    sliced = loaded(base("sdxl"), options={"vae_slicing": True})
    together = painted(sliced, wanted(seed=7), wanted(seed=8))
    assert rounded(pixels(together[1]), paint(painter("sdxl"), seed=8))
    tiled = loaded(base("sdxl"), options={"vae_tiling": True})
    assert not differs(paint(tiled), paint(painter("sdxl")))  # one tile is all of it
    large: dict[str, Any] = {"width": 256, "height": 192}
    whole, tiles = paint(painter("sdxl"), **large).astype(int), paint(tiled, **large).astype(int)
    assert 0 < np.abs(whole - tiles).mean() < 12


@pytest.mark.cpu
@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"options": {"cpu_offload": True}}, "`cpu_offload` is for a GPU"),
        ({"options": {"attention": "eager"}}, r"`options\.attention` does not go with"),
        ({"options": {"trust_remote_code": True}}, r"`options\.trust_remote_code` does not go with"),
        ({"quantization": Quantization(type="nf4")}, "`nf4` of an image model needs a GPU"),
        ({"max_seq_length": 77}, "`max_seq_length` does not go with"),
        ({"fast_tokenizer": False}, "has fast tokenizers only"),
        ({"device": "cuda:9"}, "there is no device `cuda:9` here"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_loaded(
    base: Callable[[str], Path], more: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelLoadError, match=said):
        loaded(base("sdxl"), **more)


@pytest.mark.cpu
def test_adapters_do_not_go_with_layers_of_integers(base: Callable[[str], Path]) -> None:
    with pytest.raises(ModelLoadError, match="`peft_adapters` do not go with `int8` on `cpu`"):
        loaded(base("sdxl"), quantization=Quantization(type="int8"), adapters={"x": (base("lora-x"), 1.0)})


def test_it_warms_up_where_the_file_says_so(base: Callable[[str], Path]) -> None:
    stages = list[tuple[str, int, int]]()
    Painter().load(
        load_options(base("sdxl"), "image-generation", warmup=True),
        lambda stage, done, total: stages.append((stage, done, total)),
    )
    assert stages[0] == ("weights", 0, 7)
    assert stages[-3:] == [("weights", 7, 7), ("warm-up", 0, 1), ("warm-up", 1, 1)]


def test_memory_that_runs_out_is_told_with_what_helps(
    base: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(base("sdxl"))
    before = paint(model)

    def out(*_: Any, **__: Any) -> Any:
        model._pipeline.pipe.vae.double()
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    with monkeypatch.context() as patched:
        patched.setattr(model._pipeline.pipe.vae, "decode", out)
        with pytest.raises(OutOfMemory, match="out of memory on `cpu`") as caught:
            paint(model)
    assert "vae_tiling" in (caught.value.hint or "")
    assert not differs(paint(model), before)


@pytest.mark.cpu
def test_the_weights_of_all_parts_are_counted(base: Callable[[str], Path]) -> None:
    from safetensors.numpy import load_file

    numbers = sum(
        array.size for file in base("sdxl").glob("*/*.safetensors") for array in load_file(file).values()
    )
    options = load_options(base("sdxl"), "image-generation")
    assert estimate(options) == {"host": 4 * numbers + PROCESS_BYTES}


# Over HTTP


async def test_the_steps_of_a_run_are_events(base: Callable[[str], Path], tmp_path: Path) -> None:
    text = f"""
controller: {{port: 0}}
threads: 1
component:
  id: painter
  type: model
  task: image-generation
  model: {base("sdxl")}
  device: cpu
  runtime: embedded
  width: 64
  height: 64
  num_inference_steps: ${{input.steps as integer | 3}}
  prompt: ${{input.prompt}}
"""
    async with serving(text, tmp_path) as service:
        begun = await service.run({"prompt": "a cat", "steps": 40}, wait_for_completion=False)
        task = begun.json()["task_id"]
        events = parse_events((await service.client.get(f"/api/tasks/{task}/events")).text)
        steps = [data for name, data in events if name == "progress"]
        assert steps[-1] == {"done": 40, "total": 40}
        assert [step["done"] for step in steps] == sorted({step["done"] for step in steps})
        name, record = events[-1]
        assert (name, record["status"]) == ("end", "completed")
        assert record["output"].startswith("data:image/png;base64,")
        image = await service.run({"prompt": "a cat"}, output_only=True)
        assert image.headers["content-type"] == "image/png"
        assert image.content.startswith(b"\x89PNG")
