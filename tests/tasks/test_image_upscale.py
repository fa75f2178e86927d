"""image-upscale: tiles, networks that spandrel reads, and latent diffusion.

The real network is the smallest Real-ESRGAN; what others are like is seen of random ones.
"""

from __future__ import annotations

import importlib
import io
import itertools
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from tests import models
from tests.tasks.batches import load_options, started

from model_compose.drivers.alone import Alone
from model_compose.errors import Cancelled, InvalidInput, ModelComposeError, ModelLoadError
from model_compose.tasks.image_upscale import canvas as canvases
from model_compose.tasks.image_upscale import passing
from model_compose.tasks.image_upscale.checkpoint import weights_file
from model_compose.tasks.image_upscale.latent import LatentUpscaler
from model_compose.tasks.image_upscale.network import Upscaler
from model_compose.tasks.image_upscale.parts import Part
from model_compose.tasks.image_upscale.spec import ImageUpscale
from model_compose.tasks.image_upscale.tiles import divide
from model_compose.tasks.image_upscale.torchvision_absent import import_spandrel
from model_compose.types import Blob

SIDES = st.integers(1, 300)

# What spandrel makes its own SwinIR with.
pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid")


class Watcher(Alone):
    """A `Step` that keeps what it is told, and whose callers go away after so many reports."""

    def __init__(self, patience: int | None = None) -> None:
        super().__init__(1)
        self.told: list[tuple[int, int, int]] = []
        self._patience = patience

    def progress(self, i: int, done: int, total: int) -> None:
        self.told.append((i, done, total))

    def cancelled(self, i: int) -> bool:
        return len(self.told) == self._patience


def options(path: Path, architecture: str | None = None, **more: Any) -> Any:
    return load_options(path, "image-upscale", architecture=architecture, **more)


def blob(image: Image.Image) -> Blob:
    out = io.BytesIO()
    image.save(out, "png")
    return Blob("image/png", out.getvalue())


