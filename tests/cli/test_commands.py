"""`ps`, `restart`, `stop`, `logs` and `down`, with a service and without one."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest
from tests.api.certificates import made_in
from tests.cli.shell import ECHO, ECHO_AND_BROKEN, Shell, eventually, is_alive

pytestmark = pytest.mark.process

NOT_RUNNING = "error: no service runs for this folder\n\nhint: `model-compose up -d` starts one\n"


def test_without_a_service_ps_shows_what_the_file_has_and_fails(shell: Shell) -> None:
    shell.write(ECHO_AND_BROKEN)
    ps = shell("ps")
    assert ps.returncode == 1
    assert ps.stdout == (
        "COMPONENT   STATE      MEMORY   ACTIVE   QUEUE   PID   ENGINE\n"
        "echo        unloaded   -        0        0       -     -\n"
        "broken      unloaded   -        0        0       -     -\n"
    )
    assert ps.stderr == NOT_RUNNING
    as_json = shell("ps", "--json")
    assert as_json.returncode == 1
    assert [each["state"] for each in json.loads(as_json.stdout)] == ["unloaded", "unloaded"]


@pytest.mark.parametrize("words", [["restart", "echo"], ["stop", "echo"]])
def test_without_a_service_there_is_nothing_to_control(shell: Shell, words: list[str]) -> None:
    shell.write(ECHO)
    done = shell(*words)
    assert done.returncode == 1
    assert done.stderr == NOT_RUNNING


def test_without_a_service_down_has_nothing_to_do(shell: Shell) -> None:
    assert shell.ok("down") == "no service runs for this folder\n"


def test_commands_reach_a_service_that_encrypts_and_asks_for_a_key(shell: Shell) -> None:
    made_in(shell.folder)
    how = "api_keys: [a-key-that-nobody-knows], tls: {certificate: cert.pem, key: key.pem}"
    shell.write(ECHO.replace("{port: 0}", f"{{port: 0, {how}}}"))
    shell.ok("up", "-d")
    assert shell.service()["url"].startswith("https://")
    assert shell.ok("ps").splitlines()[1].startswith("echo        ready")
    assert shell.ok("stop", "echo") == "echo is unloaded\n"


def test_a_component_is_stopped_and_restarted(shell: Shell) -> None:
    shell.write(ECHO)
    shell.ok("up", "-d")
    first = shell.components()["echo"]["pid"]
    (printed,) = json.loads(shell.ok("ps", "--json"))
    assert (printed.keys(), printed["pid"]) == (shell.components()["echo"].keys(), first)
    assert shell.ok("stop", "echo") == "echo is unloaded\n"
    assert not is_alive(first)
    refused = shell.ask("hello")
    assert "`echo` is stopped" in refused.text
    assert "model-compose restart echo" in refused.text
    assert shell.ok("restart", "echo").startswith("echo is ready (process ")
    second = shell.components()["echo"]["pid"]
    shell.ok("restart", "echo")
    assert not is_alive(second)
    assert shell.components()["echo"]["state"] == "ready"
    assert shell.ask("hello").json()["output"] == "hello"


def test_a_component_that_cannot_be_loaded_makes_restart_fail(shell: Shell) -> None:
    shell.write(ECHO_AND_BROKEN)
    shell.ok("up", "-d")
    restart = shell("restart", "broken")
    assert restart.returncode == 1
    assert restart.stderr == "error: `broken` has failed: the weights are of cheese\n"
    ps = shell("ps")
    assert ps.returncode == 0
    assert "\nbroken: the weights are of cheese\n" in ps.stdout


def test_an_unknown_component_is_a_mistake_of_who_typed_it(shell: Shell) -> None:
    shell.write(ECHO)
    shell.ok("up", "-d")
    for words in (["restart", "eco"], ["stop", "eco"]):
        done = shell(*words)
        assert done.returncode == 2
        assert done.stderr.startswith("error: there is no component `eco`\n\nhint: did you mean `echo`?")


def test_ps_shows_what_is_under_way(shell: Shell) -> None:
    shell.write(ECHO)
    shell.ok("up", "-d")
    for _ in range(6):
        shell.begin("wait:never")
    eventually(lambda: shell.components()["echo"]["waiting"] == 2)
    header, echo = shell.ok("ps").splitlines()
    shown = dict(zip(header.split(), echo.split(maxsplit=7), strict=False))
    assert (shown["COMPONENT"], shown["STATE"]) == ("echo", "ready")
    assert re.search(r" 4 +2 +\d+ +4 x 1000 tokens$", echo)


def test_ps_shows_how_far_a_load_is(shell: Shell) -> None:
    shell.write(ECHO + "  options: {load_waits_for: go}\n")
    shell.start("up")
    eventually(shell.listens)
    eventually(lambda: shell.components()["echo"]["loading"])
    assert shell.components()["echo"]["loading"] == {"stage": "weights", "done": 2, "total": 5}
    header, echo = shell.ok("ps").splitlines()
    assert echo[header.index("STATE") :].startswith("loading weights 40%   -")
    (shell.folder / "go").touch()
    eventually(lambda: shell.components()["echo"]["state"] == "ready")
    assert shell.components()["echo"]["loading"] is None


def test_down_kills_a_service_that_does_not_end(shell: Shell) -> None:
    shell.write(ECHO)
    shell.ok("up", "-d")
    pid, worker = shell.service()["pid"], shell.components()["echo"]["pid"]
    os.kill(pid, signal.SIGSTOP)
    assert shell.ok("down", "--timeout", "0.2") == f"killed after 0.2 s (process {pid})\n"
    eventually(lambda: not is_alive(worker))


def test_the_log_is_followed_until_the_service_ends(shell: Shell) -> None:
    shell.write(ECHO_AND_BROKEN)
    shell.ok("up", "-d")
    everything, one = shell.start("logs", "-f"), shell.start("logs", "-f", "broken")
    eventually(lambda: "ready after" in everything.output)
    shell.ask("hello", "broken")
    eventually(lambda: "the weights are of cheese" in everything.output)
    shell.ok("down")
    assert everything.ends() == one.ends() == 0
    assert everything.output.endswith("service | stopped\n")
    assert [line.split(" ", 1)[1] for line in one.output.splitlines()] == [
        "broken  | loading",
        "broken  | loading weights",
        "broken  | error: failed: the weights are of cheese",
    ]


def test_without_a_log_logs_says_so(shell: Shell) -> None:
    done = shell("logs")
    assert done.returncode == 1
    assert done.stderr == "error: there is no log yet\n\nhint: `model-compose up` writes one\n"
