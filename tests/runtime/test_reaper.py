"""Is nothing left when the gateway itself is killed?"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from tests.runtime.pools import eventually, gone

pytestmark = pytest.mark.process

#: A gateway with two workers, one of which has a child of its own; it says what it has, and waits.
GATEWAY = """
import asyncio, json, sys
from pathlib import Path
from tests.runtime.pools import echo, running

async def main():
    parent = echo("parent", implementation="tests.runtime.odd_models:Parent")
    async with running(echo("plain"), parent) as models:
        workers = [(await models.load(name)).pid for name in ("plain", "parent")]
        child = int(models.status("parent").info.details["child"])
        models.ask(f"wait:{sys.argv[1]}", "plain")
        (models.scratch / "a file").touch()
        reaper = models.pool._reaper._process.pid
        print(json.dumps([str(models.scratch), *workers, child, reaper]), flush=True)
        await asyncio.sleep(1000)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV], ids=["kill -9", "segfault"])
async def test_a_gateway_that_is_killed_leaves_no_process_and_no_folder(
    how: signal.Signals, tmp_path: Path
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", GATEWAY, str(tmp_path / "never")),
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    scratch, *pids = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
    assert len(pids) == 4
    assert not any(map(gone, pids))
    process.send_signal(how)
    await process.wait()
    for pid in pids:
        await eventually(lambda pid=pid: gone(pid), f"process {pid} ended")  # type: ignore[misc]
    await eventually(lambda: not Path(scratch).exists(), "the scratch folder is removed")


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not tell")
async def test_a_paused_worker_ends_with_its_gateway_even_without_a_reaper(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", GATEWAY, str(tmp_path / "never")),
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    scratch, plain, parent, child, reaper = json.loads(await asyncio.wait_for(process.stdout.readline(), 30))
    try:
        os.kill(plain, signal.SIGSTOP)
        os.kill(reaper, signal.SIGKILL)
        process.kill()
        await process.wait()
        for pid in (plain, parent):
            await eventually(lambda pid=pid: gone(pid), f"process {pid} ended")  # type: ignore[misc]
    finally:
        os.kill(child, signal.SIGKILL)  # nobody knows of it any more
        shutil.rmtree(scratch, ignore_errors=True)


def ignored(pid: int) -> set[int]:
    """The signals that a process ignores."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = next(int(line.split()[1], 16) for line in status if line.startswith("SigIgn"))
    return {number for number in signal.Signals if mask >> (number - 1) & 1}


async def test_the_reaper_kills_what_is_on_its_list_and_nothing_that_was_taken_off(tmp_path: Path) -> None:
    reaper = Path(__file__).parents[2] / "src/model_compose/runtime/reaper.py"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    sleepers = [
        await asyncio.create_subprocess_exec("sleep", "1000", start_new_session=True) for _ in range(2)
    ]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", str(reaper), str(scratch), stdin=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin is not None
    try:
        for sleeper in sleepers:
            process.stdin.write(f"+{sleeper.pid}\n".encode())
        process.stdin.write(f"+{2**22 - 1}\n-{sleepers[1].pid}\n".encode())  # one that does not exist
        await process.stdin.drain()
        # Neither Ctrl-C nor an end of the session ends it before its time.
        await eventually(lambda: signal.SIGTERM in ignored(process.pid), "it is ready")
        psutil.Process(process.pid).send_signal(signal.SIGTERM)
        assert scratch.exists()
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), 20) == 0
        await eventually(lambda: gone(sleepers[0].pid), "the one on the list ended")
        assert not gone(sleepers[1].pid)
        assert not scratch.exists()
    finally:
        for sleeper in sleepers:
            if sleeper.returncode is None:
                sleeper.kill()
            await sleeper.wait()


async def test_a_reaper_costs_little_memory() -> None:
    from tests.runtime.pools import echo, running

    async with running(echo()) as models:
        await models.load()
        process = models.pool._reaper._process
        assert process is not None
        assert psutil.Process(process.pid).memory_info().rss < 20 << 20
        assert os.getpgid(process.pid) == process.pid, "what ends our group does not end it"
