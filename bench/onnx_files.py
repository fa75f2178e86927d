"""How much of onnxruntime's speed is left through us?

Photos per second of one caller, through our HTTP, against a program that does the same by itself: decode,
scale, YuNet, turn the face upright, SFace. And texts per second of eight callers to one ONNX embedder, one
text in a request, against one hand-made batch of eight: tokenized, padded, computed, averaged. Same files,
same number of threads. There is no real ONNX classifier or embedder of images to be had; faces are images.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data
from tests.models import minilm_onnx, yunet_sface

from bench.client import Connection
from bench.encoders import sentences
from bench.processes import program, service
from bench.stats import Report

PAIRS = 15
PHOTOS = 20
CALLERS = 8
TEXTS = 160

FILE = """
controller: {{port: {{port}}}}
threads: {threads}
component: {{id: one, type: model, {model}}}
"""
FACES = "task: face-embedding, architecture: yunet-sface, model: {model}"
EMBEDDER = "task: text-embedding, driver: custom, model: {model}"

_SETTINGS = """
import json, sys, time
import numpy as np
import onnxruntime
settings = onnxruntime.SessionOptions()
settings.intra_op_num_threads = int(sys.argv[2])
def opened(name):
    return onnxruntime.InferenceSession(f"{sys.argv[1]}/{name}", settings, providers=["CPUExecutionProvider"])
"""

#: As anybody would write it down who has one photo with one face.
FACES_ALONE = (
    _SETTINGS
    + """
import base64, io
from PIL import Image
from model_compose.tasks.face_embedding.geometry import upright
detector = opened("face_detection_yunet_2023mar.onnx")
recogniser = opened("face_recognition_sface_2021dec.onnx")
names = [each.name for each in detector.get_outputs()]
def once(encoded):
    image = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    scale = 640 / max(image.size)
    square = np.zeros((640, 640, 3), np.uint8)
    size = round(image.width * scale), round(image.height * scale)
    square[: size[1], : size[0]] = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    given = square[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32)
    found = dict(zip(names, detector.run(None, {"input": given})))
    best = None
    for stride in (8, 16, 32):
        score = np.sqrt(found[f"cls_{stride}"] * found[f"obj_{stride}"])[0, :, 0]
        i = int(score.argmax())
        if best is None or score[i] > best[0]:
            y, x = divmod(i, 640 // stride)
            best = score[i], (found[f"kps_{stride}"][0, i].reshape(5, 2) + [x, y]) * stride / scale
    face = upright(image, best[1])
    vector = recogniser.run(None, {"data": face.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]
    return vector / np.linalg.norm(vector)
for line in sys.stdin:
    photos = json.loads(line)
    began = time.perf_counter()
    for photo in photos:
        once(photo)
    print(len(photos) / (time.perf_counter() - began), flush=True)
"""
)
TEXTS_ALONE = (
    _SETTINGS
    + """
from tokenizers import Tokenizer
session = opened("onnx/model_quantized.onnx")
tokenizer = Tokenizer.from_file(f"{sys.argv[1]}/tokenizer.json")
tokenizer.enable_padding()
tokenizer.enable_truncation(256)
def batch(texts):
    found = tokenizer.encode_batch(texts)
    mask = np.array([each.attention_mask for each in found])
    given = {
        "input_ids": np.array([each.ids for each in found]),
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(mask),
    }
    hidden = session.run(None, given)[0]
    vectors = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).tolist()
for line in sys.stdin:
    texts = json.loads(line)
    began = time.perf_counter()
    for at in range(0, len(texts), 8):
        batch(texts[at : at + 8])
    print(len(texts) / (time.perf_counter() - began), flush=True)
"""
)

Rate = Callable[[list[str]], Awaitable[float]]


@contextlib.asynccontextmanager
async def alone(code: str, model: Path, threads: int) -> AsyncIterator[Rate]:
    """onnxruntime by itself, in a process of its own."""
    with program("-c", code, str(model), str(threads)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        async def rate(values: list[str]) -> float:
            stdin.write(json.dumps(values).encode() + b"\n")
            stdin.flush()
            return float(await asyncio.to_thread(stdout.readline))

        yield rate


def through_us(port: int, field: str, callers: int) -> Rate:
    """One value in a request; so many callers at once, each waiting for its answer before the next."""

    async def rate(values: list[str]) -> float:
        left = iter(values)

        async def caller() -> None:
            connection = Connection(port)
            await connection.open()
            for value in left:  # shared: who is free takes the next
                body = json.dumps({"input": {field: value}, "output_only": True}).encode()
                await connection.post("/api/workflows/runs", body)
            connection.close()

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(callers)))
        return len(values) / (time.perf_counter() - began)

    return rate


def photo(turn: int) -> str:
    """The astronaut as a JPEG, a little different each time."""
    file = io.BytesIO()
    astronaut = data.astronaut()  # type: ignore[no-untyped-call]
    Image.fromarray(np.roll(astronaut, turn % 8, axis=1)).save(file, "JPEG", quality=90)
    return base64.b64encode(file.getvalue()).decode()


async def _pairs(
    ours: Rate, theirs: Rate, values: Callable[[int], list[str]]
) -> tuple[list[float], list[float]]:
    found: tuple[list[float], list[float]] = ([], [])
    await ours(values(-1))
    await theirs(values(-1))
    for turn in range(PAIRS):
        given = values(turn)
        order = ((0, ours), (1, theirs)) if turn % 2 else ((1, theirs), (0, ours))
        for i, measure in order:
            found[i].append(await measure(given))
    return found


async def main(report: Report) -> None:
    for threads in (1, 2):
        report.title(f"face-embedding, one photo after the other, {threads} thread(s): photos/s")
        file = FILE.format(threads=threads, model=FACES.format(model=yunet_sface()))
        async with alone(FACES_ALONE, yunet_sface(), threads) as theirs, service(file) as (port, _):
            ours = through_us(port, "image", 1)
            values = await _pairs(ours, theirs, lambda turn: [photo(turn + i) for i in range(PHOTOS)])
            report.compare("ours ÷ onnxruntime by itself", *values, "/s", at_least=0.9)
    for threads in (1, 2):
        report.title(f"text-embedding, {CALLERS} callers, {threads} thread(s): texts/s")
        file = FILE.format(threads=threads, model=EMBEDDER.format(model=minilm_onnx()))
        async with alone(TEXTS_ALONE, minilm_onnx(), threads) as theirs, service(file) as (port, _):
            ours = through_us(port, "text", CALLERS)
            values = await _pairs(ours, theirs, lambda turn: sentences(TEXTS, turn))
            report.compare("ours ÷ batches of eight by hand", *values, "/s", at_least=0.9)


if __name__ == "__main__":
    sys.exit("run `python -m bench onnx_files`")
