"""How does a program of the file run beside us, and end with us?

Each is the leader of a process group, which the reaper watches: nothing of it outlives us, even if we
are killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from model_compose.components.http_server.commands import Argv
from model_compose.components.http_server.output import Output, Printed
from model_compose.errors import ServiceError
from model_compose.runtime.process import Reaper

#: What a process said before it ended may take so long to arrive.
LAST_WORDS_S: Final = 1.0
_LOOK_S: Final = 0.05


class Place:
    """Where and how programs of a component run.

    folder       the one that they work in
    environment  variables beside ours
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], output: Output, reaper: Reaper) -> None:
        self.folder = folder
        self.environment = environment
        self.output = output
        self.reaper = reaper

    async def start(self, command: Argv, what: str) -> Program:
        """Start a program; `what` names it in messages. Raises ServiceError if that is not possible."""
        await self.reaper.start()
        printed = Printed(self.output)
        spawning = asyncio.create_task(self._spawn(command, printed.fd))
        try:
            process = await asyncio.shield(spawning)
        except asyncio.CancelledError:
            # Half of a start cannot be taken back, so the whole of it is.
            await asyncio.wait([spawning])
            printed.handed_over()
            if spawning.exception() is None:
                await Program(spawning.result(), printed, self.reaper).stop(0.0)
            else:
                await printed.end(0.0)
            raise
        except (OSError, ValueError) as error:
            printed.handed_over()
            await printed.end(0.0)
            raise self._cannot(error, command, what) from error
        printed.handed_over()
        return Program(process, printed, self.reaper)

    async def _spawn(self, command: Argv, output: int) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            cwd=self.folder,
            env={**os.environ, **self.environment},
            start_new_session=True,
        )

    def _cannot(self, error: Exception, command: Argv, what: str) -> ServiceError:
        if not self.folder.is_dir():
            hint = "`working_dir` starts at the folder of the file"
            return ServiceError(f"{what} cannot run: there is no folder `{self.folder}`", hint=hint)
        if isinstance(error, FileNotFoundError):
            hint = "install it, or write its whole path"
            return ServiceError(f"{what} cannot run: there is no program `{command[0]}`", hint=hint)
        why = error.strerror if isinstance(error, OSError) else "a word of it cannot be passed to a program"
        return ServiceError(f"{what} cannot run `{command[0]}`: {why}")


class Program:
    """A program that runs, and everything that it started in its group."""

    def __init__(self, process: asyncio.subprocess.Process, printed: Printed, reaper: Reaper) -> None:
        self.pid = process.pid
        self._process = process
        self._printed = printed
        self._reaper = reaper
        self._grace_until = 0.0
        reaper.watch(process.pid)
        self._watcher = asyncio.create_task(self._watch(), name=f"process {process.pid}")

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    async def wait(self) -> int:
        """Wait until nothing of it is left; -> its exit code, minus a signal's number if that killed it."""
        return await asyncio.shield(self._watcher)

    async def ended(self, within_s: float) -> bool:
        """Wait so long for that; -> whether nothing of it is left."""
        done, _ = await asyncio.wait([self._watcher], timeout=within_s)
        return bool(done)

    async def stop(self, grace_s: float) -> None:
        """Ask it to end, and kill what is left of it after the grace."""
        if self._watcher.done():
            return
        self._grace_until = asyncio.get_running_loop().time() + grace_s
        self._signal(signal.SIGTERM)
        done, _ = await asyncio.wait([self._watcher], timeout=grace_s)
        if not done:
            self._grace_until = 0.0
            self._signal(signal.SIGKILL)
            await asyncio.wait([self._watcher])

    def last(self) -> str:
        """Its last lines, for the end of a message."""
        return self._printed.last()

    async def _watch(self) -> int:
        code = await self._process.wait()
        # A group may outlive its leader, as a shell that was asked to end leaves what it started.
        loop = asyncio.get_running_loop()
        while loop.time() < self._grace_until:
            if not await asyncio.to_thread(_lives, self.pid):
                break
            await asyncio.sleep(_LOOK_S)
        self._signal(signal.SIGKILL)
        self._reaper.forget(self.pid)
        await self._printed.end(LAST_WORDS_S)
        return code

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def how_it_ended(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was killed by {signal.Signals(-code).name}"


def resident_bytes(group: int) -> int:
    """Memory of all processes of a group that lies in RAM; 0 where nobody knows. Looks at all processes."""
    pages = 0
    for pid, _ in _members(group):
        with contextlib.suppress(OSError, IndexError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _lives(group: int) -> bool:
    """Whether a group has a process that is no zombie: nobody may be there to bury those."""
    if Path("/proc/self/stat").exists():
        return any(state not in "ZX" for _, state in _members(group))
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _members(group: int) -> Iterator[tuple[str, str]]:
    """The processes of a group with their states. Source: proc_pid_stat(5)"""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(its_group) == group:
            yield stat.parent.name, state
