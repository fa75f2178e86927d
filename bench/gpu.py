"""How much of transformers' speed is left through us on a GPU?

A Llama of 1.2 billion random numbers in bfloat16, 128 new tokens for every caller, temperature 0. Ours is
asked over HTTP and streams; the reference is `generate` on one padded batch, in a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.tiny_models import tokenizer_in

from bench.client import Connection
from bench.processes import program, service
from bench.stats import Report

PAIRS = 5
TOKENS = 128
VOCABULARY = 32_000
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

FILE = """
controller: {{port: {{port}}}}
component:
  id: writer
  type: model
  task: text-generation
  driver: huggingface
  device: cuda
  precision: bfloat16
  model: {model}
  batch_size: 64
"""

REFERENCE = f"""
import json, sys, time
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16, device_map="cuda:0").eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], padding_side="left")

@torch.inference_mode()
def batch(prompts):
    given = tokenizer(prompts, return_tensors="pt", padding=True, return_token_type_ids=False).to("cuda:0")
    model.generate(**given, max_new_tokens={TOKENS}, min_new_tokens={TOKENS}, do_sample=False)
    torch.cuda.synchronize()

print("ready", flush=True)
for line in sys.stdin:
    prompts = json.loads(line)
    began = time.perf_counter()
    batch(prompts)
    print(time.perf_counter() - began, flush=True)
"""


def _model(folder: Path) -> Path:
    """Write the weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    with torch.device("cuda:0"):
        model: Any = LlamaForCausalLM(LlamaConfig(**SIZES)).to(torch.bfloat16)  # type: ignore[arg-type]
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    tokenizer_in(folder, VOCABULARY)
    return folder


def _prompts(callers: int, turn: int) -> list[str]:
    return [
        " ".join(f"w{3 + (7 * i + 13 * caller + turn) % 30_000}" for i in range(64))
        for caller in range(callers)
    ]


async def _one(port: int, prompt: str) -> tuple[int, float]:
    """Tokens of one stream, and when its first piece came."""
    connection = Connection(port)
    await connection.open()
    given = {
        "prompt": prompt,
        "temperature": 0,
        "max_output_length": TOKENS,
        "min_output_length": TOKENS,
    }
    events, times = await connection.events(
        "/api/workflows/runs", json.dumps({"workflow_id": "__workflow__", "input": given}).encode()
    )
    connection.close()
    last = json.loads(events[-1].split(b"data: ")[1])
    return int(last["usage"]["completion_tokens"]), times[0]


async def _ours(port: int, prompts: list[str]) -> float:
    began = time.perf_counter()
    ends = await asyncio.gather(*(_one(port, prompt) for prompt in prompts))
    tokens = sum(tokens for tokens, _ in ends)
    assert tokens == len(prompts) * TOKENS, tokens
    return tokens / (time.perf_counter() - began)


@contextlib.asynccontextmanager
async def _reference(folder: Path) -> AsyncIterator[Any]:
    """The library by itself; -> what asks it, and gives its tokens per second."""
    with program("-c", REFERENCE, str(folder)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout
        await asyncio.to_thread(stdout.readline)

        async def ask(prompts: list[str]) -> float:
            stdin.write(json.dumps(prompts).encode() + b"\n")
            stdin.flush()
            return len(prompts) * TOKENS / float(await asyncio.to_thread(stdout.readline))

        yield ask


async def main(report: Report) -> None:
    report.title("transformers through us on a GPU: completion tokens/s")
    import torch

    if not torch.cuda.is_available():
        print("left out: there is no CUDA GPU")
        return
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        model = _model(Path(folder) / "llama")
        torch.cuda.empty_cache()
        async with _reference(model) as ask, service(FILE.format(model=model), 180) as (port, _):
            for callers, least in ((1, 0.9), (8, 0.9), (32, 0.9)):
                found: tuple[list[float], list[float]] = ([], [])
                for turn in range(-1, PAIRS):
                    prompts = _prompts(callers, turn)
                    for i in (0, 1) if turn % 2 else (1, 0):
                        rate = await (_ours(port, prompts) if i == 0 else ask(prompts))
                        if turn >= 0:  # the first warms up
                            found[i].append(rate)
                what = f"{callers} caller{'s' * (callers > 1)} ÷ `generate` on one batch"
                report.compare(what, *found, "tok/s", at_least=least)