def opened(found: Any) -> Image.Image:
    return Image.open(io.BytesIO(found.image.data))


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Shapes of several sizes, in every channel others."""
    chance = np.random.default_rng(seed)
    channels = len(Image.new(mode, (1, 1)).getbands())
    rough = chance.random((channels, -(-height // 6), -(-width // 6))).repeat(6, 1).repeat(6, 2)
    pixels = (rough[:, :height, :width] + chance.random((channels, height, width)) / 3) / 4 * 3
    if mode == "I;16":
        return Image.fromarray((pixels[0] * 65535).astype(np.uint16))
    bands = [Image.fromarray((band * 255).astype(np.uint8)) for band in pixels]
    return bands[0] if mode == "L" else Image.merge(mode, bands)


def results(model: Any, requests: Sequence[ImageUpscale], step: Any = None) -> list[Any]:
    """What requests that wait together give: rows of one key share passes."""
    items = [(i, item) for i, each in enumerate(requests) for item in model.prepare(each)]
    raws: dict[int, list[Any]] = {i: [] for i in range(len(requests))}
    most, _ = model.budget()
    for _, same in itertools.groupby(
        sorted(items, key=lambda each: str(each[1].key)), lambda each: each[1].key
    ):
        for rows in _batches(list(same), most):
            found = model.forward([item for _, item in rows], step or Alone(1))
            for (i, _), raw in zip(rows, found, strict=True):
                raws[i].append(raw)
    return [model.finish(each, raws[i]).result for i, each in enumerate(requests)]


def _batches(rows: list[Any], most: int) -> Iterable[list[Any]]:
    return (rows[i : i + most] for i in range(0, len(rows), most))


def upscaled(model: Any, image: Image.Image, **more: Any) -> Image.Image:
    (found,) = results(model, [ImageUpscale(image=blob(image), **more)])
    grown = opened(found)
    assert grown.size == (found.width, found.height)
    return grown


def numbers(image: Image.Image) -> NDArray[np.float64]:
    return np.asarray(image).astype(np.float64)


def apart(one: Image.Image, other: Image.Image) -> tuple[float, float]:
    """Mean and largest difference."""
    differ = np.abs(numbers(one) - numbers(other))
    return float(differ.mean()), float(differ.max())


# Tiles


@given(
    height=SIDES,
    width=SIDES,
    tile=st.integers(0, 64),
    pad=st.integers(0, 40),
    multiple=st.sampled_from([1, 2, 4, 8, 12]),
    minimum=st.sampled_from([1, 2, 16]),
    scale=st.sampled_from([1, 2, 3, 4]),
)
def test_tiles_cover_every_pixel_and_their_weights_add_up_to_1(
    height: int, width: int, tile: int, pad: int, multiple: int, minimum: int, scale: int
) -> None:
    grid = divide(height, width, tile, pad, multiple=multiple, minimum=minimum)
    for axis, side in ((grid.down, height), (grid.across, width)):
        assert side <= axis.length < max(side, minimum) + multiple
        assert axis.size >= minimum
        assert all(each % multiple == 0 for each in (axis.size, *axis.starts))
        total = np.zeros(axis.length * scale)
        for i, start in enumerate(axis.starts):
            total[start * scale : (start + axis.size) * scale] += axis.weights(i, scale)
        assert total == pytest.approx(1, abs=1e-5)


@given(
    height=SIDES,
    width=SIDES,
    tile=st.integers(16, 64),
    pad=st.integers(0, 40),
    level=st.integers(0, 255),
)
def test_tiles_of_one_level_add_up_to_that_level(
    height: int, width: int, tile: int, pad: int, level: int
) -> None:
    original = canvases.Original.of(Image.new("L", (width, height)))
    grid = divide(height, width, tile, pad)
    canvas = canvases.Canvas(original, 1, original.size)
    for each in grid.tiles():
        part = Part(canvas, grid, each)
        even = np.full((1, grid.down.size, grid.across.size), level / 255, np.float32)
        part.add(canvases.in_16_bits(even, part.weights(1)), 1)
    assert set(np.asarray(canvas.picture()).flat) == {level}


@given(length=st.integers(20, 400), tile=st.integers(16, 64), pad=st.integers(0, 40))
def test_near_its_cut_edge_a_tile_does_not_count(length: int, tile: int, pad: int) -> None:
    axis = divide(length, 1, tile, pad).down
    for i, (before, after) in enumerate(itertools.pairwise(axis.starts), 1):
        assert before + axis.size - after >= 2 * pad
        near = pad // 2
        assert not axis.weights(i, 1)[:near].any()
        assert not axis.weights(i - 1, 1)[axis.size - near :].any()


def test_tiles_are_as_many_as_needed_and_no_larger_than_they_must_be() -> None:
    axis = divide(512, 1, 400, 20).down
    assert (axis.starts, axis.size) == ((0, 236), 276)
    assert divide(440, 1, 400, 20).down.starts == (0,)
    assert len(divide(441, 1, 400, 20)) == 2
    assert len(divide(5000, 5000, 0, 20)) == 1


@given(height=SIDES, width=SIDES, multiple=st.sampled_from([1, 8]), channels=st.sampled_from([1, 3]))
def test_beyond_the_picture_it_is_reflected(height: int, width: int, multiple: int, channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, channels))
    grid = divide(height, width, 40, 5, multiple=multiple, minimum=16)
    whole = np.pad(
        pixels, ((0, grid.down.length - height), (0, grid.across.length - width), (0, 0)), mode="reflect"
    )
    for tile in grid.tiles():
        expected = whole[tile.top : tile.top + grid.down.size, tile.left : tile.left + grid.across.size]
        assert np.array_equal(grid.part(pixels, tile), expected)


# Random networks


def architecture(name: str) -> Any:
    """The class of a network of spandrel."""
    import_spandrel()
    return getattr(importlib.import_module(f"spandrel.architectures.{name}"), name)


def esrgan(folder: Path, name: str = "x2.pth", **more: Any) -> Path:
    """A tiny ESRGAN as it is published, with random weights."""
    esrgan_class = architecture("ESRGAN")
    torch.manual_seed(0)
    torch.save(
        esrgan_class(**{"scale": 2, "num_filters": 8, "num_blocks": 2, **more}).state_dict(), folder / name
    )
    return folder / name


def swinir(folder: Path, name: str = "swinir.pth") -> Path:
    """A tiny SwinIR with random weights whose attention makes a difference."""
    swinir_class = architecture("SwinIR")
    torch.manual_seed(0)
    network = swinir_class(
        upscale=2,
        img_size=16,
        window_size=8,
        depths=[2, 2],
        embed_dim=12,
        num_heads=[2, 2],
        mlp_ratio=2,
        upsampler="pixelshuffledirect",
    )
    with torch.no_grad():
        for parameter in network.layers.parameters():
            parameter.mul_(4)
    torch.save({"params": network.state_dict()}, folder / name)
    return folder / name


def compact(folder: Path, name: str = "compact.pth") -> Path:
    compact_class = architecture("Compact")
    torch.manual_seed(0)
    torch.save({"params_ema": compact_class(num_feat=8, num_conv=2, upscale=2).state_dict()}, folder / name)
    return folder / name


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return started(Upscaler(), options(esrgan(tmp_path_factory.mktemp("esrgan")), batch_size=4))


@pytest.mark.parametrize(
    ("make", "families"),
    [(esrgan, ("esrgan", "real-esrgan")), (swinir, ("swinir",)), (compact, ("real-esrgan",))],
)
def test_a_network_is_told_by_its_weights_and_must_be_what_the_file_says(
    make: Any, families: tuple[str, ...], tmp_path: Path
) -> None:
    path = make(tmp_path)
    for family in ("real-esrgan", "esrgan", "swinir"):
        if family in families:
            assert started(Upscaler(), options(path, family)).budget()
            continue
        with pytest.raises(ModelLoadError, match=f"type `.*`, and not of `{family}`") as caught:
            started(Upscaler(), options(path, family))
        assert caught.value.hint is not None
        assert any(f": {right}`" in caught.value.hint for right in families)


@pytest.mark.parametrize("make", [esrgan, swinir, compact])
@pytest.mark.parametrize("size", [(53, 41), (64, 48), (1, 1), (9, 70)])
def test_in_one_tile_it_is_what_the_network_gives(make: Any, size: tuple[int, int], tmp_path: Path) -> None:
    path = make(tmp_path)
    image = picture(*size)
    network = import_spandrel().ModelLoader().load_from_file(path)
    given = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    expected = (network(given)[0].permute(1, 2, 0).numpy() * 255).round()
    found = upscaled(started(Upscaler(), options(path)), image, tile_size=0)
    assert np.abs(numbers(found) - expected).max() <= 1
    assert (numbers(found) != expected).mean() < 0.01


@pytest.mark.parametrize("make", [esrgan, swinir, compact])
def test_tiles_of_a_random_network_cannot_be_seen(make: Any, tmp_path: Path) -> None:
    model = started(Upscaler(), options(make(tmp_path)))
    image = picture(150, 133)
    whole = upscaled(model, image, tile_size=0)
    mean, most = apart(upscaled(model, image, tile_size=32), whole)
    assert most <= 2
    assert mean < 0.05
    # Without an overlap they can.
    assert apart(upscaled(model, image, tile_size=32, tile_pad_size=0), whole)[1] > 2


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_a_picture_keeps_its_channels(small: Any, mode: str) -> None:
    image = picture(60, 50, mode)
    found = upscaled(small, image, tile_size=32)
    assert (found.mode, found.size) == (mode, (120, 100))
    if "A" in mode:
        alpha = image.getchannel("A").resize(found.size, Image.Resampling.LANCZOS)
        assert np.array_equal(numbers(found.getchannel("A")), numbers(alpha))


def test_grey_is_what_equal_colours_give_and_16_bits_stay(small: Any) -> None:
    grey = picture(60, 50, "L")
    found = numbers(upscaled(small, grey))
    coloured = numbers(upscaled(small, grey.convert("RGB"))).mean(2)
    assert np.abs(found - coloured).max() <= 1
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    deeper = numbers(upscaled(small, deep))
    assert np.abs(deeper / 257 - found).max() <= 0.51
    assert len(np.unique(deeper)) > 1000


@pytest.mark.parametrize("mode", ["RGBA", "I;16"])
@pytest.mark.parametrize(("scale", "size"), [(1.5, (60, 51)), (3, (120, 102)), (0.01, (1, 1)), (2, (80, 68))])
def test_another_factor_is_reached_by_resizing(
    small: Any, mode: str, scale: float, size: tuple[int, int]
) -> None:
    found = upscaled(small, picture(40, 34, mode), scale=scale)
    assert (found.size, found.mode) == (size, mode)


def test_resized_is_what_lanczos_makes_of_the_networks_picture(small: Any) -> None:
    image = picture(40, 34)
    expected = upscaled(small, image).resize((120, 102), Image.Resampling.LANCZOS)
    assert apart(upscaled(small, image, scale=3), expected)[1] == 0


def test_callers_share_passes_and_get_what_they_get_alone(small: Any) -> None:
    images = [picture(60, 50, seed=i) for i in range(3)] + [picture(50, 60), picture(60, 50, "I;16")]
    before = small.metrics()
    found = results(small, [ImageUpscale(image=blob(each), tile_size=32) for each in images])
    after = small.metrics()
    tiles, passes = after["rows"] - before["rows"], after["batches"] - before["batches"]
    assert tiles == 5 * 4
    assert passes == 4 + 1
    for image, each in zip(images, found, strict=True):
        assert apart(opened(each), upscaled(small, image, tile_size=32))[1] <= (
            257 if image.mode == "I;16" else 1
        )


def test_progress_counts_the_tiles_of_a_picture(small: Any) -> None:
    step = Watcher()
    results(small, [ImageUpscale(image=blob(picture(90, 20)), tile_size=32)], step)
    assert [(done, total) for _, done, total in step.told] == [(1, 3), (2, 3), (3, 3)]


def test_a_tile_that_nobody_waits_for_is_not_computed(small: Any) -> None:
    before = small.metrics()["batches"]
    items = small.prepare(ImageUpscale(image=blob(picture(60, 50)), tile_size=32))
    small.forward(items, Watcher(patience=0))
    assert small.metrics()["batches"] == before


def test_a_tile_that_is_computed_twice_counts_once(small: Any) -> None:
    request = ImageUpscale(image=blob(picture(60, 50)), tile_size=32)
    expected = opened(results(small, [request])[0])
    items = small.prepare(request)
    small.forward(items[:2], Alone(1))
    raws = small.forward(items, Alone(1))
    assert apart(opened(small.finish(request, raws).result), expected)[1] == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tile_size": 3}, "`tile_size` is 3, and 16 is the least"),
        ({"tile_size": 20, "tile_pad_size": 41}, "would compute little but their overlaps"),
        ({"num_inference_steps": 5}, "`num_inference_steps` belongs to `ldsr`"),
        ({"eta": 0.0}, "`eta` belongs to `ldsr`"),
        ({"seed": 1}, "`seed` belongs to `ldsr`"),
        ({"scale": 1e9}, "are more than 256,000,000"),
        ({"scale": float("inf")}, "are more than 256,000,000"),
    ],
)
def test_what_a_network_cannot_do_is_refused(small: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        small.prepare(ImageUpscale(image=blob(picture(60, 50)), **given))
    assert caught.value.field == list(given)[-1]


def test_pictures_too_large_are_refused_before_anything_is_computed(
    small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(canvases, "MOST_OUTPUT_PIXELS", 60 * 50 * 4)
    small.prepare(ImageUpscale(image=blob(picture(60, 50))))
    with pytest.raises(InvalidInput, match="61 x 50 pixels, 2 times as wide and high") as caught:
        small.prepare(ImageUpscale(image=blob(picture(61, 50)), scale=1))
    assert caught.value.field == "image"


def test_too_many_tiles_are_refused(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_compose.tasks.image_upscale.parts._MOST_TILES", 8)
    with pytest.raises(InvalidInput, match="90 x 80 pixels are 9 tiles, and 8 are the most"):
        small.prepare(ImageUpscale(image=blob(picture(90, 80)), tile_size=32))


def test_the_file_limits_what_clients_send(tmp_path: Path) -> None:
    model = started(Upscaler(), options(esrgan(tmp_path), options={"max_image_pixels": 2999}))
    with pytest.raises(InvalidInput, match="2,999 are the most"):
        model.prepare(ImageUpscale(image=blob(picture(60, 50))))


def test_what_networks_do_not_have_is_refused_when_they_are_loaded(tmp_path: Path) -> None:
    path = esrgan(tmp_path)
    for more in (
        {"max_seq_length": 5},
        {"options": {"max_batch_tokens": 5}},
        {"options": {"providers": ["CPUExecutionProvider"]}},
    ):
        with pytest.raises(ModelLoadError, match="means nothing to a network that upscales images"):
            started(Upscaler(), options(path, **more))


@pytest.mark.cpu
def test_what_the_cpu_or_the_network_does_not_compute_in_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passing, "convolves", lambda dtype: dtype == torch.float32)
    for precision in ("bfloat16", "float16"):
        with pytest.raises(ModelLoadError, match=f"this CPU has no `{precision}`"):
            started(Upscaler(), options(esrgan(tmp_path), precision=precision))
    monkeypatch.setattr(passing, "convolves", lambda dtype: True)
    with pytest.raises(ModelLoadError, match="`SwinIR` does not compute in `float16`"):
        started(Upscaler(), options(swinir(tmp_path), precision="float16"))


def test_in_bfloat16_it_is_nearly_the_same(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passing, "convolves", lambda dtype: True)
    model = started(Upscaler(), options(esrgan(tmp_path), precision="bfloat16", warmup=True))
    image = picture(60, 50)
    assert apart(upscaled(model, image), upscaled(small, image))[0] < 1.5


def test_a_folder_holds_one_file_of_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="there are no weights in"):
        weights_file(tmp_path)
    one = esrgan(tmp_path)
    (tmp_path / "README.md").write_text("x")
    assert weights_file(tmp_path) == weights_file(one) == one
    other = esrgan(tmp_path, "other.pth")
    with pytest.raises(ModelLoadError, match=r"several files of weights in .*: `other.pth`, `x2.pth`"):
        weights_file(tmp_path)
    safe = other.rename(tmp_path / "other.safetensors")
    assert weights_file(tmp_path) == safe
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(ModelLoadError, match="is a pipeline of diffusers") as caught:
        weights_file(tmp_path)
    assert caught.value.hint == "write `architecture: ldsr`"


class Evil:
    def __reduce__(self) -> Any:
        return (sys.exit, ("this ran",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weight": torch.zeros(1)}, "the weights of no network that spandrel knows"),
        ([torch.zeros(1)], "holds a list, and no names with weights"),
        ({"model": Evil()}, "cannot be read"),
    ],
)
def test_what_is_no_network_is_refused_and_not_run(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(ModelLoadError, match=message):
        started(Upscaler(), options(path))


def test_weights_that_are_missing_or_of_another_network_are_told(tmp_path: Path) -> None:
    path = esrgan(tmp_path)
    weights = torch.load(path, weights_only=True)
    del weights["model.0.bias"]
    torch.save(weights, path)
    with pytest.raises(ModelLoadError, match="spandrel cannot load"):
        started(Upscaler(), options(path))
    path.write_bytes(b"no zip")
    with pytest.raises(ModelLoadError, match="cannot be read"):
        started(Upscaler(), options(path))
    # Four channels in, three out: spandrel knows it, and it is for no picture of ours.
    with pytest.raises(ModelLoadError, match="makes 3 channels of 4"):
        started(Upscaler(), options(esrgan(tmp_path, "four.pth", in_nc=4)))


def test_another_network_of_spandrel_is_named(tmp_path: Path) -> None:
    span_class = architecture("SPAN")
    torch.save(span_class(num_in_ch=3, num_out_ch=3, feature_channels=8).state_dict(), tmp_path / "span.pth")
    for family in (None, "real-esrgan"):
        with pytest.raises(ModelLoadError, match="network of type `SPAN`") as caught:
            started(Upscaler(), options(tmp_path / "span.pth", family))
        assert caught.value.hint == "networks of `real-esrgan`, `esrgan` and `swinir` can be loaded"


# torchvision


@pytest.mark.cpu
def test_spandrel_is_imported_without_torchvision_and_leaves_none_behind() -> None:
    from importlib.util import find_spec

    assert find_spec("torchvision") is None, "this environment is to show that it works without"
    spandrel = import_spandrel()
    assert "torchvision" not in sys.modules
    assert find_spec("torchvision") is None
    lama = importlib.import_module("spandrel.architectures.LaMa.__arch.LaMa")
    assert spandrel.MAIN_REGISTRY.get("LaMa") is not None
    with pytest.raises(ModelLoadError, match="needs torchvision"):
        lama.rotate(torch.zeros(1), 1)


@pytest.mark.cpu
def test_a_torchvision_that_is_broken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelLoadError, match="operator torchvision::nms does not exist") as caught:
        import_spandrel()
    assert "pip uninstall torchvision" in (caught.value.hint or "")


# Latent diffusion


@pytest.fixture(scope="module")
def ldm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline with random weights, 4 times larger as the published one."""
    diffusers: Any = importlib.import_module("diffusers")
    folder = tmp_path_factory.mktemp("ldm")
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=16,
        in_channels=6,
        out_channels=3,
        layers_per_block=1,
        norm_num_groups=4,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    vqvae = diffusers.VQModel(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=4,
        num_vq_embeddings=32,
        latent_channels=3,
    )
    pipeline = diffusers.LDMSuperResolutionPipeline(
        vqvae=vqvae, unet=unet, scheduler=diffusers.DDIMScheduler()
    )
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def latent(ldm: Path) -> Any:
    return started(LatentUpscaler(), options(ldm, "ldsr", warmup=True))


