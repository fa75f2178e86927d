"""How does an ONNX file, or a TensorRT engine, make pictures larger?

The convention of exporters: one input and one output, colours from 0 to 1, [pictures, 3, height, width]. How
many times larger, which sizes the graph takes and how far it sees is tried out when it is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from PIL import Image

from model_compose.drivers.alone import warm_up
from model_compose.drivers.contract import Item, LoadOptions, LoadProgress, ModelInfo, Outcome, Step
from model_compose.drivers.custom.session import (
    Session,
    driver_options,
    graph_of,
    info_of,
    open_session,
    unfit,
)
from model_compose.errors import EngineError, InvalidInput, ModelComposeError, ModelLoadError
from model_compose.tasks.image_upscale.canvas import Canvas, in_16_bits
from model_compose.tasks.image_upscale.parts import SMALLEST_CORE, Part, Tiling, divided
from model_compose.tasks.image_upscale.spec import ImageUpscale
from model_compose.tasks.images import Pixels, encode
from model_compose.tasks.pictures import ImageOutput, Picture

#: Most tiles of one forward pass, and the sides of one that nobody asked for, without what it reaches into
#: its neighbours.
_CPU_ROWS: Final = 4
_GPU_ROWS: Final = 16
_CPU_CORE: Final = 192
_GPU_CORE: Final = 448
#: Of graphs that take tiles of one size only: the least that may be left of it.
_SMALLEST_TILE: Final = 16
#: Networks with windows take multiples of these; the first that works is taken.
_MULTIPLES: Final = (1, 2, 4, 8, 16, 32, 64)
#: Sides of what a graph that takes any size is tried with.
_TRIED: Final = (16, 192)
#: What nobody sees, of numbers from 0 to 1: less than a level of 8 bits.
_UNSEEN: Final = 0.5 / 255


class OnnxUpscaler:
    """A `BatchModel` for image-upscale; its rows are tiles."""

    def load(self, options: LoadOptions, progress: LoadProgress) -> ModelInfo:
        """Load the graph, and try out what it does."""
        own = driver_options(options)
        for name, value in (
            ("max_seq_length", options.max_seq_length),
            ("options.max_batch_tokens", own.max_batch_tokens),
        ):
            if value is not None:
                raise ModelLoadError(
                    f"`{name}` means nothing to a network that upscales", hint="leave it out"
                )
        self._most_pixels = own.max_image_pixels
        self._threads = options.threads
        session = open_session(graph_of(options), options)
        self._graph = _Graph(session)
        self._tiling = self._graph.tiling(_CPU_CORE if session.on_cpu else _GPU_CORE)
        self._rows = options.batch_size or (_CPU_ROWS if session.on_cpu else _GPU_ROWS)
        self._batches = self._tiles = 0
        side = min(64, math.isqrt(self._most_pixels))
        blank = encode(Image.new("RGB", (side, side)), ImageOutput())
        warm_up(self.prepare(ImageUpscale(image=blank)), self.forward, options, progress)
        info = info_of(session, options)
        tiling = self._tiling
        tiles = f"{tiling.window} px, of which {tiling.reach} px reach into each neighbour"
        more = {"architecture": f"{tiling.scale}x", "tiles": tiles}
        return replace(info, details=info.details | more)

    def budget(self) -> tuple[int, int]:
        """The most tiles, and the most pixels of them together."""
        return self._rows, self._tiling.window**2

    def prepare(self, request: ImageUpscale) -> list[Item]:
        """Decode, and divide."""
        side = self._graph.side
        if side is not None:
            request = replace(request, tile_size=_core(request, side, self._tiling.reach))
        return divided(request, self._tiling, self._most_pixels)

    def forward(self, items: Sequence[Item], step: Step) -> Sequence[Canvas]:
        """Compute tiles, and put them where they belong."""
        parts: list[Part] = [item.payload for item in items]
        awaited = [i for i in range(len(parts)) if not step.cancelled(i)]
        if awaited:
            self._batches += 1
            self._tiles += len(awaited)
            grown = self._graph.grown(np.stack([parts[i].numbers() for i in awaited]))
            if not np.isfinite(grown).all():
                raise EngineError("the network gave numbers that are too large for its precision")
            for i, found in zip(awaited, grown, strict=True):
                self._put(parts[i], found)
                step.progress(i, parts[i].canvas.seen, len(parts[i].grid))
        return [part.canvas for part in parts]

    def _put(self, part: Part, found: Pixels) -> None:
        """Mix what was made of a tile, [3, height, width], into its picture."""
        found = found.clip(0, 1)
        if part.grey:
            found = found.mean(axis=0, keepdims=True)
        part.add(in_16_bits(found, part.weights(self._tiling.scale)), self._tiling.scale)

    def finish(self, request: ImageUpscale, raws: Sequence[Canvas]) -> Outcome:
        """The picture, as a file."""
        image = raws[0].picture()
        return Outcome(Picture(encode(image, request, threads=self._threads), *image.size))

    def metrics(self) -> Mapping[str, float]:
        """What it has computed: `rows` / `batches` is how many tiles went together."""
        return {"batches": self._batches, "rows": self._tiles}

    def memory(self) -> Mapping[str, int]:
        """What it takes on GPUs, which onnxruntime does not tell."""
        return {}


def _core(request: ImageUpscale, side: int, reach: int) -> int:
    """What a graph that takes tiles of one size leaves of it, without the overlaps. Raises InvalidInput."""
    if request.tile_size is not None:
        raise InvalidInput(
            f"the network takes tiles of {side} pixels and nothing else",
            field="tile_size",
            hint="leave `tile_size` out",
        )
    core = side - 2 * (reach if request.tile_pad_size is None else request.tile_pad_size)
    if core < _SMALLEST_TILE:
        raise InvalidInput(
            f"`tile_pad_size` is too large for tiles of {side} pixels",
            field="tile_pad_size",
            hint=f"{(side - _SMALLEST_TILE) // 2} is the most",
        )
    return core


class _Graph:
    """A graph that makes pictures larger, and what was tried out.

    side      of the square that it takes; None: any size
    multiple  of which the sides are that it takes
    scale     how many times larger it makes them
    reach     how many pixels away from another one may still change it
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        if len(session.inputs) != 1 or len(session.outputs) != 1:
            raise unfit(session, "makes no picture of a picture: it has not one input and one output")
        (self._input,), (self._output,) = session.inputs.values(), session.outputs.values()
        shape = self._input.shape
        if len(shape) != 4 or shape[1] not in (3, None) or shape[2] != shape[3]:
            raise unfit(session, "takes no squares of three colours, [pictures, 3, height, width]")
        self.side = shape[2]
        self.multiple, self.scale = self._tried_sizes()
        self.reach = self._tried_reach()

    def tiling(self, core: int) -> Tiling:
        """How tiles go through it, of so many pixels to a side without their overlaps."""
        window = max(core, SMALLEST_CORE) + 2 * self.reach
        window = self.side or -(-window // self.multiple) * self.multiple
        return Tiling(self.scale, window, self.reach, self.multiple, self.side or 1)

    def grown(self, pictures: Pixels) -> Pixels:
        """float32 from 0 to 1, [pictures, 3, height, width], and the same with larger sides."""
        fixed = self._input.shape[0]
        size = fixed or len(pictures)
        parts = []
        for at in range(0, len(pictures), size):
            part = pictures[at : at + size]
            missing = size - len(part) if fixed else 0
            filled = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
            found = self._session.run({self._input.name: filled}, [self._output.name])[self._output.name]
            parts.append(found[: len(part)].astype(np.float32, copy=False))
        return np.concatenate(parts)

    def _tried_sizes(self) -> tuple[int, int]:
        """Which multiples the graph takes, and its scale. Raises ModelLoadError if it takes nothing."""
        tries = [(1, self.side, self.side)] if self.side else [(m, 5 * m, 7 * m) for m in _MULTIPLES]
        why: ModelComposeError | None = None
        for multiple, height, width in tries:
            try:
                found = self.grown(np.full((1, 3, height, width), 0.5, np.float32))
            except EngineError as error:
                why = why or error
                continue
            scale = found.shape[-1] // width if found.ndim == 4 else 0
            if scale >= 1 and found.shape == (1, 3, height * scale, width * scale):
                return multiple, scale
        raise unfit(self._session, f"makes no picture larger: {why or 'its output has another shape'}")

    def _tried_reach(self) -> int:
        """How far the graph sees: two windows of one strip differ where one of them is cut.

        It cannot be found beyond a quarter of a window: a network that sees farther sees little there.
        """
        height, width = (self.side or -(-size // self.multiple) * self.multiple for size in _TRIED)
        half = width // 2 // self.multiple * self.multiple
        strip = _picture(height, half + width)
        first = self.grown(strip[None, :, :, :width])[0, :, :, half * self.scale :]
        second = self.grown(strip[None, :, :, half:])[0, :, :, : first.shape[2]]
        differs = np.abs(first - second).max(axis=(0, 1)) > _UNSEEN
        near = differs[: len(differs) // 2]
        return -(-_last(near) // self.scale)


def _last(found: NDArray[np.bool_]) -> int:
    """How many there are up to the last one that is true."""
    where = np.flatnonzero(found)
    return int(where[-1]) + 1 if where.size else 0


def _picture(height: int, width: int) -> Pixels:
    """A picture with something of every size in it: float32 from 0 to 1, [3, height, width]."""
    chance = np.random.default_rng(0)
    found = np.zeros((3, height, width), np.float32)
    for size in (1, 2, 4, 8, 16):
        noise = chance.random((3, -(-height // size), -(-width // size)), np.float32)
        found += noise.repeat(size, axis=1).repeat(size, axis=2)[:, :height, :width] / 5
    scaled: Pixels = (found - found.min()) / (found.max() - found.min())
    return scaled
