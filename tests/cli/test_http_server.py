"""What do the commands do with a server that the file names?"""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from tests.cli.shell import Shell, eventually, is_alive
from tests.components.http_server.servers import file, free_port

pytestmark = pytest.mark.process


def write(shell: Shell, *how: str, **keys: object) -> None:
    project = json.loads(file(free_port(), *how, **keys))
    project["workflows"][0]["default"] = True
    shell.write(json.dumps({"controller": {"port": 0}, **project}))


def count(path: Path) -> int:
    return path.read_text().count("ran") if path.exists() else 0


def test_a_server_lives_as_long_as_the_service_and_is_cleaned_up_by_down(shell: Shell) -> None:
    write(shell, install="echo ran >> installed", clean="echo ran >> cleaned; echo all is gone")
    for times in (1, 2):
        shell.ok("up", "-d")
        pids = shell.ask({}).json()["output"]
        assert shell.components()["it"]["pid"] == pids["pid"]
        assert shell.components()["it"]["info"]["details"]["port"]
        assert count(shell.folder / "cleaned") == times - 1
        said = shell.ok("down")
        assert "clean: sh -c: echo ran >> cleaned" in said
        assert "all is gone" in said
        assert not is_alive(pids["pid"])
        assert count(shell.folder / "installed") == times, "what is cleaned up is installed again"
    assert "TOLD is None" in (shell.state / "logs" / "it.log").read_text()
    assert any(line.get("component") == "it" and "TOLD is" in line["message"] for line in shell.log())


def test_a_clean_up_that_fails_is_told(shell: Shell) -> None:
    write(shell, clean="echo it is stuck; exit 5")
    shell.ok("up", "-d")
    down = shell("down")
    assert down.returncode != 0
    assert "`clean` of `it` ended with exit code 5" in down.stderr


def test_a_dry_run_shows_every_command_and_runs_none(shell: Shell) -> None:
    write(shell, install=[["touch", "installed"]], clean="rm installed", start=["serve", "--api-key", "sk-1"])
    said = shell.ok("up", "--dry-run")
    assert "`install` of it runs\n  touch installed\n" in said
    assert "`start` of it runs\n  serve --api-key ***\n" in said
    assert "`clean` of it runs\n  sh -c: rm installed\n" in said
    assert not (shell.folder / "installed").exists()


def test_run_starts_what_it_needs_and_ends_it(shell: Shell) -> None:
    write(shell, install="echo ran >> installed")
    for _ in range(2):
        pids = json.loads(shell.ok("run", "pid"))
        assert not is_alive(pids["pid"])
    assert count(shell.folder / "installed") == 1


def test_a_server_that_cannot_start_ends_the_service_with_its_last_words(shell: Shell) -> None:
    write(shell, start="echo I have no model; exit 3")
    up = shell("up")
    assert up.returncode != 0
    assert "the server of `it` ended with exit code 3 before it was ready" in up.stderr
    assert "I have no model" in up.stderr


def test_a_server_is_restarted_and_stopped_by_hand(shell: Shell) -> None:
    write(shell)
    shell.ok("up", "-d")
    first = shell.components()["it"]["pid"]
    assert "it is ready" in shell.ok("restart", "it")
    second = shell.components()["it"]["pid"]
    assert first != second
    assert "unloaded" in shell.ok("stop", "it")
    assert not is_alive(second)
    assert shell.ask({}).status_code == 503
    shell.ok("restart", "it")
    assert shell.ask({}).json()["output"]["pid"] == shell.components()["it"]["pid"]


def test_nothing_of_a_server_outlives_a_service_that_is_killed(shell: Shell) -> None:
    write(shell, "parent")
    up = shell.start("up")
    eventually(shell.listens)
    pids = shell.ask({}).json()["output"]
    up.send(signal.SIGKILL)
    for pid in pids.values():
        eventually(lambda pid=pid: not is_alive(pid))  # type: ignore[misc]
