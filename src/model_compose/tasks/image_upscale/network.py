"""How do networks of convolutions and attention make pictures larger?

spandrel reads their checkpoints and knows by the names of the weights which network it is. A picture goes
through in tiles, whose size follows from the memory that one may take; the tiles of all callers share
forward passes. How far tiles reach into each other is tried out when the network is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from model_compose.drivers.alone import warm_up
from model_compose.drivers.contract import Item, LoadOptions, LoadProgress, ModelInfo, Outcome, Step
from model_compose.drivers.huggingface.load import choose_device
from model_compose.drivers.huggingface.memory import taken
from model_compose.errors import EngineError, ModelLoadError
from model_compose.tasks.image_upscale.canvas import Canvas, in_16_bits
from model_compose.tasks.image_upscale.checkpoint import read_network
from model_compose.tasks.image_upscale.parts import SMALLEST_CORE, Part, Tiling, divided
from model_compose.tasks.image_upscale.passing import number_format, own_options, passing
from model_compose.tasks.image_upscale.reach import Reach, tried_out
from model_compose.tasks.image_upscale.spec import ImageUpscale
from model_compose.tasks.images import encode
from model_compose.tasks.pictures import ImageOutput, Picture

#: Most tiles of one forward pass. A CPU is busy with one, and what more of them make leaves its caches.
_CPU_ROWS: Final = 1
_GPU_ROWS: Final = 16
#: What one forward pass may take, beside the weights.
_CPU_BYTES: Final = 1 << 30
_GPU_BYTES: Final = 2 << 30
#: Side of a tile that nobody asked for: a caller who goes away shall not have to be waited for.
_LARGEST: Final = 1024
#: The most of a tile that reaches into each neighbour: less than half of all is computed twice, and what a
#: network sees beyond that, it hardly sees.
_MOST_REACH: Final = 1 / 6


class Upscaler:
    """A `BatchModel` for image-upscale; its rows are tiles."""

    def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        """Load the weights, and try out how far the network sees."""
        self._most_pixels = own_options(options).max_image_pixels
        self._device = choose_device(options.device)
        self._on_cpu = self._device.type == "cpu"
        self._threads = options.threads
        progress("weights", 0, 1)
        self._network = read_network(options)
        self._dtype = _dtype(options.precision, self._device, self._network)
        self._network.model.requires_grad_(False)
        self._network.to(self._device).eval()
        progress("weights", 1, 1)
        multiple = _multiple(self._network)
        with passing(self._device, options.threads):
            seen = tried_out(self._network, multiple, self._device)
        self._network.to(self._dtype)
        self._tiling = self._tiling_for(seen, multiple)
        self._rows = options.batch_size or (_CPU_ROWS if self._on_cpu else _GPU_ROWS)
        self._batches = self._tiles = 0
        side = min(SMALLEST_CORE, math.isqrt(self._most_pixels))
        blank = encode(Image.new("RGB", (side, side)), ImageOutput())
        warm_up(self.prepare(ImageUpscale(image=blank)), self.forward, options, progress)
        threads = options.threads if self._on_cpu else 1
        return ModelInfo(slots=1, threads=threads, elastic=self._on_cpu, details=self._details())

    def budget(self) -> tuple[int, int]:
        """The most tiles, and the most pixels of them together."""
        return self._rows, self._tiling.window**2

    def prepare(self, request: ImageUpscale) -> list[Item]:
        """Decode, and divide."""
        return divided(request, self._tiling, self._most_pixels)

    def forward(self, items: Sequence[Item], step: Step) -> Sequence[Canvas]:
        """Compute tiles, and put them where they belong."""
        parts: list[Part] = [item.payload for item in items]
        awaited = [i for i in range(len(parts)) if not step.cancelled(i)]
        if awaited:
            self._batches += 1
            self._tiles += len(awaited)
            with passing(self._device, step.threads):
                grown = self._grown([parts[i] for i in awaited])
                for i, found in zip(awaited, grown, strict=True):
                    self._put(parts[i], found)
                    step.progress(i, parts[i].canvas.seen, len(parts[i].grid))
        return [part.canvas for part in parts]

    def finish(self, request: ImageUpscale, raws: Sequence[Canvas]) -> Outcome:
        """The picture, as a file."""
        image = raws[0].picture()
        return Outcome(Picture(encode(image, request, threads=self._threads), *image.size))

    def metrics(self) -> Mapping[str, float]:
        """What it has computed: `rows` / `batches` is how many tiles went together."""
        return {"batches": self._batches, "rows": self._tiles}

    def memory(self) -> Mapping[str, int]:
        """What it takes on GPUs."""
        return taken()

    def _tiling_for(self, seen: Reach, multiple: int) -> Tiling:
        most = _CPU_BYTES if self._on_cpu else _GPU_BYTES
        side = math.isqrt(most // (seen.numbers_per_pixel * self._dtype.itemsize))
        window = max(min(side, _LARGEST) // multiple * multiple, SMALLEST_CORE)
        reach = min(seen.pixels, int(window * _MOST_REACH))
        minimum = self._network.size_requirements.minimum
        return Tiling(self._network.scale, max(window, SMALLEST_CORE + 2 * reach), reach, multiple, minimum)

    def _grown(self, parts: Sequence[Part]) -> Tensor:
        """What the network makes of tiles: float32 from 0 to 1, [tiles, 3, height, width]."""
        given = torch.from_numpy(np.stack([part.numbers() for part in parts]))
        given = given.to(self._device, self._dtype)
        # Colours side by side, as in the picture: convolutions are half again as fast (AVX2, oneDNN 3).
        found: Tensor = self._network(given.contiguous(memory_format=torch.channels_last)).float()
        if not bool(torch.isfinite(found.sum())):  # they are from 0 to 1, or none
            raise EngineError(
                "the network gave numbers that are too large for its precision",
                hint="set `precision: bfloat16` or `float32`",
            )
        return found

    def _put(self, part: Part, found: Tensor) -> None:
        """Mix what was made of a tile into its picture."""
        if part.grey:
            found = found.mean(0, keepdim=True)
        weights = part.weights(self._tiling.scale)
        part.add(in_16_bits(found.cpu().numpy(), weights), self._tiling.scale)

    def _details(self) -> dict[str, str]:
        tiling = self._tiling
        return {
            "architecture": f"{self._network.architecture.name}, {tiling.scale}x",
            "device": str(self._device),
            "precision": str(self._dtype).removeprefix("torch."),
            "tiles": f"{tiling.window} px, of which {tiling.reach} px reach into each neighbour",
        }


def _dtype(precision: str | None, device: torch.device, network: Any) -> torch.dtype:
    """What to compute in. Raises ModelLoadError for what the network does not stand."""
    dtype = number_format(precision, device)
    if dtype == torch.float16 and not network.supports_half:
        if precision in (None, "auto"):
            return torch.float32
        raise ModelLoadError(
            f"a network of type `{network.architecture.name}` does not compute in `float16`",
            hint="set `precision: bfloat16` or `float32`",
        )
    return dtype


def _multiple(network: Any) -> int:
    """Where tiles may begin so that the network divides them as it would divide the whole picture.

    Attention is computed in windows, of pixels that may have been folded first.
    """
    window = getattr(network.model, "window_size", 1) * getattr(network.model, "start_unshuffle", 1)
    return math.lcm(network.size_requirements.multiple_of, window)
