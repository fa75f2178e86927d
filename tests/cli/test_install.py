"""Are environments made once, wholly or not at all, by `install` and by nobody else?"""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.cli.shell import Shell, eventually, is_alive
from tests.environments import UV, installed_wheel, new_wheel
from tests.fakes.index import FakeIndex
from tests.fakes.web import Answer, Request

pytestmark = pytest.mark.process

both = pytest.mark.parametrize("installer", ["uv", "pip"], indirect=True)

OWN = """
import tiny_engine

class Own:
    def __call__(self, request):
        return {"label": tiny_engine.NAME, "score": 1.0, "label_id": 0}
"""

FILE = """
controller: {port: 0}
component:
  id: own
  type: model
  task: text-classification
  implementation: ./own.py:Own
  runtime: RUNTIME
  text: ${input.text}
  output: ${result.label}
"""

ENGINE = "tiny_engine-{}-py3-none-any.whl"


class SlowIndex(FakeIndex):
    """An index that gives no file while it is held back."""

    def __init__(self) -> None:
        super().__init__(form="html")
        self.go = threading.Event()
        self.go.set()
        self.asked = threading.Event()

    def answer(self, request: Request) -> Answer:
        if request.path.startswith("/files/tiny_engine"):
            self.asked.set()
            self.go.wait(60)
        return super().answer(request)


@pytest.fixture
def index() -> Iterator[SlowIndex]:
    with SlowIndex() as index:
        index.add(*installed_wheel("msgspec"))
        for version in ("1.0", "2.0"):
            index.add(*new_wheel("tiny_engine", version, {"tiny_engine.py": f"NAME = 'tiny {version}'\n"}))
        yield index
        index.go.set()


@pytest.fixture
def installer(request: pytest.FixtureRequest) -> str:
    """uv, unless a test says otherwise: pip takes many times as long."""
    return str(getattr(request, "param", "uv"))


