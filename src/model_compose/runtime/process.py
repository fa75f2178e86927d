"""How does the gateway run a model in a process of its own?"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import msgspec

from model_compose.about import __version__
from model_compose.errors import ModelComposeError, ModelLoadError, ServiceError, WorkerDied
from model_compose.runtime import elsewhere, reaper
from model_compose.runtime.executor import Listener
from model_compose.runtime.interpreter import Interpreter, environment_for, located
from model_compose.runtime.messages import (
    PROTOCOL,
    Frames,
    Hello,
    Load,
    LoadFailed,
    Stop,
    ToGateway,
    ToWorker,
    frame,
)

#: Lines of a worker's output that are kept for an error message.
LAST_LINES = 20
MAX_LINE_BYTES = 1 << 16

#: What a dead worker said may take so long to arrive.
LAST_WORDS_S = 1.0


class Reaper:
    """Cleans up when this process is gone, even by `kill -9`. See `reaper.py`."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()

    @property
    def scratch(self) -> Path:
        """The folder that goes with this process."""
        return self._scratch

    async def start(self) -> None:
        """Start it, unless it runs."""
        async with self._starting:
            if self._process is None:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-I", "-S", reaper.__file__, str(self._scratch)),
                    stdin=asyncio.subprocess.PIPE,
                    start_new_session=True,
                )

    def watch(self, group: int) -> None:
        """Put a process group on the list."""
        self._write(f"+{group}\n")

    def forget(self, group: int) -> None:
        """Take a process group off the list: it is gone, and its number may be used again."""
        self._write(f"-{group}\n")

    def _write(self, line: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(line.encode())

    async def close(self) -> None:
        """End the reaper: it kills what is still on its list. The scratch folder is removed."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            await self._process.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)


class ProcessExecutor(asyncio.Protocol):
    """Hosts a model in a worker process: spawned, never forked, in a process group of its own.

    python  the interpreter that runs it; None: the service's
    """

    def __init__(self, name: str, reaper: Reaper, python: str | None = None) -> None:
        self._log = logging.getLogger(f"model_compose.worker.{name}")
        self._name = name
        self._python = python
        self._reaper = reaper
        self._decoder = msgspec.msgpack.Decoder(ToGateway)
        self._frames = Frames()
        self._outgoing: list[bytes] = []
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._printed = _Lines(self._print)
        self._process: asyncio.subprocess.Process | None = None
        self._transport: asyncio.Transport | None = None
        self._disconnected = asyncio.Event()
        self._listener: Listener | None = None
        self._load: Load | None = None  # to be sent when the worker has said who it is
        self._version = ""
        self._stopping = False
        self._watcher: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The worker's process id, from `start` on."""
        return self._process.pid if self._process else None

    @property
    def interpreter(self) -> Interpreter | None:
        """What runs it, if that is not what runs the service."""
        return Interpreter(self._python, self._version) if self._python is not None else None

    async def start(self, load: Load, environment: Mapping[str, str], listener: Listener) -> None:
        """Spawn the worker, which is told to load as soon as it has said who it is."""
        self._listener, self._load = listener, load
        try:
            await self._reaper.start()
            self._process = await self._spawn(environment)
        except OSError as error:
            hint = None if self._python is None else f"is `{self._python}` still there, and may it be run?"
            raise ServiceError(f"cannot start a worker for `{self._name}`: {error}", hint=hint) from error
        finally:
            if self._process is None:
                self._hang_up()
        self._reaper.watch(self._process.pid)
        loop = asyncio.get_running_loop()
        self._watcher = loop.create_task(self._watch(self._process), name=f"worker {self._name}")

    async def _spawn(self, environment: Mapping[str, str]) -> asyncio.subprocess.Process:
        command = [sys.executable, "-u", "-m", "model_compose.runtime.worker"]
        variables = dict(os.environ)
        if self._python is not None:
            python = located(self._python)
            command, variables = [python, "-u", elsewhere.__file__], environment_for(python, os.environ)
        # Its output comes over a socket of our own: with a pipe of asyncio's, we would wait until every
        # process that inherited it has ended, and not only the worker.
        with await _other_end(self) as theirs, await _other_end(self._printed) as output:
            return await asyncio.create_subprocess_exec(
                *command,
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output.fileno(),
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                env={**variables, **environment},
                start_new_session=True,
            )

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Notice the worker's end, and pass it on behind everything that it said before."""
        assert self._listener is not None
        code = await process.wait()
        # A group may outlive its leader: grandchildren of an engine.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        self._reaper.forget(process.pid)
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                await self._disconnected.wait()
                await self._printed.ended.wait()
        except TimeoutError:
            pass  # somebody who left the group holds the other ends
        self._hang_up()
        self._listener.exited(None if self._stopping else self._died(code))

    def _hang_up(self) -> None:
        if self._transport is not None:
            self._transport.close()
        self._printed.close()

    def _print(self, line: str) -> None:
        self._lines.append(line)
        self._log.info("%s", line)

    def _died(self, code: int) -> ModelComposeError:
        if code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
            hint = "the kernel may have run out of memory" if -code == signal.SIGKILL else None
        else:
            how, hint = f"ended with exit code {code}", None
        return WorkerDied(f"the worker of `{self._name}` {how}{self._tail()}", hint=hint)

    def _tail(self) -> str:
        return "; its last lines:\n  " + "\n  ".join(self._lines) if self._lines else ""

    def last_lines(self) -> Sequence[str]:
        """What the worker printed last, oldest first."""
        return tuple(self._lines)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ours to use."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has no such base class

    def connection_lost(self, exc: Exception | None) -> None:
        """The worker closed its end, or died."""
        self._disconnected.set()

    def data_received(self, data: bytes) -> None:
        """Decode what is complete and pass it on."""
        assert self._listener is not None
        for body in self._frames.feed(data):
            try:
                message = self._decoder.decode(body)
            except msgspec.MsgspecError:
                if self._load is None:
                    raise
                message = Hello(0, "unknown", "")  # it begins with what no worker of this version says
            if isinstance(message, Hello):
                self._greeted(message)
            else:
                self._listener.message(message)

    def _greeted(self, hello: Hello) -> None:
        """Have the worker load, if it is one of ours."""
        assert self._listener is not None
        load, self._load = self._load, None
        self._version = hello.python
        if load is None:
            return
        if (hello.protocol, hello.version) == (PROTOCOL, __version__):
            self.send(load)
            return
        error = ModelLoadError(
            f"the worker of `{self._name}` is of version {hello.version}, and the service of {__version__}",
            hint="model-compose was installed anew while the service ran: start the service again",
        )
        self._listener.message(LoadFailed(error.info()))

    # Executor

    def send(self, message: ToWorker) -> None:
        """Pass a message on, unless the worker is gone; those of one turn of the loop go together."""
        if not self._outgoing:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outgoing.append(frame(message))

    def _flush(self) -> None:
        frames, self._outgoing = self._outgoing, []
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(frames))

    def pause(self) -> None:
        """Stop the whole process group where it is."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    async def stop(self, grace_s: float) -> None:
        """Say `Stop`, then SIGKILL to whatever is left of the group after the grace."""
        if self._watcher is None:
            return
        self._stopping = True
        self.resume()
        self.send(Stop())
        try:
            await asyncio.wait_for(asyncio.shield(self._watcher), grace_s)
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await asyncio.shield(self._watcher)  # whoever gives up waiting does not end it


class _Lines(asyncio.Protocol):
    """Cuts what a worker prints into lines; of very long ones, the end."""

    def __init__(self, line: Callable[[str], None]) -> None:
        self._line = line
        self._rest = b""
        self._transport: asyncio.BaseTransport | None = None
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._pass_on(line)
        self._rest = rest[-MAX_LINE_BYTES:]

    def connection_lost(self, exc: Exception | None) -> None:
        self._pass_on(self._rest)
        self.ended.set()

    def _pass_on(self, raw: bytes) -> None:
        line = raw[-MAX_LINE_BYTES:].decode(errors="replace").rstrip()
        if line:
            self._line(line)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def _other_end(protocol: asyncio.Protocol) -> socket.socket:
    """The other end of a new socket, whose this end talks to the protocol."""
    ours, theirs = socket.socketpair()
    try:
        await asyncio.get_running_loop().create_unix_connection(lambda: protocol, sock=ours)
    except BaseException:
        theirs.close()
        raise
    return theirs
