"""What somebody sees who sits at a terminal, and not what a pipe gets."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping

import pytest
from tests.cli.shell import ECHO, Shell
from tests.cli.test_pull import WHEEL, WHEEL_NAME
from tests.fakes.index import FakeIndex

pytestmark = pytest.mark.process

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def seen(shell: Shell, *words: str, variables: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Type a command at a terminal; -> its exit code, and everything that was drawn."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "model_compose", *words],
        cwd=shell.folder,
        env={**shell.environment, "TERM": "xterm", **(variables or {})},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    drawn = b""
    try:
        while piece := os.read(ours, 1 << 16):
            drawn += piece
    except OSError:
        pass  # Linux says so when nobody has the other end any more
    finally:
        os.close(ours)
    return process.wait(60), drawn.decode().replace("\r\n", "\n")


def test_mistakes_are_coloured_unless_colours_are_not_wanted(shell: Shell) -> None:
    shell.write(ECHO + "  max_que: 5\n")
    code, drawn = seen(shell, "check")
    assert code == 2
    assert "\x1b[1;31merror:\x1b[0m" in drawn
    assert COLOUR.sub("", drawn) == shell("check").stderr
    code, drawn = seen(shell, "check", variables={"NO_COLOR": "1"})
    assert drawn == shell("check").stderr


def test_downloads_are_bars(shell: Shell) -> None:
    with FakeIndex() as index:
        index.add(WHEEL_NAME, WHEEL)
        source = f"{{package: tiny-model==1.0, filename: tiny.gguf, index: {index.url}/simple}}"
        shell.write(f"component: {{id: a, type: model, task: text-generation, model: {source}}}")
        code, drawn = seen(shell, "pull")
    assert code == 0
    assert "a  tiny-model 1.0" in COLOUR.sub("", drawn)
    assert re.search(r"30\d\.\d/30\d\.\d kB", COLOUR.sub("", drawn))
    assert drawn.endswith("a: tiny-model==1.0:tiny.gguf is here (300 kB)\n")


def test_a_detached_service_uses_the_terminal_until_it_is_ready_and_then_lets_go(shell: Shell) -> None:
    shell.write(ECHO)
    code, drawn = seen(shell, "up", "-d")  # ends when nobody has the terminal any more
    assert code == 0
    assert "\x1b[" in drawn
    assert "ready after" in drawn
    assert shell.components()["echo"]["state"] == "ready"


def test_run_says_what_takes_so_long_beside_its_result(shell: Shell) -> None:
    shell.write(ECHO)
    _, drawn = seen(shell, "run", "-i", "hello")
    assert COLOUR.sub("", drawn) == "loading echo\necho: loading weights\nhello\n"
