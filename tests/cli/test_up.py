from __future__ import annotations

import json
import os
import signal
import socket
import stat
from pathlib import Path

import httpx2
import psutil
import pytest
from tests.cli.shell import ECHO, ECHO_AND_BROKEN, Shell, eventually, is_alive

pytestmark = pytest.mark.process


def test_a_detached_service_serves_until_it_is_stopped(shell: Shell) -> None:
    shell.write(ECHO)
    said = shell.ok("up", "-d")
    service = shell.service()
    assert f"{service['url']}/docs" in said
    assert f"as process {service['pid']}" in said
    echo = shell.components()["echo"]
    assert echo["state"] == "ready"
    assert shell.ask("hello").json()["output"] == "hello"
    assert shell.ok("down") == f"stopped (process {service['pid']})\n"
    eventually(lambda: not is_alive(service["pid"]) and not is_alive(echo["pid"]))
    assert not shell.listens()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_service_in_the_foreground_says_where_it_is_and_ends_well(
    shell: Shell, number: signal.Signals
) -> None:
    shell.write(ECHO)
    up = shell.start("up")
    eventually(lambda: "ready after" in up.output)
    url = shell.service()["url"]
    assert f"API        {url}/api" in up.output
    assert "workflows  __workflow__ (default)" in up.output
    up.send(number)
    assert up.ends() == 0
    assert up.output.endswith("service | stopped\n")
    assert up.errors == ""
    assert not shell.listens()


def test_a_detached_service_holds_no_pipe_of_its_parent(shell: Shell) -> None:
    shell.write(ECHO)
    shell("up", "-d")  # this call ends when both pipes have ended
    service = psutil.Process(shell.service()["pid"])
    assert service.is_running()
    written = {Path(file.path) for file in service.open_files()}
    assert shell.state / "logs" / "output.log" in written


