"""How does the process start and end that makes the pages?"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import sys
from collections import deque
from pathlib import Path
from typing import Final

import httpx2
import msgspec

from model_compose.errors import ServiceError
from model_compose.runtime.process import Reaper

log = logging.getLogger("model_compose.webui")

#: What the start may take: importing Gradio takes 5 s where nothing else computes.
START_S: Final = 120.0
_LOOK_S: Final = 0.05
_LAST_LINES: Final = 20

#: What its lines in the log are about.
_AS: Final = {"component": "web UI"}

MODULE: Final = "model_compose.ui"

_NUMBERS: Final = itertools.count()


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is told on its standard input; see `model_compose.ui.__main__`."""

    folder: str
    gateway: str
    base: str
    path: str
    name: str
    max_file: int
    caller: dict[str, str]
    socket: str = ""


class Pages:
    """The process, in a group of its own, and a client for it."""

    def __init__(self, process: asyncio.subprocess.Process, socket: str, reaper: Reaper) -> None:
        self.pid = process.pid
        self._process = process
        self._reaper = reaper
        self._socket = socket
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        reaper.watch(process.pid)
        self._reading = asyncio.create_task(self._read(), name="web UI: output")
        self.client = httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(
                uds=socket,
                verify=False,  # there are no certificates, which take 70 ms to read
                limits=httpx2.Limits(max_connections=None),
            ),
            base_url="http://ui",
            timeout=httpx2.Timeout(None, connect=10.0),
            trust_env=False,
        )

    @classmethod
    async def start(cls, settings: Settings, reaper: Reaper) -> Pages:
        """Start the process, and wait until it serves. Raises ServiceError."""
        await reaper.start()
        socket = str(Path(settings.folder, f"pages-{next(_NUMBERS)}.sock"))
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-u", "-m", MODULE),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                cwd=settings.folder,  # Gradio may show what lies where it works
                env={**os.environ, "PYTHONPATH": _absolute(os.environ.get("PYTHONPATH", ""))},
                start_new_session=True,
            )
        except OSError as error:
            raise ServiceError(f"cannot start the web UI: {error.strerror}") from error
        pages = cls(process, socket, reaper)
        try:
            assert process.stdin is not None
            told = msgspec.structs.replace(settings, socket=socket)
            process.stdin.write(msgspec.json.encode(told) + b"\n")
            await pages._until_it_serves()
        except BaseException:
            await pages.stop()
            raise
        log.info("process %s makes the pages", process.pid, extra=_AS)
        return pages

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    async def ended(self, within_s: float) -> bool:
        """Wait so long for its end; -> whether it has ended."""
        await asyncio.wait([self._reading], timeout=within_s)
        return not self.running

    async def stop(self) -> None:
        """End it, and whatever it started. It has nothing to lose."""
        await self.client.aclose()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._kill()
        await asyncio.wait([self._reading])

    async def _until_it_serves(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + START_S
        while loop.time() < until and self.running:
            try:
                _, writer = await asyncio.open_unix_connection(self._socket)
            except OSError:
                await asyncio.sleep(_LOOK_S)
                continue
            writer.close()
            return
        why = "did not start in time" if self.running else "could not start"
        self._kill()
        await asyncio.wait([self._reading])
        last = "\n  ".join(self._lines)
        raise ServiceError(f"the web UI {why}" + (f"; its last lines:\n  {last}" if last else ""))

    async def _read(self) -> None:
        """Log what it prints, and notice its end."""
        assert self._process.stdout is not None
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:  # a line longer than the buffer, of which the rest follows
                continue
            if not line:
                break
            self._lines.append(line.decode(errors="replace").rstrip())
            log.info("%s", self._lines[-1], extra=_AS)
        await self._process.wait()
        self._kill()
        self._reaper.forget(self.pid)

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def _absolute(paths: str) -> str:
    return os.pathsep.join(str(Path(each).absolute()) for each in paths.split(os.pathsep) if each)
