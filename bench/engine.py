"""How much of llama.cpp's speed is left through us?

Completion tokens per second, from the `usage` that each side reports, with the same client, GGUF and
settings: through our HTTP streaming, through the HTTP listener that the engine itself brings, and by
calls inside a process. Prompts differ between callers and pairs, so that nobody profits from a cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from tests.models import smollm2

from bench.client import Connection
from bench.processes import answers, free_port, program, service
from bench.stats import Report

PAIRS = 15
TOKENS = 96
THREADS = 2
SLOTS = 8
CONTEXT = 1024

MODEL = f"""
    type: model
    task: text-generation
    model: {{model}}
    batch_size: {SLOTS}
    options: {{{{context_length: {CONTEXT}}}}}
"""

Measure = Callable[[int, int], Awaitable[float]]


def _prompt(caller: int, turn: int) -> str:
    return f"Story number {turn}, chapter {caller}. Once upon a time, in a village by the sea,"


def _request(caller: int, turn: int) -> dict[str, object]:
    return {"prompt": _prompt(caller, turn), "temperature": 0.0, "top_k": 1, "seed": 1}


async def _ours(port: int, workflow: str, callers: int, turn: int) -> float:
    """Tokens per second of so many callers at once."""

    async def one(caller: int) -> int:
        body = {"workflow_id": workflow, "input": {**_request(caller, turn), "max_output_length": TOKENS}}
        connection = Connection(port)
        await connection.open()
        events, _ = await connection.events("/api/workflows/runs", json.dumps(body).encode())
        connection.close()
        return int(json.loads(events[-1].split(b"data: ")[1])["usage"]["completion_tokens"])

    return await _rate(one, callers)


async def _listener(port: int, callers: int, turn: int) -> float:
    async def one(caller: int) -> int:
        body = {**_request(caller, turn), "max_tokens": TOKENS, "stream": True}
        body["stream_options"] = {"include_usage": True}
        connection = Connection(port)
        await connection.open()
        events, _ = await connection.events("/v1/completions", json.dumps(body).encode())
        connection.close()
        last = next(e for e in reversed(events) if b'"usage"' in e)
        return int(json.loads(last.split(b"data: ")[1])["usage"]["completion_tokens"])

    return await _rate(one, callers)


async def _rate(one: Callable[[int], Awaitable[int]], callers: int) -> float:
    began = time.perf_counter()
    tokens = sum(await asyncio.gather(*map(one, range(callers))))
    return tokens / (time.perf_counter() - began)


REFERENCE = f"""
import json, sys, time
import xllamacpp as x
p = x.CommonParams()
p.model.path = sys.argv[1]
p.n_ctx, p.n_parallel = {CONTEXT * SLOTS}, {SLOTS}
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = {THREADS}
p.n_gpu_layers, p.verbosity, p.ui, p.fit_params = 0, -1, False, False
p.n_batch = p.n_ubatch = 512
p.port = int(sys.argv[2])
server = x.Server(p)
print("ready", flush=True)
for line in sys.stdin:
    began = time.perf_counter()
    request = json.loads(line)
    answer = server.handle_completions(request)
    print(answer["usage"]["completion_tokens"] / (time.perf_counter() - began), flush=True)
"""


@contextlib.asynccontextmanager
async def _reference() -> AsyncIterator[tuple[int, Callable[[int], Awaitable[float]]]]:
    """The engine by itself: the port of its listener, and calls inside its process."""
    port = free_port()
    with program("-c", REFERENCE, str(smollm2()), str(port)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout
        await asyncio.to_thread(stdout.readline)
        await answers(f"http://127.0.0.1:{port}/health")

        async def inside(turn: int) -> float:
            stdin.write(json.dumps({**_request(0, turn), "max_tokens": TOKENS}).encode() + b"\n")
            stdin.flush()
            return float(await asyncio.to_thread(stdout.readline))

        yield port, inside


def _file(*names: str, preload: str = "true") -> str:
    model = MODEL.format(model=smollm2())
    components = "".join(f"  - id: {name}{model}    preload: {preload}\n" for name in names)
    return f"controller: {{port: {{port}}}}\nthreads: {THREADS}\ncomponents:\n{components}"


async def main(report: Report) -> None:
    report.title("llama.cpp through us: completion tokens/s")
    async with _reference() as (listener, inside), service(_file("a")) as (port, _):

        async def ours(callers: int, turn: int) -> float:
            return await _ours(port, "__workflow__", callers, turn)

        async def theirs(callers: int, turn: int) -> float:
            return await _listener(listener, callers, turn)

        async def in_process(callers: int, turn: int) -> float:
            return await inside(turn)

        for callers in (1, 4, 8):
            what = f"{callers} stream{'s' if callers > 1 else ''} ÷ the engine's own listener"
            report.compare(what, *await _pairs(ours, theirs, callers), "tok/s", at_least=0.95)
        report.compare(
            "1 stream ÷ calls in the process", *await _pairs(ours, in_process, 1), "tok/s", at_least=0.85
        )
    await _sharing(report)


async def _pairs(ours: Measure, theirs: Measure, callers: int) -> tuple[list[float], list[float]]:
    found: tuple[list[float], list[float]] = ([], [])
    await ours(callers, -1)
    await theirs(callers, -1)
    for turn in range(PAIRS):
        order = ((0, ours), (1, theirs)) if turn % 2 else ((1, theirs), (0, ours))
        for i, measure in order:
            found[i].append(await measure(callers, turn))
    return found


async def _sharing(report: Report) -> None:
    report.title("Two models on one machine")
    async with service(_file("a")) as (alone, _), service(_file("a", "b")) as (shared, _):

        async def beside_idle(callers: int, turn: int) -> float:
            return await _ours(shared, "a", callers, turn)

        async def by_itself(callers: int, turn: int) -> float:
            return await _ours(alone, "__workflow__", callers, turn)

        async def both(callers: int, turn: int) -> float:
            rates = await asyncio.gather(*(_ours(shared, name, callers, turn) for name in ("a", "b")))
            return sum(rates)

        for callers in (1, 8):
            pairs = await _pairs(beside_idle, by_itself, callers)
            report.compare(f"A beside an idle B ÷ A alone, {callers} callers", *pairs, "tok/s", at_least=0.95)
        pairs = await _pairs(both, by_itself, 8)
        report.compare("A and B, 8 callers each ÷ one with 8", *pairs, "tok/s", at_least=0.8)


if __name__ == "__main__":
    sys.exit("run `python -m bench engine`")