def test_the_state_folder_is_for_its_owner_only(shell: Shell) -> None:
    shell.write(ECHO)
    shell.ok("up", "-d")

    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert mode(shell.state) == 0o700
    assert mode(shell.state / "token") == mode(shell.state / "service.json") == 0o600
    assert (shell.state / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize("words", [["up"], ["up", "-d"]])
def test_a_second_service_of_a_folder_is_refused(shell: Shell, words: list[str]) -> None:
    shell.write(ECHO)
    shell.ok("up", "-d")
    service = shell.service()
    second = shell(*words)
    assert second.returncode == 1
    assert f"process {service['pid']} at {service['url']}" in second.stderr
    assert "hint: `model-compose down` stops it" in second.stderr
    assert shell.service() == service
    assert shell.ask("still here").json()["output"] == "still here"


def test_a_service_that_was_killed_leaves_nothing_that_confuses(shell: Shell) -> None:
    shell.write(ECHO)
    shell.ok("up", "-d")
    killed = shell.service()["pid"]
    worker = shell.components()["echo"]["pid"]
    os.kill(killed, signal.SIGKILL)
    eventually(lambda: not is_alive(worker), "a worker outlived its service")
    assert shell.listens()
    assert shell("ps").returncode == 1
    assert shell.ok("down") == "no service runs for this folder\n"
    shell.ok("up", "-d")
    assert shell.service()["pid"] != killed
    assert shell.ask("again").json()["output"] == "again"


@pytest.mark.parametrize("words", [["up"], ["up", "-d"]])
def test_a_port_in_use_is_one_clear_error(shell: Shell, words: list[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        shell.write(ECHO.replace("port: 0", f"port: {port}"))
        up = shell(*words)
    assert up.returncode == 1
    assert up.stderr == (
        f"error: port {port} on 127.0.0.1 is in use\n"
        "\nhint: end the program that uses it, or set `controller.port`; 0 takes a free one\n"
    )
    assert not shell.listens()
    assert shell("ps").returncode == 1


@pytest.mark.parametrize("words", [["up"], ["up", "-d"]])
def test_a_wrong_file_starts_nothing(shell: Shell, words: list[str]) -> None:
    shell.write(ECHO + "  max_que: 5\n")
    up = shell(*words)
    assert up.returncode == 2
    assert "unknown field `max_que`" in up.stderr
    assert not shell.state.exists()


@pytest.mark.parametrize("words", [["up"], ["up", "-d"]])
def test_a_service_with_nothing_left_to_serve_fails(shell: Shell, words: list[str]) -> None:
    shell.write(ECHO + "  options: {load_fails: the weights are of cheese}\n")
    up = shell(*words)
    assert up.returncode == 1
    assert up.stderr == "error: the weights are of cheese\n"
    assert "echo    | error: failed: the weights are of cheese" in up.stdout
    assert not shell.listens()
    assert "echo" in [line.get("component") for line in shell.log() if line["level"] == "error"]


def test_a_component_that_fails_does_not_take_the_others_with_it(shell: Shell) -> None:
    shell.write(ECHO_AND_BROKEN.replace("preload: false", "preload: true"))
    up = shell("up", "-d")
    assert up.returncode == 1
    assert "serving without what has failed: broken" in up.stdout
    assert shell.ask("hello").json()["output"] == "hello"
    assert shell.components()["broken"]["state"] == "failed"


def test_a_service_ends_when_its_last_component_fails_later(shell: Shell) -> None:
    shell.write(ECHO + "  preload: false\n  options: {load_fails: the weights are of cheese}\n")
    up = shell.start("up")
    eventually(shell.listens)
    assert shell.ask("hello").json()["status"] == "failed"
    assert up.ends() == 1
    assert up.errors == "error: the weights are of cheese\n"


def test_a_library_that_is_not_installed_is_named_before_anything_starts(shell: Shell) -> None:
    shell.install_a_driver_without_its_library()
    shell.write(ECHO_AND_BROKEN.replace("driver: echo", "driver: lost", 1))
    up = shell("up")
    assert up.returncode == 1
    assert "component `echo` needs `no_such_library`, which is not installed" in up.stderr
    assert "hint: pip install 'modelyard-compose[lost]'" in up.stderr
    assert "loading" not in up.stdout
    assert shell("up", "--dry-run").stderr == up.stderr


def test_on_demand_the_log_is_json_lines(shell: Shell) -> None:
    shell.write(ECHO)
    up = shell.start("up", "--log-format", "json")
    eventually(shell.listens)
    failed = shell.ask("fail").json()
    assert failed["status"] == "failed"
    up.send(signal.SIGTERM)
    assert up.ends() == 0
    lines = [json.loads(line) for line in up.output.splitlines()]
    assert all({"time", "level", "message"} <= line.keys() for line in lines)
    assert [line["message"] for line in lines if line.get("component") == "echo"][:3] == [
        "loading",
        "loading weights",
        "ready",
    ]
    assert [line["task_id"] for line in lines if "task_id" in line] == [failed["task_id"]]
    assert lines == shell.log()


def test_ctrl_c_while_a_detached_service_starts_ends_it(shell: Shell) -> None:
    shell.write(ECHO + "  options: {load_waits_for: never}\n")
    up = shell.start("up", "-d")
    eventually(shell.listens)
    service = shell.service()["pid"]
    up.send(signal.SIGINT)
    assert up.ends() == 130
    assert not is_alive(service)
    assert "stopped" in up.output
    assert up.errors == ""


def test_a_second_ctrl_c_does_not_wait_for_runs(shell: Shell) -> None:
    shell.write(ECHO)
    up = shell.start("up")
    eventually(lambda: "ready after" in up.output)
    task = shell.begin("touch:began wait:never")
    eventually((shell.folder / "began").exists)
    up.send(signal.SIGINT)
    eventually(lambda: "stopping" in up.output)
    up.send(signal.SIGINT)
    assert up.ends() == 0
    ended = next(line for line in shell.log() if line.get("task_id") == task)
    assert "interrupted" in ended["message"]


def test_runs_that_wait_survive_a_restart_of_the_service(shell: Shell) -> None:
    shell.write(ECHO + "  options: {load_waits_for: go}\n")
    up = shell.start("up")
    eventually(shell.listens)
    queued = shell.begin("hello")
    up.send(signal.SIGTERM)
    assert up.ends() == 0
    (shell.folder / "go").touch()
    shell.ok("up", "-d")

    def status() -> str:
        found = httpx2.get(f"{shell.service()['api_url']}/tasks/{queued}").json()
        return str(found["status"])

    eventually(lambda: status() == "completed")


def test_a_dry_run_says_what_would_be_served_and_starts_nothing(shell: Shell) -> None:
    shell.write(ECHO_AND_BROKEN + "memory_limit: 2GB\n")
    assert shell.ok("up", "--dry-run") == (
        "would listen on a free port of 127.0.0.1, with the API under /api\n"
        "would keep all models together within 2.0 GB of memory\n"
        "would offer the workflows echo, broken\n"
        "\n"
        "COMPONENT   LOADED                 TASK              DRIVER   ON DISK   WEIGHTS\n"
        "echo        at start               text-generation   echo     -         -\n"
        "broken      at the first request   text-generation   echo     -         -\n"
    )
    assert not shell.state.exists()


def test_a_dry_run_says_which_weights_are_here_and_where_it_would_listen(shell: Shell) -> None:
    (shell.folder / "here.gguf").write_bytes(bytes(1500))
    shell.write(
        """
controller: {host: "::1", port: 1234}
components:
  - {id: here, default: true, type: model, task: text-generation, model: ./here.gguf}
  - {id: away, type: model, task: text-generation, model: ./away.gguf}
"""
    )
    listens, _, _, _, _, here, away = shell.ok("up", "--dry-run").splitlines()
    assert listens == "would listen on http://[::1]:1234, with the API under /api"
    assert here.endswith("llamacpp   1.5 kB    ./here.gguf")
    assert away.endswith("llamacpp   not yet   ./away.gguf")
