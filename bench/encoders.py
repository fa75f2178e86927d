"""How much of an encoder's speed is left through us, and how much memory does a long list take?

Texts per second. Ours: one text in a request, over HTTP, from 32 callers at once; and 10,000 texts in one
request. The reference is what a program does that has all texts in its hands: one `encode` of
sentence-transformers, one call of a pipeline of transformers, each with the batch size that is best on this
machine. Same texts, same weights, same number of threads that compute.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psutil
from tests.models import langid, minilm_hf

from bench.client import Connection
from bench.processes import program, service
from bench.stats import Report

PAIRS = 15
CALLERS = 32
TEXTS = 480
LONG_PAIRS = 3
LONG = 10_000
BATCH_SIZES = (8, 16, 32, 64, 128)
#: The runtime asks a worker every so many seconds what it has counted.
MEASURED_EVERY_S = 5.0

WORDS = Path(__file__).with_name("encoders.py").read_text().split('"""')[1].split()

REFERENCE = {
    "text-embedding": """
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu")
def run(texts, batch_size):
    return model.encode(texts, batch_size=batch_size)
""",
    "text-classification": """
from transformers import pipeline
model = pipeline("text-classification", sys.argv[1], device="cpu", dtype=torch.float32)
def run(texts, batch_size):
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    return model([texts[i] for i in order], batch_size=batch_size, truncation=True)
""",
}
LOOP = """
import json, sys, time
import torch
torch.set_num_threads(int(sys.argv[2]))
{run}
for line in sys.stdin:
    texts, batch_size = json.loads(line)
    began = time.perf_counter()
    run(texts, batch_size)
    print(time.perf_counter() - began, flush=True)
"""

FILE = """
controller: {{port: {{port}}}}
threads: {threads}
component: {{id: encoder, type: model, task: {task}, driver: huggingface, model: {model}}}
"""

Rate = Callable[[list[str]], Awaitable[float]]


def sentences(count: int, turn: int) -> list[str]:
    """Sentences of 4 to 24 words, which differ from turn to turn."""
    chance = random.Random(turn)
    return [" ".join(chance.choices(WORDS, k=chance.randint(4, 24))) for _ in range(count)]


@contextlib.asynccontextmanager
async def reference(task: str, model: Path, threads: int) -> AsyncIterator[tuple[Rate, psutil.Process]]:
    """The library by itself, in a process of its own, at the batch size that turns out best."""
    with program("-c", LOOP.format(run=REFERENCE[task]), str(model), str(threads)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        async def rate(texts: list[str], batch_size: int) -> float:
            stdin.write(json.dumps([texts, batch_size]).encode() + b"\n")
            stdin.flush()
            return len(texts) / float(await asyncio.to_thread(stdout.readline))

        await rate(sentences(64, -1), 32)
        rates = {size: max([await rate(sentences(TEXTS, -i), size) for i in (2, 3)]) for size in BATCH_SIZES}
        best = max(rates, key=lambda size: rates[size])
        print(f"     the reference is best with batches of {best}", flush=True)
        yield (lambda texts: rate(texts, best)), psutil.Process(process.pid)


async def one_by_one(port: int, texts: list[str]) -> float:
    """One text in a request; so many callers at once, each waiting for its answer before the next."""
    left = iter(texts)

    async def caller() -> None:
        connection = Connection(port)
        await connection.open()
        for text in left:  # shared: who is free takes the next
            await connection.post("/api/workflows/runs", _body(text))
        connection.close()

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return len(texts) / (time.perf_counter() - began)


async def all_in_one(port: int, texts: list[str]) -> float:
    """All texts in one request."""
    connection = Connection(port)
    await connection.open()
    began = time.perf_counter()
    await connection.post("/api/workflows/runs", _body(texts))
    connection.close()
    return len(texts) / (time.perf_counter() - began)


def _body(text: str | list[str]) -> bytes:
    return json.dumps({"input": {"text": text}, "output_only": True}).encode()


async def _pairs(ours: Rate, theirs: Rate, pairs: int, count: int) -> tuple[list[float], list[float]]:
    found: tuple[list[float], list[float]] = ([], [])
    for turn in range(pairs):
        texts = sentences(count, turn)
        order = ((0, ours), (1, theirs)) if turn % 2 else ((1, theirs), (0, ours))
        for i, measure in order:
            found[i].append(await measure(texts))
    return found


async def _mean_batch(port: int) -> float:
    """Rows of a batch, from what the worker has counted since it started."""
    await asyncio.sleep(MEASURED_EVERY_S + 1)

    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
            return str(response.read().decode())

    shown = await asyncio.to_thread(read)
    rows, batches = (
        float(re.findall(rf'^model_compose_engine\{{.*metric="{name}".*\}} (\S+)$', shown, re.M)[0])
        for name in ("rows", "batches")
    )
    return rows / batches


def _peak_mib(*processes: psutil.Process) -> float:
    """The most memory that processes have had, each since it started."""
    lines = [Path(f"/proc/{process.pid}/status").read_text() for process in processes]
    return sum(int(re.findall(r"VmHWM:\s+(\d+) kB", text)[0]) for text in lines) / 1024


async def main(report: Report) -> None:
    for task, model in (("text-embedding", minilm_hf()), ("text-classification", langid())):
        for threads, bound in ((1, 0.9), (2, 0.65)):
            await _calls(report, task, model, threads, bound)
        await _list(report, task, model)


async def _calls(report: Report, task: str, model: Path, threads: int, bound: float) -> None:
    report.title(f"{task}, one text in a request, {CALLERS} callers, {threads} thread(s): texts/s")
    file = FILE.format(threads=threads, task=task, model=model)
    async with reference(task, model, threads) as (theirs, _), service(file) as (port, _):

        async def ours(texts: list[str]) -> float:
            return await one_by_one(port, texts)

        await ours(sentences(TEXTS, -1))
        pairs = await _pairs(ours, theirs, PAIRS, TEXTS)
        report.compare("ours ÷ the library, which has all texts", *pairs, "/s", at_least=bound)
        report.single("rows of a batch, at least 12", [await _mean_batch(port)], "rows", at_least=12)


async def _list(report: Report, task: str, model: Path) -> None:
    threads = 2
    report.title(f"{task}, {LONG:,} texts in one request, {threads} threads: texts/s and memory")
    file = FILE.format(threads=threads, task=task, model=model)
    async with reference(task, model, threads) as (theirs, raw), service(file) as (port, gateway):

        async def ours(texts: list[str]) -> float:
            return await all_in_one(port, texts)

        pairs = await _pairs(ours, theirs, LONG_PAIRS, LONG)
        report.compare("ours ÷ the library", *pairs, "/s", at_least=0.95)
        worker = max(gateway.children(recursive=True), key=lambda process: process.memory_info().rss)
        peak = _peak_mib(raw)
        report.compare("peak memory, worker ÷ the library", [_peak_mib(worker)], [peak], "MiB", at_most=1.3)
        report.compare(
            "peak memory, service and worker ÷ the library",
            [_peak_mib(worker, gateway)],
            [peak],
            "MiB",
            at_most=1.3,
        )


if __name__ == "__main__":
    sys.exit("run `python -m bench encoders`")
