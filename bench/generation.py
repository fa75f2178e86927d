"""How much of transformers' speed is left through us, and what does sharing forward passes give?

SmolLM2 in float32, 64 new tokens for every caller, temperature 0. The reference is the library in a process
of its own: `generate` on one padded batch, its own manager of continuous batching, and `transformers
serve`. Everything is asked over HTTP on our side.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.models import pirate_peft, smollm2_hf

from bench.client import Connection
from bench.processes import answers, free_port, program, service
from bench.stats import Report

PAIRS = 5
TOKENS = 64
THREADS = 2

MODEL = """
    type: model
    task: {task}
    driver: huggingface
    model: {model}
    batch_size: 32
"""

REFERENCE = f"""
import asyncio, json, sys, time
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
torch.set_num_threads({THREADS})
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], padding_side="left")

@torch.inference_mode()
def batch(prompts):
    given = tokenizer(prompts, return_tensors="pt", padding=True)
    model.generate(**given, max_new_tokens={TOKENS}, min_new_tokens={TOKENS}, do_sample=False)

def manager(prompts):
    from transformers.generation.configuration_utils import ContinuousBatchingConfig
    own = GenerationConfig(max_new_tokens={TOKENS}, do_sample=False, eos_token_id=-1, pad_token_id=2)
    found = model.init_continuous_batching(
        generation_config=own,
        continuous_batching_config=ContinuousBatchingConfig(num_blocks=64, max_batch_tokens=128),
    )
    found.start()
    begin = time.perf_counter()
    for i, prompt in enumerate(prompts):
        found.add_request(tokenizer(prompt).input_ids, request_id=str(i), max_new_tokens={TOKENS})
    ended, tokens = 0, 0
    while ended < len(prompts):
        result = found.get_result(timeout=60)
        if result is not None and result.is_finished():
            ended += 1
            tokens += len(result.generated_tokens)
    took = time.perf_counter() - begin
    found.stop(block=True)
    assert tokens == len(prompts) * {TOKENS}, tokens
    return took

print("ready", flush=True)
for line in sys.stdin:
    kind, prompts = json.loads(line)
    began = time.perf_counter()
    took = batch(prompts) if kind == "batch" else manager(prompts)
    print(took or time.perf_counter() - began, flush=True)
"""

BARE = """
import time