@pytest.fixture
def project(shell: Shell, index: SlowIndex, installer: str, tmp_path: Path) -> Shell:
    """A class of the user's own that needs an engine, on a machine with this installer."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "env", "uname", "ldd", "cc", "gcc"):
        if found := shutil.which(name):
            (programs / name).symlink_to(found)
    if installer == "uv":
        (programs / "uv").symlink_to(Path(UV).absolute())
    shell.environment |= {"PATH": str(programs), "PIP_INDEX_URL": f"{index.url}/simple"}
    (shell.folder / "own.py").write_text(OWN)
    write(shell, "[tiny_engine==1.0]")
    return shell


def write(shell: Shell, requirements: str) -> None:
    shell.write(
        FILE.replace("RUNTIME", f"{{type: virtualenv, path: envs/own, requirements: {requirements}}}")
    )


def record(shell: Shell) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((shell.folder / "envs/own/model-compose-lock.json").read_text())
    return found


def environments(shell: Shell) -> list[Path]:
    """The folders that installs made."""
    return sorted((shell.folder / "envs").glob(".own-*")) if (shell.folder / "envs").exists() else []


@both
def test_it_is_made_once_and_is_what_the_file_wants(project: Shell, index: SlowIndex, installer: str) -> None:
    path = project.folder / "envs" / "own"
    missing = project("run", "-i", "hi")
    assert missing.returncode == 1
    assert missing.stderr.startswith(f"error: the environment `{path}` of component `own` is not installed\n")
    assert missing.stderr.endswith("hint: run `model-compose install own`\n")
    assert "is not installed: run `model-compose install own`" in project("check").stderr
    assert project("up", "--dry-run").returncode == 1
    assert not index.requests

    first = project("install")
    assert first.returncode == 0, first.stderr
    version = "{}.{}.{}".format(*sys.version_info)
    assert re.fullmatch(
        rf"own: `{path}` is made \(Python {version}, \d packages, by {installer} .*\)\n", first.stdout
    )
    assert "own: " in first.stderr
    assert project.ok("run", "-i", "hi") == "tiny 1.0\n"
    assert project("check").stderr == ""

    packages = {each["name"]: each for each in record(project)["packages"]}
    assert packages["tiny_engine"]["version"] == "1.0"
    assert len(packages["tiny_engine"]["sha256"]) == 64
    assert packages.keys() - {"pip", "setuptools"} == {"msgspec", "tiny_engine"}
    assert record(project)["requirements"] == ["tiny_engine==1.0", "msgspec>=0.20"]
    before = len(index.requests)
    assert project.ok("install") == f"own: `{path}` is there already\n"
    assert len(index.requests) == before


def test_what_the_file_wants_differently_is_made_anew_and_the_old_goes(project: Shell) -> None:
    project.ok("install", "own")
    (old,) = environments(project)
    write(project, "[tiny_engine==2.0]")
    stale = project("run", "-i", "hi")
    assert "was made for other requirements\n" in stale.stderr
    assert stale.stderr.endswith("hint: run `model-compose install own`\n")
    project.ok("install")
    (new,) = environments(project)
    assert new != old
    assert project.ok("run", "-i", "hi") == "tiny 2.0\n"
    project.ok("install", "--reinstall")
    assert environments(project) != [new]


@both
def test_a_failure_is_told_and_leaves_nothing(project: Shell, installer: str) -> None:
    write(project, "[tiny_engine==1.0, no_such_package]")
    failed = project("install")
    assert failed.returncode == 1
    assert failed.stdout == ""
    last = failed.stderr[failed.stderr.index("\nerror: ") :]
    assert re.match(rf"\nerror: `.*/envs/own` is not made: `{installer}` ended with exit code 1\n", last)
    assert re.search("no[-_]such[-_]package", last)
    assert environments(project) == []


def test_a_failure_leaves_what_was_there(project: Shell) -> None:
    project.ok("install")
    (old,) = environments(project)
    write(project, "[tiny_engine==1.0, no_such_package]")
    assert project("install").returncode == 1
    assert environments(project) == [old]
    write(project, "[tiny_engine==1.0]")
    assert project.ok("run", "-i", "hi") == "tiny 1.0\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_stops_it_finds_nothing_of_it(project: Shell, index: SlowIndex, number: signal.Signals) -> None:
    index.go.clear()
    started = project.start("install")
    eventually(index.asked.is_set)
    programs = psutil.Process(started.process.pid).children(recursive=True)
    assert programs
    started.send(number)
    assert started.ends() == 130
    assert environments(project) == []
    eventually(lambda: not any(is_alive(each.pid) for each in programs), "what it started goes on")


def test_a_kill_in_the_middle_leaves_the_old_one_and_the_next_install_clears_up(
    project: Shell, index: SlowIndex
) -> None:
    project.ok("install")
    (old,) = environments(project)
    write(project, "[tiny_engine==2.0]")
    index.go.clear()
    index.asked.clear()
    started = project.start("install")
    eventually(index.asked.is_set)
    programs = psutil.Process(started.process.pid).children(recursive=True)
    started.send(signal.SIGKILL)
    started.ends()
    eventually(lambda: not any(is_alive(each.pid) for each in programs), "what it started goes on")
    assert len(environments(project)) == 2
    assert (project.folder / "envs" / "own").resolve() == old
    write(project, "[tiny_engine==1.0]")
    assert project.ok("run", "-i", "hi") == "tiny 1.0\n"
    index.go.set()
    project.ok("install")
    assert environments(project) == [old]


def test_of_two_at_once_one_makes_it_and_the_other_waits(project: Shell, index: SlowIndex) -> None:
    index.go.clear()
    first = project.start("install")
    eventually(index.asked.is_set)
    second = project.start("install")
    eventually(lambda: "another install of it runs; this one waits" in second.errors)
    index.go.set()
    assert (first.ends(), second.ends()) == (0, 0)
    assert "is made" in first.output
    assert "is there already" in second.output
    assert len(environments(project)) == 1


def test_a_service_keeps_the_environment_that_its_worker_lives_in(project: Shell) -> None:
    project.ok("install")
    (old,) = environments(project)
    project.ok("up", "-d")
    shown = project.components()["own"]["python"]
    assert shown["path"] == str(project.folder / "envs" / "own" / "bin" / "python")
    assert shown["version"] == "{}.{}.{}".format(*sys.version_info)
    assert f"python {shown['version']} at {shown['path']}" in project.ok("ps")
    again = project("install", "--reinstall")
    assert "the one before is still used by a worker; the next install removes it" in again.stderr
    assert old in environments(project)
    assert project.ask({"text": "hi"}).json()["output"] == "tiny 1.0"
    project.ok("restart", "own")
    assert project.ask({"text": "hi"}).json()["output"] == "tiny 1.0"
    project.ok("down")
    project.ok("install")
    assert old not in environments(project)


def test_requirements_may_stand_in_a_file_with_hashes(project: Shell, index: SlowIndex) -> None:
    sha256 = index._files[ENGINE.format("1.0")].sha256
    (project.folder / "requirements.txt").write_text(f"tiny_engine==1.0 --hash=sha256:{sha256}\n")
    write(project, "requirements.txt")
    project.ok("install")
    assert project.ok("run", "-i", "hi") == "tiny 1.0\n"
    (project.folder / "requirements.txt").write_text(f"tiny_engine==1.0 --hash=sha256:{'0' * 64}\n")
    failed = project("install")
    assert failed.returncode == 1
    assert "hash" in failed.stderr.lower()


def test_passwords_are_in_no_output_and_in_no_record(project: Shell, index: SlowIndex) -> None:
    url = f"{index.url}/files/{ENGINE.format('1.0')}".replace("http://", "http://me:secret@")
    write(project, f"['tiny_engine @ {url}']")
    done = project("install")
    assert done.returncode == 0, done.stderr
    assert "secret" not in done.stdout + done.stderr
    text = (project.folder / "envs/own/model-compose-lock.json").read_text()
    assert "secret" not in text
    assert record(project)["packages"][1]["origin"].startswith("http://127.0.0.1:")


def test_requirements_that_do_not_bring_the_engine_make_nothing(project: Shell) -> None:
    project.install_a_driver_without_its_library()
    project.write(
        "component: {id: own, type: model, task: text-generation, driver: lost, "
        "runtime: {type: virtualenv, requirements: [tiny_engine]}}"
    )
    failed = project("install")
    assert failed.returncode == 1
    assert "would not do: they do not bring `no_such_library`" in failed.stderr
    assert list((project.folder / ".venvs").glob(".own-*")) == []


def test_a_folder_of_somebody_else_s_is_not_touched(project: Shell) -> None:
    mine = project.folder / "envs" / "own"
    mine.mkdir(parents=True)
    (mine / "precious").touch()
    refused = project("install", "--reinstall")
    assert refused.returncode == 1
    assert "is there, and `model-compose install` did not make it" in refused.stderr
    assert [each.name for each in mine.iterdir()] == ["precious"]


def test_what_has_no_environment_is_told(shell: Shell) -> None:
    shell.write("component: {id: a, type: model, task: text-generation, driver: echo}")
    assert shell.ok("install") == "there are no environments to install\n"
    assert shell("install", "a").stderr.startswith("error: component `a` has no environment of its own\n")
    assert shell("install", "b").stderr.startswith("error: there is no model component `b`\n")
    assert shell("install", "b").returncode == 2
