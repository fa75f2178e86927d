"""What does OpenAI's API cost on top of the engine?

A streamed conversation, through our `/v1/chat/completions` and through the listener that the engine itself
brings, with the same client, GGUF, template and settings: completion tokens per second as each side's `usage`
has them, and the time to the first word. Questions differ, so that nobody profits from a cache. Prompts are
computed in the pieces that each side chooses: 96 tokens here, 512 there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import AsyncIterator
from typing import Any

from tests.models import smollm2

from bench.client import Connection
from bench.processes import answers, free_port, program, service
from bench.stats import Report

PAIRS = 15
TOKENS = 96
THREADS = 2
SLOTS = 8
CONTEXT = 1024
PATH = "/v1/chat/completions"
#: What the first word may take longer, in milliseconds.
MORE_MS = 5

FILE = f"""
controller: {{port: {{port}}}}
threads: {THREADS}
component:
  id: chat
  type: model
  task: chat-completion
  model: {smollm2()}
  batch_size: {SLOTS}
  options: {{context_length: {CONTEXT}}}
"""

REFERENCE = f"""
import sys
import xllamacpp as x
p = x.CommonParams()
p.model.path = sys.argv[1]
p.n_ctx, p.n_parallel = {CONTEXT * SLOTS}, {SLOTS}
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = {THREADS}
p.n_gpu_layers, p.verbosity, p.ui, p.fit_params = 0, -1, False, False
p.n_batch = p.n_ubatch = 512
p.cache_ram_mib = 0
p.port = int(sys.argv[2])
server = x.Server(p)
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.asynccontextmanager
async def _reference() -> AsyncIterator[int]:
    """The engine by itself; -> the port of its listener."""
    port = free_port()
    with program("-c", REFERENCE, str(smollm2()), str(port)) as process:
        assert process.stdout is not None
        await asyncio.to_thread(process.stdout.readline)
        await answers(f"http://127.0.0.1:{port}/health")
        yield port


def _body(caller: int, turn: int) -> bytes:
    question = f"Tell me story number {turn}, chapter {caller}, of a village by the sea."
    body: dict[str, Any] = {
        "model": "chat",
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "top_k": 1,
        "seed": 1,
        "max_tokens": TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return json.dumps(body).encode()


async def _one(port: int, caller: int, turn: int) -> tuple[int, float]:
    """Tokens of one conversation, and the seconds until its first word."""
    connection = Connection(port)
    await connection.open()
    began = time.perf_counter()
    events, times = await connection.events(PATH, _body(caller, turn))
    connection.close()
    last = next(event for event in reversed(events) if b'"usage":{' in event)
    tokens = int(json.loads(last.removeprefix(b"data: "))["usage"]["completion_tokens"])
    first = next(at for event, at in zip(events, times, strict=True) if _speaks(event))
    return tokens, first - began


def _speaks(event: bytes) -> bool:
    choices = json.loads(event.removeprefix(b"data: ")).get("choices") if b'"content"' in event else None
    return bool(choices and choices[0]["delta"].get("content"))


async def measure(port: int, callers: int, turn: int) -> tuple[float, float]:
    """Tokens per second of so many callers at once, and the median time to a first word."""
    began = time.perf_counter()
    found = await asyncio.gather(*(_one(port, caller, turn) for caller in range(callers)))
    rate = sum(tokens for tokens, _ in found) / (time.perf_counter() - began)
    return rate, statistics.median(first for _, first in found)


async def compare(
    report: Report, ours: int, theirs: int, whose: str, more_ms: float, alone: int = PAIRS
) -> None:
    """One caller and eight of two servers, by their ports; `alone` is how many pairs one caller makes."""
    for callers, pairs in ((1, alone), (8, PAIRS)):
        rates: tuple[list[float], list[float]] = ([], [])
        firsts: tuple[list[float], list[float]] = ([], [])
        ports = ((0, ours), (1, theirs))
        for turn in range(-1, pairs):
            for i, port in ports if turn % 2 else reversed(ports):
                rate, first = await measure(port, callers, turn)
                if turn >= 0:  # the first warms up
                    rates[i].append(rate)
                    firsts[i].append(first)
        what = f"{callers} stream{'s' * (callers > 1)}"
        report.compare(f"{what} ÷ {whose}", *rates, "tok/s", at_least=0.95)
        more = [(a - b) * 1e3 for a, b in zip(*firsts, strict=True)]
        report.single(f"{what}: first word, beyond {whose}'s", more, "ms", at_most=more_ms)
        report.single(f"{what}: first word", [first * 1e3 for first in firsts[0]], "ms")


async def main(report: Report) -> None:
    report.title("OpenAI's API: completion tokens/s and time to the first word")
    async with _reference() as listener, service(FILE) as (ours, _):
        await compare(report, ours, listener, "the engine's own listener", MORE_MS)