began = time.perf_counter()
import torch
from transformers.models.llama.modeling_llama import LlamaForCausalLM
LlamaForCausalLM.from_pretrained({model!r}, dtype=torch.float32)
print(time.perf_counter() - began)
"""

Ask = Callable[[str, list[str]], Awaitable[float]]


def prompts(callers: int, turn: int) -> list[str]:
    return [
        f"Story number {turn}, chapter {i}. Once upon a time, in a village by the sea,"
        for i in range(callers)
    ]


def _file(*names: str, task: str = "text-generation", more: str = "", preload: str = "true") -> str:
    model = MODEL.format(task=task, model=smollm2_hf())
    components = "".join(f"  - id: {name}{model}{more}    preload: {preload}\n" for name in names)
    return f"controller: {{port: {{port}}}}\nthreads: {THREADS}\ncomponents:\n{components}"


async def _stream(port: int, workflow: str, given: dict[str, Any]) -> tuple[int, float, list[float]]:
    """Tokens of one streamed request, when it began, and when each event came."""
    connection = Connection(port)
    await connection.open()
    began = time.perf_counter()
    body = {"workflow_id": workflow, "input": given}
    events, times = await connection.events("/api/workflows/runs", json.dumps(body).encode())
    connection.close()
    last = json.loads(events[-1].split(b"data: ")[1])
    return int(last["usage"]["completion_tokens"]), began, times


def _given(prompt: str, **more: Any) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "temperature": 0,
        "max_output_length": TOKENS,
        "min_output_length": TOKENS,
        **more,
    }


async def _ours(port: int, texts: list[str], workflow: str = "__workflow__", **more: Any) -> float:
    """Tokens per second of so many callers at once."""
    began = time.perf_counter()
    ends = await asyncio.gather(*(_stream(port, workflow, _given(text, **more)) for text in texts))
    return sum(tokens for tokens, _, _ in ends) / (time.perf_counter() - began)


@contextlib.asynccontextmanager
async def _reference() -> AsyncIterator[Ask]:
    """The library by itself; -> what asks it, and gives its tokens per second."""
    with program("-c", REFERENCE, str(smollm2_hf())) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout
        await asyncio.to_thread(stdout.readline)

        async def ask(kind: str, texts: list[str]) -> float:
            stdin.write(json.dumps([kind, texts]).encode() + b"\n")
            stdin.flush()
            return len(texts) * TOKENS / float(await asyncio.to_thread(stdout.readline))

        yield ask


async def _pairs(
    ours: Callable[[int], Awaitable[float]], theirs: Callable[[int], Awaitable[float]], pairs: int = PAIRS
) -> tuple[list[float], list[float]]:
    found: tuple[list[float], list[float]] = ([], [])
    await ours(-1)
    await theirs(-1)
    for turn in range(pairs):
        order = ((0, ours), (1, theirs)) if turn % 2 else ((1, theirs), (0, ours))
        for i, measure in order:
            found[i].append(await measure(turn))
    return found


async def main(report: Report) -> None:
    report.title("transformers through us: completion tokens/s")
    async with _reference() as ask, service(_file("a")) as (port, _):
        for callers, least in ((1, 0.95), (8, 0.9)):
            pairs = await _pairs(
                lambda turn, n=callers: _ours(port, prompts(n, turn)),  # type: ignore[misc]
                lambda turn, n=callers: ask("batch", prompts(n, turn)),  # type: ignore[misc]
            )
            what = f"{callers} caller{'s' * (callers > 1)} ÷ `generate` on one batch"
            report.compare(what, *pairs, "tok/s", at_least=least)
        pairs = await _pairs(
            lambda turn: _ours(port, prompts(32, turn)), lambda turn: ask("manager", prompts(32, turn)), 3
        )
        report.compare("32 callers ÷ the library's own manager", *pairs, "tok/s", at_least=1.0)
        await _alone_or_together(report, port)
        await _ninth(report, port)
    await _blends(report)
    await _serve(report)
    await _start(report)
    await _two_models(report)


async def _alone_or_together(report: Report, port: int) -> None:
    async def one_by_one(turn: int) -> float:
        began = time.perf_counter()
        for text in prompts(8, turn):
            await _stream(port, "__workflow__", _given(text))
        return 8 * TOKENS / (time.perf_counter() - began)

    pairs = await _pairs(lambda turn: _ours(port, prompts(8, turn)), one_by_one, 3)
    report.compare("8 callers together ÷ one after the other", *pairs, "tok/s", at_least=2.0)


async def _ninth(report: Report, port: int) -> None:
    """The first token of one that comes while 8 run, in decode steps of those beyond its time alone."""
    long = " ".join(["word"] * 64)
    extra, alone_s, steps_s = [], [], []
    for turn in range(PAIRS + 1):
        _, began, times = await _stream(port, "__workflow__", _given(f"{long} {turn}", max_output_length=64))
        alone = times[0] - began
        running = [
            asyncio.create_task(_stream(port, "__workflow__", _given(text, max_output_length=2 * TOKENS)))
            for text in prompts(8, turn)
        ]
        await asyncio.sleep(2.5)
        _, began, times = await _stream(port, "__workflow__", _given(f"{long} {turn} more"))
        ninth = times[0] - began
        gaps = []
        for _, _, arrived in await asyncio.gather(*running):
            gaps += [b - a for a, b in pairwise(arrived) if b < began]
        step = statistics.median(gaps)
        if turn:  # the first turn warms up
            extra.append((ninth - alone) / step)
            alone_s.append(alone * 1e3)
            steps_s.append(step * 1e3)
    report.single("first token alone, 64 tokens of prompt", alone_s, "ms")
    report.single("a step of 8 that run", steps_s, "ms")
    report.single("first token of a ninth, in steps beyond that", extra, "steps", at_most=2)


async def _blends(report: Report) -> None:
    adapters = f"""
    peft_adapters:
      - {{name: a, model: {pirate_peft()}}}
      - {{name: b, model: {pirate_peft()}}}
