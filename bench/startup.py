"""How long until something is to be seen, and how much memory does that take?"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from bench.processes import ROOT, answers, free_port, program
from bench.stats import Report

PAIRS = 15

COMPONENT = """
  - id: model-{i}
    type: model
    task: chat-completion
    driver: llamacpp
    model: {{provider: local, path: ./models/model-{i}.gguf}}
    batch_size: 8
    keep_alive: 5m
    messages:
      - {{role: system, content: "${{input.system}}"}}
      - {{role: user, content: "${{input.prompt as text}}"}}
    params: {{temperature: 0.7, max_output_length: 512}}
"""

LAZY = """
controller: {port: {port}}
component: {type: model, task: text-generation, driver: echo, preload: false}
"""


def _time(*arguments: str, cwd: Path = ROOT) -> float:
    began = time.perf_counter()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, check=False
    )
    took = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    return took * 1e3


async def main(report: Report) -> None:
    report.title("Starting")
    helps, typers, checks = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        many = Path(folder) / "many.yml"
        many.write_text("components:" + "".join(COMPONENT.format(i=i) for i in range(20)))
        for _ in range(PAIRS + 1):
            helps.append(_time("-m", "model_compose", "--help"))
            typers.append(_time("-c", "import typer"))
            checks.append(_time("-m", "model_compose", "-f", str(many), "check") / 1e3)
    report.compare("`--help` ÷ `python -c 'import typer'`", helps[1:], typers[1:], "ms", at_most=4)
    report.single("`check` of a file with 20 components", checks[1:], "s", at_most=0.6)
    await _up(report)


async def _up(report: Report) -> None:
    ready, resident = [], []
    for _ in range(5):
        port = free_port()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model-compose.yml"
            path.write_text(LAZY.replace("{port}", str(port)))
            began = time.perf_counter()
            with program("-m", "model_compose", "-f", str(path), "up", cwd=Path(folder)) as process:
                await answers(f"http://127.0.0.1:{port}/readyz")
                ready.append(time.perf_counter() - began)
                resident.append(psutil.Process(process.pid).memory_info().rss / 1e6)
    report.single("`up` to /readyz, nothing preloaded", ready, "s", at_most=2)
    report.single("memory of the gateway with nothing loaded", resident, "MB", at_most=100)
