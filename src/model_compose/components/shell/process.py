"""How does a command run, so that it always ends and nothing of it stays behind?

It has a process group of its own, which the reaper kills when the service is gone. When the command
ends, or its caller goes away, whatever is left of the group is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from model_compose.runtime.process import Reaper

#: What a command may take to end after SIGTERM.
GRACE_S: Final = 2.0
#: What it said last may take so long to arrive, if somebody who left its group holds the other end.
LAST_WORDS_S: Final = 1.0
PIECE_BYTES: Final = 1 << 16


class Command:
    """A command that has been started. Whoever has one closes it."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        stdout: asyncio.StreamReader,
        stderr: asyncio.StreamReader,
        transports: Sequence[asyncio.BaseTransport],
        reaper: Reaper,
    ) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self._process = process
        self._transports = transports
        self._reaper = reaper
        reaper.watch(process.pid)
        self._watcher = asyncio.create_task(self._watch(), name=f"command {process.pid}")

    async def _watch(self) -> int:
        code = await self._process.wait()
        self._signal(signal.SIGKILL)  # a group may outlive its leader
        self._reaper.forget(self._process.pid)
        return code

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        """What it says next on `stdout` or `stderr`; nothing at the end."""
        reading = asyncio.ensure_future(reader.read(PIECE_BYTES))
        try:
            await asyncio.wait([reading, self._watcher], return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                await asyncio.wait([reading], timeout=LAST_WORDS_S)
            return reading.result() if reading.done() else b""
        finally:
            reading.cancel()

    async def ended(self) -> int:
        """Wait for its end; -> its exit code."""
        return await asyncio.shield(self._watcher)

    async def close(self) -> None:
        """End it, unless it has ended: SIGTERM, then SIGKILL."""
        ending = asyncio.ensure_future(self._close())
        try:
            await asyncio.shield(ending)
        except asyncio.CancelledError:
            await asyncio.wait([ending])  # whoever gives up waiting does not leave it behind
            raise

    async def _close(self) -> None:
        if not self._watcher.done():
            self._signal(signal.SIGTERM)
            await asyncio.wait([self._watcher], timeout=GRACE_S)
            self._signal(signal.SIGKILL)
            await self._watcher
        for transport in self._transports:
            transport.close()

    def _signal(self, number: signal.Signals) -> None:
        if not self._watcher.done():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)


async def start(
    argv: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    stdin: bytes | None,
    scratch: Path,
    reaper: Reaper,
) -> Command:
    """Start a command. Raises OSError when it cannot be; cancelling it leaves nothing behind."""
    starting = asyncio.ensure_future(_start(argv, folder, environment, stdin, scratch, reaper))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await asyncio.wait([starting])
        if not starting.cancelled() and starting.exception() is None:
            await starting.result().close()
        raise


async def _start(
    argv: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    stdin: bytes | None,
    scratch: Path,
    reaper: Reaper,
) -> Command:
    await reaper.start()
    with contextlib.ExitStack() as stack:
        given = None if stdin is None else stack.enter_context(await asyncio.to_thread(_file, stdin, scratch))
        # Pipes of asyncio's own would make `wait` wait for every process that inherited them.
        stdout, out_transport, out_end = await _pipe(stack)
        stderr, err_transport, err_end = await _pipe(stack)
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                cwd=folder,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL if given is None else given,
                stdout=out_end,
                stderr=err_end,
                start_new_session=True,
            )
        except BaseException:
            out_transport.close()
            err_transport.close()
            raise
    return Command(process, stdout, stderr, (out_transport, err_transport), reaper)


def _file(content: bytes, scratch: Path) -> IO[bytes]:
    """A file without a name: a command that does not read it holds nobody up."""
    file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115  closed by the caller
    file.write(content)
    file.seek(0)
    return file


async def _pipe(stack: contextlib.ExitStack) -> tuple[asyncio.StreamReader, asyncio.ReadTransport, int]:
    """A reader, its transport, and the end to write to, which `stack` closes."""
    ours, theirs = os.pipe()
    stack.callback(os.close, theirs)
    reader = asyncio.StreamReader(limit=PIECE_BYTES)
    loop = asyncio.get_running_loop()
    file = os.fdopen(ours, "rb", buffering=0)
    try:
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), file)
    except BaseException:
        file.close()
        raise
    return reader, transport, theirs
