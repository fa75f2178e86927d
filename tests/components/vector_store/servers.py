"""How do tests get real servers that keep vectors?"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

_DEADLINE_S = 60.0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The PostgreSQL of the `pgserver` wheel, which has pgvector; -> the folder of its socket."""
    # Its Python code is not used: it starts a server for the user who asks, and warns.
    spec = importlib.util.find_spec("pgserver")
    assert spec is not None
    assert spec.origin is not None
    binaries = Path(spec.origin).parent / "pginstall" / "bin"
    # A socket's path has 108 characters at most, and PostgreSQL does not run as root.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    user = _other_user(folder)
    data = folder / "data"
    kwargs = {
        "check": True,
        "stdout": subprocess.DEVNULL,
        "user": user,
        "cwd": folder,
        "timeout": _DEADLINE_S,
    }
    try:
        subprocess.run(  # type: ignore[call-overload]
            [binaries / "initdb", "-D", data, "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync"],
            **kwargs,
        )
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off"
        control = [binaries / "pg_ctl", "-D", data, "-w", "-l", folder / "log"]
        subprocess.run([*control, "-o", options, "start"], **kwargs)  # type: ignore[call-overload]
        try:
            yield str(folder)
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], **kwargs)  # type: ignore[call-overload]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _other_user(folder: Path) -> str | None:
    if os.geteuid() != 0:
        return None
    shutil.chown(folder, "nobody")
    return "nobody"


@contextlib.contextmanager
def chroma(folder: Path) -> Iterator[int]:
    """Chroma's own server; -> its port."""
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("chroma")),
        "run",
        "--path",
        str(folder),
        "--port",
        str(port),
    ]
    with subprocess.Popen(
        [*command, "--host", "127.0.0.1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            _wait_for(f"http://127.0.0.1:{port}/api/v2/heartbeat", process)
            yield port
        finally:
            process.kill()


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + _DEADLINE_S
    while True:
        assert process.poll() is None, "the server has ended"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        assert time.monotonic() < ends, "the server does not answer"
        time.sleep(0.05)
