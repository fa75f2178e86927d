"""How much of an upscaling network's speed is left through us, and can tiles be seen?

A photograph of 512 x 512 pixels becomes one of 2048 x 2048. Ours: the photograph in, a PNG out, over HTTP,
one after the other. The reference is the network by itself in a process of its own, which has the very same
tiles as numbers already, in the same order in memory, and throws away what it makes of them. Same weights,
same number of threads.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image
from skimage import data
from tests.models import animevideov3

from bench.client import Connection
from bench.processes import program, service
from bench.stats import Report

PAIRS = 7
THREADS = 2
#: Of the tiles without what they reach into their neighbours; None is the default, here the whole image.
TILES = (None, 128)

FILE = """
controller: {port: {port}}
threads: %(threads)d
component:
  {id: upscaler, type: model, task: image-upscale, architecture: real-esrgan, model: %(model)s,
   image: '${input.image as image}', tile_size: '${input.tile_size as integer}'}
"""
REFERENCE = """
import json, sys, time
import torch
from tests.engines import load_options
from model_compose.tasks.image_upscale.network import Upscaler
from model_compose.tasks.image_upscale.spec import ImageUpscale
from model_compose.types import Blob
from pathlib import Path
torch.set_num_threads(int(sys.argv[2]))
ours = Upscaler()
ours.load(load_options(Path(sys.argv[1]), "image-upscale"), lambda *_: None)
torch.set_num_threads(int(sys.argv[2]))
network = ours._network
picture = Blob("image/png", Path(sys.argv[3]).read_bytes())
for line in sys.stdin:
    items = ours.prepare(ImageUpscale(image=picture, tile_size=json.loads(line)))
    numbers = [torch.from_numpy(item.payload.numbers())[None] for item in items]
    tiles = [each.contiguous(memory_format=torch.channels_last) for each in numbers]
    began = time.perf_counter()
    for tile in tiles:
        network(tile)
    print(time.perf_counter() - began, flush=True)
"""

Seconds = Callable[[int | None], Awaitable[float]]


def photograph() -> bytes:
    """As a file."""
    out = io.BytesIO()
    Image.fromarray(data.astronaut()).save(out, "png")  # type: ignore[no-untyped-call]
    return out.getvalue()


@contextlib.asynccontextmanager
async def bare(path: str) -> AsyncIterator[Seconds]:
    """The network by itself."""
    with program("-c", REFERENCE, str(animevideov3()), str(THREADS), path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        async def seconds(tile: int | None) -> float:
            stdin.write(json.dumps(tile).encode() + b"\n")
            stdin.flush()
            return float(await asyncio.to_thread(stdout.readline))

        yield seconds


async def upscaled(port: int, photo: bytes, tile: int | None) -> bytes:
    """The large photograph, over HTTP."""
    connection = Connection(port)
    await connection.open()
    uri = f"data:image/png;base64,{base64.b64encode(photo).decode()}"
    body = {"input": {"image": uri, "tile_size": tile}, "output_only": True}
    found = await connection.post("/api/workflows/runs", json.dumps(body).encode())
    connection.close()
    return found


async def main(report: Report) -> None:
    photo = photograph()
    file = FILE % {"threads": THREADS, "model": animevideov3()}
    with _file(photo) as path:
        async with bare(path) as theirs, service(file) as (port, _):

            async def ours(tile: int | None) -> float:
                began = time.perf_counter()
                await upscaled(port, photo, tile)
                return time.perf_counter() - began

            for tile in TILES:
                what = "one tile" if tile is None else f"tiles of {tile}"
                report.title(f"512 x 512 to 2048 x 2048 over HTTP, {what}, {THREADS} threads: images/s")
                await ours(tile)
                await theirs(tile)
                report.compare(
                    "ours ÷ the bare network on the same tiles",
                    *await _pairs(ours, theirs, tile),
                    "/s",
                    at_least=0.95,
                )
            await _seams(report, port, photo)


async def _pairs(ours: Seconds, theirs: Seconds, tile: int | None) -> tuple[list[float], list[float]]:
    """Images a second, in turns."""
    found: tuple[list[float], list[float]] = ([], [])
    for turn in range(PAIRS):
        order = ((0, ours), (1, theirs)) if turn % 2 else ((1, theirs), (0, ours))
        for i, measure in order:
            found[i].append(1 / await measure(tile))
    return found


async def _seams(report: Report, port: int, photo: bytes) -> None:
    report.title("tiles of 128 against the whole image: levels of 255")
    whole = _numbers(await upscaled(port, photo, 0))
    differ = np.abs(_numbers(await upscaled(port, photo, 128)) - whole)
    report.single("mean difference", [float(differ.mean())], "levels", at_most=0.05)
    report.single("largest difference", [float(differ.max())], "levels", at_most=3)


def _numbers(photo: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(photo))).astype(np.float32)


@contextlib.contextmanager
def _file(photo: bytes) -> Iterator[str]:
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        file.write(photo)
        file.flush()
        yield file.name


if __name__ == "__main__":
    sys.exit("run `python -m bench upscale`")
