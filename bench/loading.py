"""How much memory does a load take, with `low_cpu_mem_usage`, beside the size of its weights?

SmolLM2 on a CPU, in a process of its own: the resident memory before the load and its peak while it runs,
both as the kernel counts them. Pages of a mapped file count, although the kernel may take them back.
"""

from __future__ import annotations

import asyncio
import json
import sys

from tests.models import smollm2_hf

from bench.processes import program
from bench.stats import Report

TURNS = 3
MIB = 1 << 20

LOAD = """
import json, sys, tempfile
from pathlib import Path
from model_compose.drivers.contract import LoadOptions, Quantization
from model_compose.drivers.huggingface.load import load, read_config
from model_compose.sources.spec import LoadedSource
import torch
from transformers.models.llama.modeling_llama import LlamaForCausalLM

def status(name):
    text = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith(name + ":"))

path, asked = sys.argv[1], json.loads(sys.argv[2])
if isinstance(asked.get("quantization"), str):
    asked["quantization"] = Quantization(type=asked["quantization"])
options = LoadOptions(
    task="text-generation",
    source=LoadedSource(path=path, format="safetensors", revision=None, origin="x", size_bytes=0),
    threads=1, scratch=tempfile.gettempdir(), device="cpu", **asked,
)
config = read_config(options)
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
loaded = load(options, "AutoModelForCausalLM", lambda *_: None, config)
peak = status("VmHWM")
weights = sum(path.stat().st_size for path in Path(path).glob("*.safetensors"))
print(json.dumps([before, peak, weights]), flush=True)
"""


async def main(report: Report) -> None:
    report.title("SmolLM2: resident memory while loading, what was there before aside")
    asked: dict[str, dict[str, str]] = {
        "float32": {},
        "bfloat16": {"precision": "bfloat16"},
        "int8": {"quantization": "int8"},
    }
    for name, more in asked.items():
        options = json.dumps({"low_cpu_mem_usage": True, **more})
        grown, weights = [], []
        for _ in range(TURNS):
            with program("-c", LOAD, str(smollm2_hf()), options) as process:
                assert process.stdout is not None
                before, peak, size = json.loads(await asyncio.to_thread(process.stdout.readline))
            grown.append((peak - before) / MIB)
            weights.append(size / MIB)
        report.compare(f"{name}: peak ÷ its file of float32", grown, weights, "MiB", at_most=1.3)


if __name__ == "__main__":
    sys.exit("run `python -m bench loading`")
