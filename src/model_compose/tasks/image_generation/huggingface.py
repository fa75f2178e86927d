"""How does diffusers paint what a text describes?"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import torch
from PIL.Image import Image

from model_compose.drivers.alone import warm_up
from model_compose.drivers.contract import Item, LoadOptions, LoadProgress, ModelInfo, Outcome, Step
from model_compose.drivers.huggingface.memory import memory_guarded, taken
from model_compose.errors import Cancelled, EngineError, InvalidInput, OutOfMemory, RequestTooLong
from model_compose.tasks.generation import RANDOM_SEED
from model_compose.tasks.image_generation.adapters import Blends
from model_compose.tasks.image_generation.pipelines import Prompts, load_pipeline, offload
from model_compose.tasks.image_generation.spec import ImageGeneration
from model_compose.tasks.images import encode, from_pixels
from model_compose.tasks.pictures import Picture

#: Most rows and most pixels of one pass. On a CPU several take as long as one after the other, and a picture
#: alone is the same to the last bit each time; with others, the sums of its numbers are rounded differently.
_CPU_BUDGET: Final = (1, 1024 * 1024)
_GPU_BUDGET: Final = (8, 2 * 1024 * 1024)
_NO_LIMIT: Final = 1 << 40
_WARMING: Final = ImageGeneration(prompt="warm up", width=256, height=256, num_inference_steps=2)
_HINT: Final = "ask for fewer pixels, lower `batch_size`, or set `vae_tiling` (and `cpu_offload` on a GPU)"


class _Pass(msgspec.Struct, frozen=True):
    """What rows must have in common to be painted together."""

    width: int
    height: int
    steps: int
    guidance: float | None
    max_sequence_length: int | None
    negative: bool
    blend: tuple[float, ...]


class _Done:
    """How many steps of a request's images are done, whichever are computed first."""

    def __init__(self, images: int) -> None:
        self._steps = [0] * images

    def after(self, image: int, done: int, total: int) -> tuple[int, int]:
        """-> steps done and steps in all, of all images."""
        self._steps[image] = done
        return sum(self._steps), total * len(self._steps)


class _Row(NamedTuple):
    """One image of a request."""

    prompt: str
    negative: str | None
    seed: int
    image: int
    done: _Done


class _Raw(NamedTuple):
    """One image that is painted."""

    image: Image
    seed: int


