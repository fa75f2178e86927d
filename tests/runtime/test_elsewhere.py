"""Does a worker serve under a Python that has msgspec and nothing else, and say what is wrong with others?"""

from __future__ import annotations

import ast
import os
import re
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.conftest import PLUGINS
from tests.environments import bare
from tests.fakes.old_python import pretending
from tests.runtime.pools import Models, echo, eventually, files, gone, running

from model_compose.errors import ModelUnavailable
from model_compose.runtime import elsewhere
from model_compose.runtime.messages import LoadFailed, ToGateway
from model_compose.runtime.pool import ModelSetup

PACKAGE = Path(elsewhere.__file__).parents[1]

#: A module of an own class, and what it finds around it.
LOOKER = """
import importlib.util, os, sys
from echo_driver import EchoGenerator
from model_compose.drivers.contract import Outcome
from model_compose.tasks.generation import Completion
from model_compose.types import Usage

class Looker(EchoGenerator):
    async def run(self, request, sink, cancel):
        found = importlib.util.find_spec(request.prompt)
        text = os.environ.get(request.prompt) or str(found and found.origin or found)
        return Outcome(Completion(text, "stop", Usage(1, 1)), Usage(1, 1), "stop")
"""

SPAWNER = """
import multiprocessing
from echo_driver import EchoGenerator
from model_compose.types import Usage

def double(usage):
    return Usage(usage.prompt_tokens * 2, usage.completion_tokens * 2)

class Spawner(EchoGenerator):
    async def run(self, request, sink, cancel):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            usage = pool.apply(double, (Usage(1, 2),))
        outcome = await super().run(request, sink, cancel)
        return type(outcome)(outcome.result, usage, "stop")
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    return bare(tmp_path_factory.mktemp("environments") / "bare", "msgspec")


def elsewhere_of(python: str, *folders: Path, implementation: str | None = None) -> ModelSetup:
    """An echo model under another Python, which gets the echo driver as that has its path."""
    path = os.pathsep.join([PLUGINS, *map(str, folders)])
    return echo(python=python, environment={"PYTHONPATH": path}, implementation=implementation)


async def failure(models: Models) -> str:
    """Why the model cannot be loaded, and what to do about it."""
    with pytest.raises(ModelUnavailable):
        await models.answer("hello")
    error = models.pool.error("echo")
    return f"{error}\n{error and error.hint}"


@pytest.mark.process
async def test_a_bare_environment_with_msgspec_is_enough(python: str) -> None:
    async with running(elsewhere_of(python)) as models:
        assert await models.answer("hello") == "hello"
        call = models.ask("chunks:5", streaming=True)
        assert "".join([each.text async for several in call.chunks() for each in several]) == "0 1 2 3 4 "
        status = models.status()
        assert status.python is not None
        assert (status.python.path, status.python.version) == (python, "{}.{}.{}".format(*sys.version_info))
        assert models.worker().exe() == os.path.realpath(python)


@pytest.mark.process
async def test_what_runs_in_our_own_python_says_nothing_of_it() -> None:
    async with running(echo()) as models:
        await models.load()
        assert models.status().python is None


@pytest.mark.process
async def test_it_sees_our_package_and_nothing_that_lies_beside_it(python: str, tmp_path: Path) -> None:
    (tmp_path / "looker.py").write_text(LOOKER)
    async with running(elsewhere_of(python, tmp_path, implementation="looker:Looker")) as models:
        assert await models.answer("model_compose.errors") == str(PACKAGE / "errors.py")
        assert (await models.answer("msgspec")).startswith(str(Path(python).parents[1]))
        for name in ("typer", "starlette", "pytest", "memory", "batch"):
            assert await models.answer(name) == "None", name
        assert (await models.answer("PATH")).startswith(str(Path(python).parent) + os.pathsep)


@pytest.mark.process
async def test_variables_of_our_python_are_not_for_another(
    python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "strange.py").touch()
    (tmp_path / "looker.py").write_text(LOOKER)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{PLUGINS}")
    async with running(echo(python=python, implementation="looker:Looker")) as models:
        assert "No module named 'looker'" in await failure(models)


@pytest.mark.process
async def test_processes_that_an_engine_spawns_know_our_classes(python: str, tmp_path: Path) -> None:
    (tmp_path / "spawner.py").write_text(SPAWNER)
    async with running(elsewhere_of(python, tmp_path, implementation="spawner:Spawner")) as models:
        outcome = await models.ask("hello").outcome()
        assert outcome.usage is not None
        assert (outcome.usage.prompt_tokens, outcome.usage.completion_tokens) == (2, 4)


@pytest.mark.process
async def test_it_crashes_and_comes_back_and_is_cancelled_as_any_worker(
    python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_compose.runtime.scheduler.FIRST_BACKOFF_S", 0.01)
    died, begun, go = files(tmp_path, "died", "begun", "go")
    async with running(elsewhere_of(python)) as models:
        first = await models.load()
        assert await models.answer(f"die:{died}") == f"die:{died}"
        assert models.worker().pid != first.pid
        call = models.ask(f"touch:{begun} wait:{go}")
        await eventually(begun.exists, "it began")
        models.pool.cancel(call)
        await eventually(lambda: models.status().active == 0, "it left")
        worker = models.worker()
    await eventually(lambda: gone(worker.pid), "it went with the pool")


@pytest.mark.process
@pytest.mark.parametrize(
    ("pretends", "told"),
    [
        (
            "3.10.13",
            r"it is cpython 3\.10\.13, and a worker needs CPython 3\.11 or newer\nname another",
        ),
        ("ours", r"is of version 0\.0\.9, and the service of .*\nmodel-compose was installed anew"),
    ],
)
async def test_a_worker_that_is_not_as_ours_is_told_by_what_it_says_first(
    python: str, tmp_path: Path, pretends: str, told: str
) -> None:
    async with running(elsewhere_of(pretending(tmp_path, python, pretends))) as models:
        found = await failure(models)
        assert re.search(told, found), found
        await eventually(lambda: models.status().pid is None, "its worker has ended")


@pytest.mark.process
async def test_one_without_msgspec_says_so(tmp_path: Path) -> None:
    async with running(elsewhere_of(bare(tmp_path / "none"))) as models:
        assert "it has no msgspec, which a worker needs\ninstall `msgspec>=0.20` there" in await failure(
            models
        )


@pytest.mark.process
async def test_one_that_is_gone_fails_the_model_and_no_other(python: str, tmp_path: Path) -> None:
    async with running(echo(python=str(tmp_path / "python")), echo("other")) as models:
        assert f"is `{tmp_path / 'python'}` still there" in await failure(models)
        assert await models.answer("hello", "other") == "hello"


@pytest.mark.process
async def test_one_that_speaks_nonsense_is_not_loaded(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text(
        f"#!{sys.executable}\nimport socket, sys\n"
        "sock = socket.socket(fileno=int(sys.argv[-1]))\n"
        "sock.sendall(bytes([4, 0, 0, 0]) + bytes([147, 1, 2, 3]))\nsock.recv(1)\n"
    )
    script.chmod(0o755)
    async with running(echo(python=str(script))) as models:
        assert "is of version unknown" in await failure(models)


def test_a_refusal_is_a_message_like_any_other() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        hint = "x" * 300 + "ü"
        refusing = threading.Thread(target=elsewhere.refuse, args=(theirs, "it is old", hint))
        refusing.start()
        data = ours.recv(1 << 16)
        ours.shutdown(socket.SHUT_RDWR)
        refusing.join()
    (length,) = struct.unpack("<I", data[:4])
    message = msgspec.msgpack.decode(data[4 : 4 + length], type=ToGateway)
    assert isinstance(message, LoadFailed)
    assert (message.error.code, message.error.message, message.error.hint) == (
        *("driver_missing", "it is old"),
        hint,
    )


def test_modules_are_looked_for_and_not_imported() -> None:
    assert elsewhere.missing(["json", "no_such_thing", "no_such.thing", "email.mime"]) == [
        *("no_such_thing", "no_such.thing"),
    ]


# What a worker imports before its driver


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports when it is imported."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def everything(first: list[Path]) -> dict[str, Path]:
    """What files import, of others, at any depth, and where."""
    found: dict[str, Path] = {}
    seen, left = set[Path](), list(first)
    while left:
        path = left.pop()
        seen.add(path)
        for name in imported(path):
            if name.startswith("model_compose"):
                inner = PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py")
                left += [inner] if inner.is_file() and inner not in seen else []
            else:
                found[name.split(".")[0]] = path
    return found


def test_a_worker_needs_nothing_but_msgspec_until_it_imports_its_engine() -> None:
    specs = [*PACKAGE.glob("tasks/*/spec.py"), *PACKAGE.glob("drivers/*/spec.py")]
    shared = [PACKAGE / "runtime" / "worker.py", PACKAGE / "drivers" / "contract.py"]
    needed = everything([*shared, *specs, PACKAGE / "drivers" / "custom" / "own.py"])
    assert needed.keys() - sys.stdlib_module_names == {"msgspec"}


def test_the_first_file_needs_the_standard_library_only() -> None:
    tree = ast.parse(Path(elsewhere.__file__).read_text(), feature_version=(3, 7))
    top = {name for node in tree.body if isinstance(node, ast.Import) for name in (node.names[0].name,)}
    assert {name.split(".")[0] for name in top} <= sys.stdlib_module_names


@pytest.mark.parametrize(
    ("driver", "engine"), [("llamacpp", {"xllamacpp"}), ("unsloth", {"safetensors", "torch"})]
)
def test_a_driver_that_may_live_elsewhere_imports_its_engine_and_no_more(
    driver: str, engine: set[str]
) -> None:
    own = [*PACKAGE.glob(f"drivers/{driver}/**/*.py"), *PACKAGE.glob(f"tasks/*/{driver}.py")]
    assert len(own) > 3
    needed = everything([*own, *PACKAGE.glob(f"tasks/*/{driver}/*.py")])
    assert needed.keys() - sys.stdlib_module_names <= {"msgspec", *engine}
