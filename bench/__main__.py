"""`python -m bench [PART ...]`: measure, compare, say what is missed."""

from __future__ import annotations

import os
import platform
import sys

import uvloop

from bench import (
    encoders,
    engine,
    generation,
    gpu,
    loading,
    onnx_files,
    openai_api,
    overhead,
    proxy,
    startup,
    upscale,
    vectors,
    vllm,
    workflow,
)
from bench.stats import Report

PARTS = {
    "startup": startup.main,
    "overhead": overhead.main,
    "engine": engine.main,
    "encoders": encoders.main,
    "generation": generation.main,
    "gpu": gpu.main,
    "loading": loading.main,
    "onnx_files": onnx_files.main,
    "openai": openai_api.main,
    "upscale": upscale.main,
    "vectors": vectors.main,
    "vllm": vllm.main,
    "proxy": proxy.main,
    "workflow": workflow.main,
}


async def main(names: list[str]) -> int:
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {load}, Python {platform.python_version()}")
    print("ours / reference, median ratio [95 % interval]")
    report = Report()
    for name in names or PARTS:
        await PARTS[name](report)
    print(f"\n{'missed: ' + '; '.join(report.missed) if report.missed else 'every figure is met'}")
    return 1 if report.missed else 0


if __name__ == "__main__":
    unknown = set(sys.argv[1:]) - PARTS.keys()
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    sys.exit(uvloop.run(main(sys.argv[1:])))