def painted(model: Any, image: Image.Image, **more: Any) -> Image.Image:
    return upscaled(model, image, **{"num_inference_steps": 3, "seed": 1, **more})


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_latent_diffusion_makes_it_four_times_larger(latent: Any, mode: str) -> None:
    found = painted(latent, picture(19, 13, mode))
    assert (found.size, found.mode) == ((76, 52), mode)
    assert painted(latent, picture(19, 13, mode), scale=2.5).size == (48, 33)


@pytest.mark.parametrize("eta", [None, 1.0])
def test_the_same_seed_gives_the_same_picture_alone_and_among_others(latent: Any, eta: float | None) -> None:
    images = [picture(16, 16, seed=i) for i in range(3)]
    requests = [
        ImageUpscale(image=blob(each), seed=seed, eta=eta, num_inference_steps=3)
        for each, seed in zip(images, (1, 2, 1), strict=True)
    ]
    together = results(latent, requests)
    assert [each.seed for each in together] == [1, 2, 1]
    for request, each in zip(requests, together, strict=True):
        assert apart(opened(results(latent, [request])[0]), opened(each))[1] <= 1
    other = results(latent, [ImageUpscale(image=blob(images[0]), seed=2, eta=eta, num_inference_steps=3)])
    assert apart(opened(other[0]), opened(together[0]))[0] > 1


