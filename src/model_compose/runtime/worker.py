"""What does a worker process do? `python -m model_compose.runtime.worker FD`

It holds one model and speaks messages over the socket that it inherited as FD. It ends when it is
told to, or as soon as the gateway's end of the socket is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import msgspec

from model_compose.about import __version__
from model_compose.runtime.host import ModelHost
from model_compose.runtime.messages import PROTOCOL, Frames, Hello, Stop, ToGateway, ToWorker, frame

#: Under memory pressure the kernel shall take a worker, never the gateway.
OOM_SCORE = 500
#: Of `prctl`: the signal that comes when the parent ends.
_PR_SET_PDEATHSIG = 1
_LAST_WORDS_S = 0.2


class Outbox:
    """Writes frames to the socket, from any thread and in order.

    From an engine's thread at once: nobody else would wake the gateway sooner. From the loop's thread
    at the end of its turn, together with what else comes in it.
    """

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._socket = sock
        self._loop = loop
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._backlog = bytearray()
        self._flushing = False  # the loop will see to the backlog

    def send(self, message: ToGateway) -> None:
        """Send a message, or queue it behind others."""
        data = frame(message)
        with self._lock:
            self._backlog += data
            if self._flushing:
                return
            if threading.get_ident() == self._thread:
                self._flushing = True
                self._loop.call_soon(self._flush)
            elif not self._write():
                self._flushing = True
                self._loop.call_soon_threadsafe(self._loop.add_writer, self._socket, self._flush)

    def finish(self, within_s: float) -> None:
        """Write what is left, and wait for a reader that is behind; nothing may be sent any more."""
        with self._lock:
            self._socket.settimeout(within_s)
            with contextlib.suppress(OSError):
                self._socket.sendall(self._backlog)

    def _write(self) -> bool:
        """Write what the socket takes now; -> whether that was all."""
        try:
            del self._backlog[: self._socket.send(self._backlog)]
        except BlockingIOError:
            pass
        except OSError:
            self._backlog.clear()  # the gateway is gone; the reader sees that too and ends the process
        return not self._backlog

    def _flush(self) -> None:
        with self._lock:
            if self._write():
                self._flushing = False
                self._loop.remove_writer(self._socket)
            else:
                self._loop.add_writer(self._socket, self._flush)


async def serve(sock: socket.socket) -> None:
    """Serve the gateway at the other end of the socket until it says `Stop` or closes it."""
    loop = asyncio.get_running_loop()
    decoder = msgspec.msgpack.Decoder(ToWorker)
    frames = Frames()
    stopped = asyncio.Event()
    outbox = Outbox(sock, loop)
    outbox.send(Hello(PROTOCOL, __version__, ".".join(map(str, sys.version_info[:3]))))
    lost: str | None = None

    def lose(why: str) -> None:
        nonlocal lost
        lost = why
        stopped.set()

    host = ModelHost(outbox.send, lost=lose)

    def readable() -> None:
        try:
            piece = sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            # Nobody is left to serve, and an engine thread may be deep in a computation.
            os._exit(1)
        for body in frames.feed(piece):
            if lost is not None:
                return  # the next process gets it
            message = decoder.decode(body)
            if isinstance(message, Stop):
                stopped.set()
            else:
                host.take(message)

    loop.add_reader(sock, readable)
    await stopped.wait()
    if lost is not None:
        print(f"the GPU is lost to this process: {lost}", file=sys.stderr, flush=True)  # noqa: T201
        await asyncio.sleep(_LAST_WORDS_S)  # others of the same pass hear of it too
        outbox.finish(_LAST_WORDS_S)
        os._exit(1)  # another process can have it; closing the model would wait for it
    await host.close()


def _end_with_the_gateway() -> None:
    """Have the kernel kill this process when its parent ends, even if it is paused; Linux only.

    The reaper does that too, unless it is killed itself.
    """
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (AttributeError, OSError):
        pass  # the socket says it, once this process runs


def main() -> None:
    """Run the worker on the socket whose number is the first argument."""
    faulthandler.enable()
    _end_with_the_gateway()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the gateway, which then ends us
    try:
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
    except OSError:
        pass  # not Linux, or not allowed
    sock = socket.socket(fileno=int(sys.argv[1]))
    sock.setblocking(False)
    asyncio.run(serve(sock))
    # Engines leave threads behind that would keep the interpreter from ending.
    os._exit(0)


if __name__ == "__main__":
    main()
