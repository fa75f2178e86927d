"""How does a service get into the background, and who waits until it is ready?

`up -d` starts `up --ready-fd N` in a session of its own and waits at the other end of that pipe: a
byte means that the service is ready, the end of the file that it is gone. Meanwhile the service prints
where its parent prints, bars and errors too.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_WELL: Final = b"+"
_BADLY: Final = b"-"


def start(arguments: Sequence[str]) -> tuple[int, bool]:
    """Start `up` with these arguments; -> its process id, and whether all is well, once it serves.

    Raises SystemExit with its exit code when it ends before that. Ctrl-C ends it.
    """
    ready, tell = os.pipe()
    with open(ready, "rb", buffering=0) as word:  # noqa: PTH123  a file descriptor
        child = subprocess.Popen(
            [sys.executable, "-m", "model_compose", *arguments, "--ready-fd", str(tell)],
            stdin=subprocess.DEVNULL,
            pass_fds=[tell],
            start_new_session=True,
        )
        os.close(tell)
        try:
            came = word.read(1)
            if not came:
                sys.exit(child.wait())
        except KeyboardInterrupt:
            child.terminate()
            child.wait()
            raise
    return child.pid, came == _WELL


class Parent:
    """Who started this service, and lends it a terminal until it is ready."""

    def __init__(self, ready_fd: int) -> None:
        self._ready_fd = ready_fd
        os.set_inheritable(ready_fd, False)
        sys.stdout = os.fdopen(os.dup(1), "w", buffering=1)
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)

    def keep_output(self, path: Path) -> None:
        """Put into a file what is printed past `sys.stdout` and `sys.stderr`, such as a crash.

        Processes that are started from now on do not inherit the terminal: whoever reads from a pipe
        there would wait for the end of the last of them.
        """
        with path.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)

    def leave(self, *, well: bool) -> None:
        """Tell the parent that it can go. From now on nobody looks."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._ready_fd, _WELL if well else _BADLY)
        os.close(self._ready_fd)
        for lent in (sys.stdout, sys.stderr):
            with contextlib.suppress(BrokenPipeError):
                lent.close()
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
