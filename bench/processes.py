"""How are the programs that are measured started and ended?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
ECHO = ROOT / "tests" / "plugins" / "echo"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def program(*arguments: str, cwd: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A Python program, from its start to the end of the block."""
    path = os.pathsep.join([str(ROOT), str(ECHO)])
    environment = {**os.environ, "PYTHONPATH": path}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # or every start would compile every module
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def answers(url: str, within_s: float = 60) -> None:
    """Wait until a URL answers 200."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + within_s

    def ask() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    while not await asyncio.to_thread(ask):
        if loop.time() > ends:
            raise TimeoutError(f"{url} does not answer")
        await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def service(text: str, within_s: float = 60) -> AsyncIterator[tuple[int, psutil.Process]]:
    """Our service for a file whose controller port is written `{port}`; -> port and gateway process."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model-compose.yml"
        path.write_text(text.replace("{port}", str(port)))
        with program("-m", "model_compose", "-f", str(path), "up", cwd=Path(folder)) as process:
            await answers(f"http://127.0.0.1:{port}/readyz", within_s)
            yield port, psutil.Process(process.pid)


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time of one process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)
