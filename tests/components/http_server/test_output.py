from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

import pytest

from model_compose.components.http_server.commands import Secrets
from model_compose.components.http_server.output import BURST, LogFile, Output, Printed


def outputs(file: LogFile | None = None) -> Output:
    return Output("it", file, Secrets({"KEY": "secret-1"}, {}))


async def printed(raw: bytes, file: LogFile | None = None) -> str:
    """Have a process print this; -> its last lines."""
    here = Printed(outputs(file))
    fd = os.dup(here.fd)
    here.handed_over()
    await asyncio.to_thread(_write, fd, raw)
    await here.end(10)
    return here.last()


def _write(fd: int, raw: bytes) -> None:
    with os.fdopen(fd, "wb") as pipe:
        pipe.write(raw)


async def test_lines_are_logged_as_they_are_without_what_a_terminal_would_obey(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    await printed(b"\x1b[31mred\x1b[0m\n10%\r20%\r\n\n  indented\nsecret-1\n\xff\nwithout an end")
    assert caplog.messages == ["red", "10%", "20%", "  indented", "***", "\ufffd", "without an end"]


async def test_the_last_lines_are_kept_for_an_error() -> None:
    last = await printed(b"".join(b"line %d\n" % i for i in range(100)))
    assert last.splitlines() == ["; its last lines:", *(f"  line {i}" for i in range(80, 100))]
    assert await printed(b"") == ""


async def test_a_line_without_an_end_is_not_kept_whole(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await printed(b"x" * 1_000_000)
    lengths = [len(message) for message in caplog.messages]
    assert sum(lengths) == 1_000_000
    assert max(lengths) < 200_000


async def test_what_comes_too_fast_is_counted(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level(logging.INFO)
    output = outputs(LogFile(tmp_path / "it.log"))
    here = Printed(output)
    fd = os.dup(here.fd)
    here.handed_over()
    await asyncio.to_thread(_write, fd, b"".join(b"%d\n" % i for i in range(100_000)))
    await here.end(10)
    output.close()
    lines = [message for message in caplog.messages if message.isdigit()]
    lost = [int(message.split()[0]) for message in caplog.messages if "not shown" in message]
    assert BURST <= len(lines) < 10 * BURST
    assert len(lines) + sum(lost) == 100_000
    assert (tmp_path / "it.log").read_text().count("\n") == 100_000


async def test_whoever_keeps_the_pipe_open_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    here = Printed(outputs())
    code = "import time; print('there', flush=True); time.sleep(1000)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=here.fd)
    here.handed_over()
    try:
        while not caplog.messages:
            await asyncio.sleep(0.005)
        await here.end(0.0)
        assert "there" in here.last()
    finally:
        process.kill()
        await process.wait()


def test_a_full_file_is_put_aside_and_old_ones_go(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "it.log", full=10)
    for number in range(6):
        file.write(b"%d23456\n" % number)
    file.close()
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"it.log": "523456\n", "it.log.1": "423456\n", "it.log.2": "323456\n"}


def test_a_file_that_cannot_be_written_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "logs").touch()
    file = LogFile(tmp_path / "logs" / "it.log")
    file.write(b"a\n")
    file.write(b"b\n")
    assert len(caplog.messages) == 1
