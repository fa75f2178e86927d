"""How does a test type a command? In a folder and an environment of its own, in a real process."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import psutil

#: The smallest file that is served.
ECHO = """
controller: {port: 0}
component:
  id: echo
  type: model
  task: text-generation
  driver: echo
"""

#: Two components; the second one cannot be loaded, and is not before somebody asks for it.
ECHO_AND_BROKEN = """
controller: {port: 0}
components:
  - id: echo
    default: true
    type: model
    task: text-generation
    driver: echo
  - id: broken
    type: model
    task: text-generation
    driver: echo
    preload: false
    options: {load_fails: the weights are of cheese}
"""

_WITHIN_S = 60.0


class Shell:
    """A folder to type commands in."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self._home = home
        self._numbers = itertools.count()
        self._started: list[Started] = []
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))},
            "PIP_CONFIG_FILE": os.devnull,
            "UV_NO_CONFIG": "1",
            "HOME": str(home),
            "MODEL_COMPOSE_CACHE": str(home / "cache"),
            "HF_HUB_CACHE": str(home / "hub"),
            "COLUMNS": "100",
        }
        for name in ("FORCE_COLOR", "NO_COLOR", "PYTHONUNBUFFERED", "XDG_CACHE_HOME"):
            self.environment.pop(name, None)

    def install_a_driver_without_its_library(self) -> None:
        """Make `driver: lost` known, which needs what nobody has."""
        info = self._home / "plugin" / "lost_driver-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lost-driver\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[model_compose.drivers]\nlost = lost_driver:SPEC\n")
        (info.parent / "lost_driver.py").write_text(
            "import msgspec, echo_driver\n"
            "SPEC = msgspec.structs.replace(\n"
            "    echo_driver.SPEC, name='lost', extra='lost', modules=('no_such_library',)\n"
            ")\n"
        )
        self.environment["PYTHONPATH"] += f"{os.pathsep}{info.parent}"

    def write(self, text: str, name: str = "model-compose.yml") -> None:
        """Write a file of the project."""
        (self.folder / name).write_text(text)

    def __call__(
        self, *words: str, given: str = "", variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Type a command and wait until it ends and nothing writes to its output any more."""
        return subprocess.run(
            _command(words),
            cwd=self.folder,
            env={**self.environment, **(variables or {})},
            input=given,
            capture_output=True,
            text=True,
            timeout=_WITHIN_S,
            check=False,
        )

    def ok(self, *words: str, given: str = "") -> str:
        """Type a command that must work; -> what it prints."""
        done = self(*words, given=given)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def start(self, *words: str, output: int | None = None) -> Started:
        """Type a command that goes on. It prints to the file descriptor `output`, if that is given."""
        number = next(self._numbers)
        printed, errors = self._home / f"{number}.out", self._home / f"{number}.err"
        with printed.open("w") as out, errors.open("w") as err:
            process = subprocess.Popen(
                _command(words),
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out if output is None else output,
                stderr=err,
            )
        started = Started(process, printed, errors)
        self._started.append(started)
        return started

    # The service

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.folder / ".model-compose"

    def service(self) -> dict[str, Any]:
        """What `service.json` says."""
        service: dict[str, Any] = json.loads((self.state / "service.json").read_text())
        return service

    def listens(self) -> bool:
        """Whether a service has said where it listens."""
        return (self.state / "service.json").exists()

    def ask(self, given: Any, workflow: str | None = None) -> httpx2.Response:
        """Run a workflow of the service over HTTP."""
        body = {"input": given, **({"workflow_id": workflow} if workflow else {})}
        return httpx2.post(f"{self.service()['api_url']}/workflows/runs", json=body, timeout=_WITHIN_S)

    def begin(self, given: Any) -> str:
        """Begin a run that nobody waits for; -> its id."""
        body = {"input": given, "wait_for_completion": False}
        url = f"{self.service()['api_url']}/workflows/runs"
        return str(httpx2.post(url, json=body, timeout=_WITHIN_S).json()["task_id"])

    def components(self) -> dict[str, dict[str, Any]]:
        """What the service says of each component, as `ps --json` prints it."""
        found = httpx2.get(f"{self.service()['api_url']}/components", timeout=_WITHIN_S).json()
        return {each["name"]: each for each in found}

    def log(self) -> list[dict[str, Any]]:
        """The log file."""
        return [json.loads(line) for line in (self.state / "logs" / "service.log").read_text().splitlines()]

    def clean_up(self) -> None:
        """End what was started, and the service, if there is one."""
        for started in self._started:
            started.process.kill()
            started.process.wait()
        end_service(self.folder)


class Started(msgspec.Struct, frozen=True):
    """A command that has not ended yet, and the files that it prints to."""

    process: subprocess.Popen[bytes]
    _output: Path
    _errors: Path

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._output.read_text()

    @property
    def errors(self) -> str:
        """What it has printed on stderr so far."""
        return self._errors.read_text()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def ends(self) -> int:
        """Wait for its end; -> its exit code."""
        return self.process.wait(_WITHIN_S)


def eventually(condition: Callable[[], Any], what: str = "") -> None:
    """Wait until a condition holds, or fail."""
    ends = time.monotonic() + _WITHIN_S
    while not condition():
        assert time.monotonic() < ends, what or "it never happened"
        time.sleep(0.01)


def end_service(folder: Path) -> None:
    """End the service of a folder, if there is one, as two times Ctrl-C does; what does not end is killed."""
    lock = folder / ".model-compose" / "lock"
    try:
        service = psutil.Process(int(lock.read_text()))
        if "model_compose" not in " ".join(service.cmdline()).replace("-", "_"):
            return  # it has ended, and its number is somebody else's
        for _ in range(2):
            service.send_signal(signal.SIGTERM)
        service.wait(5)
    except psutil.TimeoutExpired:
        service.kill()
    except (FileNotFoundError, NotADirectoryError, ValueError, psutil.NoSuchProcess):
        pass


def is_alive(pid: int) -> bool:
    """Whether a process runs; a dead one that nobody has waited for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _command(words: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "model_compose", *words]
