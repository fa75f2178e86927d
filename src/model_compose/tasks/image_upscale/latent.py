"""How does latent diffusion make pictures larger?

The pipeline is the one of diffusers; the pictures of several callers that have one size go through it
together, each with chance of its own. It sees a picture as a whole, so there are no tiles.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from model_compose.drivers.alone import warm_up
from model_compose.drivers.contract import Item, LoadOptions, LoadProgress, ModelInfo, Outcome, Step
from model_compose.drivers.huggingface.load import choose_device
from model_compose.drivers.huggingface.memory import taken
from model_compose.errors import (
    Cancelled,
    DriverMissing,
    EngineError,
    InvalidInput,
    ModelLoadError,
    first_line,
)
from model_compose.tasks.image_upscale.canvas import Canvas, Original, in_16_bits, wanted_size
from model_compose.tasks.image_upscale.passing import number_format, own_options, passing
from model_compose.tasks.image_upscale.spec import ImageUpscale
from model_compose.tasks.images import Pixels, decode, encode
from model_compose.tasks.pictures import ImageOutput, Picture

_PIPELINE: Final = "LDMSuperResolutionPipeline"
_STEPS: Final = 100
#: What decodes the latents takes some 8 kB of memory for each pixel that comes in.
_MOST_PIXELS: Final = 512 * 512
#: Most pixels of one pass, with all its pictures.
_CPU_PIXELS: Final = 128 * 128
_GPU_PIXELS: Final = 512 * 512
_CPU_ROWS: Final = 4
_GPU_ROWS: Final = 16

_NETWORK_ONLY: Final = ("tile_size", "tile_pad_size")


class _Job(NamedTuple):
    """A picture, and how it is to be computed: `shape` is height and width that the network takes."""

    canvas: Canvas
    shape: tuple[int, int]
    steps: int
    eta: float
    seed: int


class LatentUpscaler:
    """A `BatchModel` for image-upscale; its rows are pictures."""

    def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        """Load the pipeline."""
        assert options.source is not None
        self._most_pixels = own_options(options).max_image_pixels
        self._device = choose_device(options.device)
        dtype = number_format(options.precision, self._device)
        progress("weights", 0, 1)
        self._pipeline = _pipeline(Path(options.source.path), options.source.origin)
        self._pipeline.to(self._device, dtype)
        progress("weights", 1, 1)
        self._pipeline.set_progress_bar_config(disable=True)
        from model_compose.drivers.huggingface.noise import draw_in_float32  # imports diffusers

        draw_in_float32(self._pipeline)
        self._eta = "eta" in inspect.signature(self._pipeline.scheduler.step).parameters
        self._factor = _halvings(self._pipeline.vqvae)
        self._multiple = _halvings(self._pipeline.unet)
        on_cpu = self._device.type == "cpu"
        self._budget = (
            (options.batch_size or (_CPU_ROWS if on_cpu else _GPU_ROWS)),
            (_CPU_PIXELS if on_cpu else _GPU_PIXELS),
        )
        self._batches = self._rows = 0
        blank = encode(Image.new("RGB", (1, 1)), ImageOutput())
        trial = ImageUpscale(image=blank, num_inference_steps=1)
        warm_up(self.prepare(trial), self.forward, options, progress)
        return ModelInfo(
            slots=1,
            threads=options.threads if on_cpu else 1,
            elastic=on_cpu,
            details={
                "architecture": f"{_PIPELINE}, {self._factor}x",
                "device": str(self._device),
                "precision": str(dtype).removeprefix("torch."),
                "scheduler": type(self._pipeline.scheduler).__name__,
            },
        )

    def budget(self) -> tuple[int, int]:
        """The most pictures, and the most pixels of them together."""
        return self._budget

    def prepare(self, request: ImageUpscale) -> list[Item]:
        """Decode."""
        for field in _NETWORK_ONLY:
            if getattr(request, field) is not None:
                raise InvalidInput(f"`{field}` means nothing to `ldsr`, which has no tiles", field=field)
        eta, steps = request.eta or 0.0, request.num_inference_steps or _STEPS
        if not 0 <= eta <= 1:
            raise InvalidInput(f"`eta` is {eta}, and goes from 0 to 1", field="eta")
        if eta and not self._eta:
            name = type(self._pipeline.scheduler).__name__
            raise InvalidInput(f"the scheduler of this model, `{name}`, takes no `eta`", field="eta")
        most = self._pipeline.scheduler.config.num_train_timesteps
        if steps > most:
            raise InvalidInput(
                f"`num_inference_steps` is {steps}, and the model was trained with {most}",
                field="num_inference_steps",
            )
        original = Original.of(decode(request.image, most_pixels=self._most_pixels))
        width, height = original.size
        if width * height > _MOST_PIXELS:
            raise InvalidInput(
                f"`image` has {width} x {height} pixels, and `ldsr`, which sees an image as a whole, takes "
                f"{_MOST_PIXELS:,} at most",
                field="image",
                hint="send a smaller one, or use a network that computes tiles, such as `real-esrgan`",
            )
        canvas = Canvas(original, self._factor, wanted_size(request, original.size, self._factor))
        seed = request.seed if request.seed is not None else random.randrange(2**32 - 1)  # noqa: S311
        shape = (_up(height, self._multiple), _up(width, self._multiple))
        job = _Job(canvas, shape, steps, eta, seed)
        return [Item(shape[0] * shape[1], (*shape, steps, eta), job)]

    def forward(self, items: Sequence[Item], step: Step) -> Sequence[_Job | Cancelled]:
        """Compute pictures of one size."""
        jobs: list[_Job] = [item.payload for item in items]
        steps, eta = jobs[0].steps, jobs[0].eta  # those of all: they have one key
        given = np.stack([_numbers(job.canvas.original, *job.shape) for job in jobs])
        self._batches += 1
        self._rows += len(jobs)
        with passing(self._device, step.threads):
            # Chance comes from the CPU, so that a seed means the same on every device.
            chances = [torch.Generator().manual_seed(job.seed) for job in jobs]
            try:
                with self._watched(chances, step, steps):
                    made = self._pipeline(
                        torch.from_numpy(given),
                        num_inference_steps=steps,
                        eta=eta,
                        generator=chances,
                        output_type="pt",
                    ).images
            except _NobodyWaits:
                return [Cancelled("the caller went away")] * len(jobs)
            found: Tensor = made.float()
            if not bool(torch.isfinite(found).all()):
                raise EngineError(
                    "the model gave numbers that are too large for its precision",
                    hint="set `precision: bfloat16` or `float32`",
                )
            for job, picture in zip(jobs, found, strict=True):
                grey = job.canvas.original.pixels.shape[2] == 1
                whole = picture.mean(0, keepdim=True) if grey else picture
                job.canvas.add(0, 0, 0, in_16_bits(whole.cpu().numpy()))
        return jobs

    def finish(self, request: ImageUpscale, raws: Sequence[_Job]) -> Outcome:
        """The picture, as a file."""
        (job,) = raws
        image = job.canvas.picture()
        return Outcome(Picture(encode(image, request), *image.size, seed=job.seed))

    def metrics(self) -> Mapping[str, float]:
        """Batches and their rows."""
        return {"batches": self._batches, "rows": self._rows}

    def memory(self) -> Mapping[str, int]:
        """What it takes on GPUs."""
        return taken()

    @contextlib.contextmanager
    def _watched(self, chances: list[torch.Generator], step: Step, steps: int) -> Iterator[None]:
        """While it computes: each step is told, and ends it if nobody waits.

        The pipeline has no callback, and does not hand its generators on to the scheduler, whose noise would
        then be that of nobody's seed.
        """
        scheduler = self._pipeline.scheduler
        once = scheduler.step
        more = {"generator": chances} if "generator" in inspect.signature(once).parameters else {}
        done = 0

        @functools.wraps(once)
        def told(*args: Any, **kwargs: Any) -> Any:
            nonlocal done
            if all(step.cancelled(i) for i in range(len(chances))):
                raise _NobodyWaits
            found = once(*args, **kwargs, **more)
            done += 1
            for i in range(len(chances)):
                step.progress(i, min(done, steps), steps)
            return found

        scheduler.step = told
        try:
            yield
        finally:
            del scheduler.step


class _NobodyWaits(Exception):
    """All whose pictures are computed went away."""


def _pipeline(folder: Path, origin: str) -> Any:
    """The pipeline in a folder, in float32 on the CPU. Raises ModelLoadError, DriverMissing."""
    try:
        import diffusers
    except ImportError as error:
        raise DriverMissing(
            f"`diffusers` cannot be imported: {error}", hint="pip install 'modelyard-compose[image]'"
        ) from error
    _require_pipeline(folder, origin)
    try:
        pipeline: Any = diffusers.LDMSuperResolutionPipeline
        return pipeline.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise ModelLoadError(f"diffusers cannot load `{origin}`: {first_line(error)}") from error


def _require_pipeline(folder: Path, origin: str) -> None:
    """Raise unless a folder holds the one pipeline that this is for, without code of its own."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ModelLoadError(
            f"`{origin}` is no folder of diffusers: it has no `model_index.json`",
            hint="`ldsr` is a pipeline, such as `CompVis/ldm-super-resolution-4x-openimages`; for weights in "
            "one file leave `architecture` out",
        ) from None
    if index.get("_class_name") != _PIPELINE:
        raise ModelLoadError(
            f"`{origin}` is a `{index.get('_class_name')}`, and `ldsr` is a `{_PIPELINE}`",
        )
    for name, value in index.items():
        if isinstance(value, list) and value and value[0] != "diffusers":
            raise ModelLoadError(f"`{name}` in `{origin}` is of `{value[0]}`, which is not loaded")


def _numbers(original: Original, height: int, width: int) -> Pixels:
    """From -1 to 1, [3, height, width]; what the picture lacks to that is reflected."""
    pixels = original.pixels
    missing = ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0))
    pixels = np.pad(pixels, missing, mode="reflect").transpose(2, 0, 1)
    half = 65535 / 2 if original.deep else 255 / 2
    found: Pixels = np.divide(np.broadcast_to(pixels, (3, *pixels.shape[1:])), half, dtype=np.float32) - 1
    return found


def _halvings(model: Any) -> int:
    """What a network divides sizes by on its way down."""
    return int(2 ** (len(model.config.block_out_channels) - 1))


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