def test_what_chance_gave_can_be_had_again(latent: Any) -> None:
    image = picture(16, 16)
    (first,) = results(latent, [ImageUpscale(image=blob(image), num_inference_steps=2)])
    again = painted(latent, image, seed=first.seed, num_inference_steps=2)
    assert apart(opened(first), again)[1] == 0


def test_eta_and_steps_change_the_picture(latent: Any) -> None:
    image = picture(16, 16)
    plain = painted(latent, image)
    assert apart(plain, painted(latent, image, eta=0.0))[1] == 0
    assert apart(plain, painted(latent, image, eta=1.0))[0] > 1
    assert apart(plain, painted(latent, image, num_inference_steps=2))[0] > 0.1


def test_it_is_what_the_pipeline_of_diffusers_gives(latent: Any, ldm: Path) -> None:
    diffusers: Any = importlib.import_module("diffusers")
    pipeline = diffusers.LDMSuperResolutionPipeline.from_pretrained(ldm)
    pipeline.set_progress_bar_config(disable=True)
    image = picture(32, 32)
    chance = torch.Generator().manual_seed(1)
    expected = pipeline(image, num_inference_steps=3, generator=chance).images[0]
    assert apart(painted(latent, image), expected)[1] <= 1


def test_progress_counts_steps_and_a_caller_who_goes_away_ends_it(latent: Any) -> None:
    items = latent.prepare(ImageUpscale(image=blob(picture(16, 16)), num_inference_steps=4))
    step = Watcher()
    latent.forward(items, step)
    assert step.told == [(0, done, 4) for done in (1, 2, 3, 4)]
    impatient = Watcher(patience=2)
    (raw,) = latent.forward(items, impatient)
    assert isinstance(raw, Cancelled)
    assert len(impatient.told) == 2
    assert latent._pipeline.scheduler.step.__name__ == "step"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"tile_size": 64}, "`tile_size` means nothing to `ldsr`"),
        ({"tile_pad_size": 6}, "`tile_pad_size` means nothing to `ldsr`"),
        ({"eta": 1.5}, "`eta` is 1.5, and goes from 0 to 1"),
        ({"num_inference_steps": 1001}, "the model was trained with 1000"),
    ],
)
def test_what_latent_diffusion_cannot_do_is_refused(latent: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        latent.prepare(ImageUpscale(image=blob(picture(16, 16)), **given))
    assert caught.value.field == next(iter(given))


def test_a_picture_that_is_too_large_as_a_whole_is_refused(latent: Any) -> None:
    with pytest.raises(InvalidInput, match="513 x 512 pixels, and `ldsr`, which sees an image as a whole"):
        latent.prepare(ImageUpscale(image=blob(Image.new("L", (513, 512)))))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ('{"_class_name": "FluxPipeline"}', "is a `FluxPipeline`, and `ldsr` is a"),
        (
            '{"_class_name": "LDMSuperResolutionPipeline", "unet": ["own", "Unet"]}',
            "`unet` in .* is of `own`",
        ),
        ('{"_class_name": "LDMSuperResolutionPipeline"}', "diffusers cannot load"),
        ("", "is no folder of diffusers"),
    ],
)
def test_what_is_no_such_pipeline_is_refused(index: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(index)
    with pytest.raises(ModelComposeError, match=message):
        started(LatentUpscaler(), options(tmp_path, "ldsr"))


# The real network


@pytest.fixture(scope="module")
def real() -> Any:
    return started(Upscaler(), options(models.animevideov3(), "real-esrgan"))


def face() -> Image.Image:
    """The middle of a photograph: hair, skin, a flag with stripes."""
    photo = importlib.import_module("skimage.data").astronaut()
    return Image.fromarray(photo).crop((100, 0, 356, 224)).resize((128, 112), Image.Resampling.LANCZOS)


@pytest.mark.model
def test_a_real_network_makes_a_photograph_larger_and_sharper(real: Any) -> None:
    image = face()
    found = upscaled(real, image)
    assert found.size == (512, 448)
    smooth = image.resize(found.size, Image.Resampling.BICUBIC)
    assert apart(found, smooth)[0] < 10
    assert _sharpness(found) > 1.1 * _sharpness(smooth)


def _sharpness(image: Image.Image) -> float:
    grey = numbers(image.convert("L"))
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())