"""
    async with service(_file("a", more=adapters)) as (port, _):

        async def mixed(turn: int) -> float:
            began = time.perf_counter()
            ends = await asyncio.gather(
                *(
                    _stream(port, "__workflow__", _given(text, adapters={"a": i / 8, "b": 1 - i / 8}))
                    for i, text in enumerate(prompts(8, turn))
                )
            )
            return sum(tokens for tokens, _, _ in ends) / (time.perf_counter() - began)

        async def equal(turn: int) -> float:
            return await _ours(port, prompts(8, turn), adapters={"a": 0.5, "b": 0.5})

        report.compare(
            "8 blends ÷ one blend of 8 callers", *await _pairs(mixed, equal), "tok/s", at_least=0.8
        )


async def _serve(report: Report) -> None:
    """`transformers serve` with its continuous batching, 8 callers."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["HF_HOME"] = home
        port = free_port()
        words = ["serve", str(smollm2_hf()), "--continuous-batching", "--cb-num-blocks", "64"]
        words += ["--cb-max-batch-tokens", "128", "--port", str(port), "--dtype", "float32"]
        cli = str(Path(sys.executable).with_name("transformers"))
        with program(cli, *words) as process:
            await answers(f"http://127.0.0.1:{port}/health", within_s=180)
            async with service(_file("a", task="chat-completion")) as (own, _):
                report.compare(
                    "8 callers ÷ `transformers serve --continuous-batching`",
                    *await _pairs(
                        lambda turn: _chat_ours(own, prompts(8, turn)),
                        lambda turn: _chat_theirs(port, prompts(8, turn)),
                    ),
                    "tok/s",
                    at_least=1.1,
                )
            assert process.poll() is None


async def _chat_ours(port: int, texts: list[str]) -> float:
    began = time.perf_counter()
    given = [{"messages": text, "temperature": 0, "max_output_length": TOKENS} for text in texts]
    ends = await asyncio.gather(*(_stream(port, "__workflow__", each) for each in given))
    return sum(tokens for tokens, _, _ in ends) / (time.perf_counter() - began)


async def _chat_theirs(port: int, texts: list[str]) -> float:
    async def one(text: str) -> int:
        connection = Connection(port)
        await connection.open()
        body = {
            "model": str(smollm2_hf()),
            "messages": [{"role": "user", "content": text}],
            "max_tokens": TOKENS,
            "stream": True,
            "temperature": 0.0,
        }
        events, _ = await connection.events("/v1/chat/completions", json.dumps(body).encode())
        connection.close()
        return sum(b'"content":"' in event and b'"content":""' not in event for event in events)

    began = time.perf_counter()
    return sum(await asyncio.gather(*map(one, texts))) / (time.perf_counter() - began)


def _state(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/components") as response:
        return str(json.loads(response.read())[0]["state"])


async def _start(report: Report) -> None:
    """From the start of a worker to the moment when it is ready, against doing only what must be done."""
    ours, bare = [], []
    # With `keep_alive: 0` the worker ends with its request, and the next one starts another.
    async with service(_file("a", preload="false", more="    keep_alive: 0\n")) as (port, _):
        for turn in range(6):
            began = time.perf_counter()
            given = _given("Hello", max_output_length=1, min_output_length=1)
            request = asyncio.create_task(_stream(port, "__workflow__", given))
            while await asyncio.to_thread(_state, port) != "ready":
                await asyncio.sleep(0.02)
            took = time.perf_counter() - began
            await request
            with program("-c", BARE.format(model=str(smollm2_hf()))) as process:
                assert process.stdout is not None
                alone = float(await asyncio.to_thread(process.stdout.readline))
            if turn:  # the first reads files into memory
                ours.append(took)
                bare.append(alone)
    report.compare("a worker's start ÷ import and load, bare", ours, bare, "s", at_most=1.2)


async def _two_models(report: Report) -> None:
    report.title("Two models of transformers on one machine")
    async with service(_file("a", "b")) as (port, _):
        waits: dict[str, list[float]] = {"a": [], "b": []}

        async def caller(name: str, index: int) -> None:
            for turn in range(4):
                _, began, times = await _stream(
                    port, name, _given(prompts(8, turn)[index], max_output_length=16, min_output_length=16)
                )
                waits[name].append(times[-1] - began)

        await asyncio.gather(*(caller(name, i) for name in waits for i in range(4)))
        for name, found in waits.items():
            found.sort()
            report.single(f"{name}: slowest of 16 requests of 4 callers (p99)", [found[-1]], "s")
            report.single(f"{name}: median", [statistics.median(found)], "s")