class Painter:
    """A `BatchModel` for image-generation."""

    def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        """Load the pipeline and its adapters."""
        self._options = options
        self._pipeline = load_pipeline(options, progress)
        self._blends = Blends(self._pipeline.pipe, options.adapters, self._pipeline.dtype)
        offload(options, self._pipeline)
        self._batches = self._rows = self._steps = 0
        self._on_cpu = self._pipeline.device.type == "cpu"
        warm_up(self.prepare(_WARMING) if options.warmup else [], self.forward, options, progress)
        return ModelInfo(
            slots=1,
            threads=options.threads if self._on_cpu else 1,
            elastic=self._on_cpu,
            details=self._pipeline.details,
        )

    def budget(self) -> tuple[int, int]:
        """The most rows, and the most pixels; rows that the file asks for are not limited by pixels."""
        if self._options.batch_size is not None:
            return self._options.batch_size, _NO_LIMIT
        return _CPU_BUDGET if self._on_cpu else _GPU_BUDGET

    def prepare(self, request: ImageGeneration) -> list[Item]:
        """Check what is asked for, and make a row of each image."""
        key = self._pass(request)
        self._require_read(request.prompt, "prompt", key)
        if request.negative_prompt is not None:
            self._require_read(request.negative_prompt, "negative_prompt", key)
        first = request.seed if request.seed is not None else secrets.randbelow(RANDOM_SEED)
        done = _Done(request.num_images_per_prompt)
        return [
            Item(
                key.width * key.height,
                key,
                _Row(request.prompt, request.negative_prompt, (first + i) % RANDOM_SEED, i, done),
            )
            for i in range(request.num_images_per_prompt)
        ]

    def _pass(self, request: ImageGeneration) -> _Pass:
        self._require_size("width", request.width)
        self._require_size("height", request.height)
        guidance = self._guidance(request)
        return _Pass(
            request.width,
            request.height,
            request.num_inference_steps or self._pipeline.family.steps,
            guidance,
            self._max_sequence_length(request),
            self._has_negative(request, guidance),
            self._blends.blend(request.adapters),
        )

    def _require_size(self, field: str, pixels: int) -> None:
        multiple = self._pipeline.multiple
        if pixels % multiple:
            nearest = max(1, round(pixels / multiple)) * multiple
            raise InvalidInput(
                f"`{field}` must be a multiple of {multiple}, and {pixels} is not",
                field=field,
                hint=f"the nearest is {nearest}",
            )

    def _guidance(self, request: ImageGeneration) -> float | None:
        default = self._pipeline.family.guidance
        if default is None and request.guidance_scale:  # 0 is how others say that there is none
            raise InvalidInput(
                "this model was distilled, and has no guidance", field="guidance_scale", hint="leave it out"
            )
        return default if request.guidance_scale is None or default is None else request.guidance_scale

    def _max_sequence_length(self, request: ImageGeneration) -> int | None:
        limits, field = self._pipeline.family.max_sequence_length, "max_sequence_length"
        asked = request.max_sequence_length
        if limits is None:
            if asked is not None:
                raise InvalidInput(f"`{field}` is for `flux` only", field=field, hint="leave it out")
            return None
        default, most = limits
        if asked is not None and asked > most:
            raise InvalidInput(f"`{field}` is {asked}, and {most} is the most", field=field)
        return asked or default

    def _has_negative(self, request: ImageGeneration, guidance: float | None) -> bool:
        if request.negative_prompt is None:
            return False
        field, family = "negative_prompt", self._pipeline.family
        if not family.negative:
            raise InvalidInput(f"`{field}` cannot be used with `{family.name}`", field=field)
        if guidance is None or guidance <= 1:
            raise InvalidInput(
                f"`{field}` does nothing without guidance",
                field=field,
                hint="set `guidance_scale` above 1, or leave it out",
            )
        return True

    def _require_read(self, text: str, field: str, key: _Pass) -> None:
        excess = self._pipeline.excess(text, key.max_sequence_length)
        if excess is not None:
            size, limit = excess
            raise RequestTooLong(
                f"`{field}` has {size} tokens, and the model reads {limit}",
                size=size,
                limit=limit,
                field=field,
                hint="shorten it",
            )

    def forward(self, items: Sequence[Item], step: Step) -> Sequence[_Raw | Exception]:
        """Paint; ends early when nobody waits for any of the images."""
        rows: list[_Row] = [item.payload for item in items]
        what: _Pass = items[0].key  # type: ignore[assignment]

        def stepped(done: int, total: int) -> None:
            self._steps += 1
            waiting = [i for i in range(len(rows)) if not step.cancelled(i)]
            if not waiting:
                raise Cancelled("the caller went away")
            for i in waiting:
                step.progress(i, *rows[i].done.after(rows[i].image, done, total))

        prompts = Prompts(
            prompts=[row.prompt for row in rows],
            negative=[row.negative or "" for row in rows] if what.negative else None,
            seeds=[row.seed for row in rows],
            width=what.width,
            height=what.height,
            steps=what.steps,
            guidance=what.guidance,
            max_sequence_length=what.max_sequence_length,
        )
        with self._passing(step.threads):
            self._blends.use(what.blend)
            painted = self._pipeline.paint(prompts, stepped)
        self._batches += 1
        self._rows += len(rows)
        return [_raw(pixels, row.seed) for pixels, row in zip(painted, rows, strict=True)]

    @contextlib.contextmanager
    def _passing(self, threads: int) -> Iterator[None]:
        if self._on_cpu and torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        try:
            with memory_guarded(self._pipeline.device):
                yield
        except OutOfMemory as error:
            needed, free = error.needed_bytes, error.free_bytes
            raise OutOfMemory(error.message, needed_bytes=needed, free_bytes=free, hint=_HINT) from None

    def finish(self, request: ImageGeneration, raws: Sequence[_Raw]) -> Outcome:
        """Write the images."""
        several = request.num_images_per_prompt > 1
        pictures = [
            Picture(
                encode(raw.image, request, f"image-{i}" if several else "image"),
                raw.image.width,
                raw.image.height,
                raw.seed,
            )
            for i, raw in enumerate(raws, 1)
        ]
        return Outcome(pictures if several else pictures[0])

    def metrics(self) -> Mapping[str, float]:
        """Batches, their rows, and steps of batches."""
        return {"batches": self._batches, "rows": self._rows, "steps": self._steps}

    def memory(self) -> Mapping[str, int]:
        """What it takes on GPUs."""
        return taken()


def _raw(pixels: Any, seed: int) -> _Raw | Exception:
    if not np.isfinite(pixels).all():
        return EngineError(
            "the model gave numbers that are too large for its precision",
            hint="set `precision: bfloat16` or `float32`",
        )
    return _Raw(from_pixels(pixels), seed)