@pytest.mark.model
def test_tiles_of_a_real_network_cannot_be_seen(real: Any) -> None:
    image = face()
    whole = upscaled(real, image, tile_size=0)
    tiled = upscaled(real, image, tile_size=40)
    mean, most = apart(tiled, whole)
    print(f"tiles of 40 pixels: mean difference {mean:.4f}, largest {most:.0f} of 255")  # noqa: T201
    assert mean < 0.02
    assert most <= 2
    blunt = upscaled(real, image, tile_size=40, tile_pad_size=0)
    assert apart(blunt, whole)[1] > 10


@pytest.mark.model
def test_its_checkpoint_of_torch_gives_the_same(real: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    torch.save({"params": load_file(models.animevideov3())}, tmp_path / "network.pth")
    image = face().crop((0, 0, 64, 48))
    again = started(Upscaler(), options(tmp_path, "real-esrgan"))
    assert apart(upscaled(again, image), upscaled(real, image))[1] == 0


@pytest.mark.model
def test_the_real_esrgan_that_everybody_knows_keeps_colours_and_sharpens() -> None:
    model = started(Upscaler(), options(models.x4plus(), "real-esrgan"))
    image = face().crop((40, 24, 104, 88))
    found = upscaled(model, image)
    smooth = image.resize((256, 256), Image.Resampling.BICUBIC)
    assert found.size == smooth.size
    assert apart(found, smooth)[0] < 12
    assert np.abs(numbers(found).mean((0, 1)) - numbers(smooth).mean((0, 1))).max() < 3
    assert _sharpness(found) > 1.1 * _sharpness(smooth)


@pytest.mark.model
def test_in_bfloat16_a_real_network_gives_nearly_the_same(real: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "convolves", lambda dtype: True)
    model = started(Upscaler(), options(models.animevideov3(), precision="bfloat16"))
    image = face().crop((0, 0, 64, 48))
    mean, most = apart(upscaled(model, image), upscaled(real, image))
    print(f"bfloat16: mean difference {mean:.3f}, largest {most:.0f} of 255")  # noqa: T201
    assert mean < 1
