from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest
from tests.cli.shell import Shell, eventually
from tests.fakes.index import FakeIndex, wheel

from model_compose.sources.disk import size_text

pytestmark = pytest.mark.process

WEIGHTS = b"GGUF" + os.urandom(300_000)
WHEEL_NAME = "tiny_model-1.0-py3-none-any.whl"
WHEEL = wheel({"tiny_model/tiny.gguf": WEIGHTS}, name="tiny_model")


@pytest.fixture
def index() -> Iterator[FakeIndex]:
    with FakeIndex() as index:
        index.add(WHEEL_NAME, WHEEL)
        yield index


@pytest.fixture
def project(shell: Shell, index: FakeIndex) -> Shell:
    """Two components with the same weights, and one with a file of its own."""
    (shell.folder / "own.gguf").write_bytes(WEIGHTS[:1000])
    source = f"{{package: tiny-model==1.0, filename: tiny.gguf, index: {index.url}/simple}}"
    shell.write(
        f"""
components:
  - {{id: a, default: true, type: model, task: text-generation, model: {source}}}
  - {{id: b, type: model, task: text-generation, model: {source}}}
  - {{id: c, type: model, task: text-generation, model: ./own.gguf}}
"""
    )
    return shell


def test_weights_are_downloaded_once_and_then_are_there(project: Shell, index: FakeIndex) -> None:
    first = project("pull")
    assert first.returncode == 0
    assert sorted(first.stdout.splitlines()) == [
        "a, b: tiny-model==1.0:tiny.gguf is here (300 kB)",
        "c: ./own.gguf is here already (1.0 kB)",
    ]
    began, ended = first.stderr.splitlines()
    assert began == f"a, b: downloading `tiny-model 1.0` ({size_text(len(WHEEL))})"
    assert ended.startswith("a, b: downloaded `tiny-model 1.0` in ")
    second = project("pull")
    assert "a, b: tiny-model==1.0:tiny.gguf is here already (300 kB)\n" in second.stdout
    assert second.stderr == ""
    assert len(index.downloads(WHEEL_NAME)) == 1


def test_only_the_components_that_are_named_are_pulled(project: Shell, index: FakeIndex) -> None:
    assert project.ok("pull", "c") == "c: ./own.gguf is here already (1.0 kB)\n"
    assert index.requests == []
    unknown = project("pull", "d")
    assert unknown.returncode == 2
    assert unknown.stderr.startswith("error: there is no component `d`\n")


def test_what_fails_is_told_and_the_rest_comes(project: Shell) -> None:
    (project.folder / "own.gguf").unlink()
    pull = project("pull")
    assert pull.returncode == 1
    assert pull.stdout == "a, b: tiny-model==1.0:tiny.gguf is here (300 kB)\n"
    assert "error: there is no file or folder `" in pull.stderr
    assert "Traceback" not in pull.stderr


def test_ctrl_c_keeps_what_has_come_for_the_next_pull(project: Shell, index: FakeIndex) -> None:
    index.break_after(WHEEL_NAME, 200_000, 0, 0)
    pull = project.start("pull")
    eventually(lambda: len(index.downloads(WHEEL_NAME)) >= 2)  # the first one broke, and it tries again
    pull.send(signal.SIGINT)
    assert pull.ends() == 130
    assert pull.errors.endswith("stopped; what has come is kept, and the next pull goes on from there\n")
    again = project("pull")
    assert "200 kB of it here already" in again.stderr
    assert index.downloads(WHEEL_NAME)[-1].range == "bytes=200000-"


def test_the_cache_is_listed_and_emptied(project: Shell) -> None:
    assert project.ok("cache", "ls") == "nothing has been downloaded\n"
    project.ok("pull")
    name = "tiny-model==1.0:tiny.gguf"
    header, row, _, total = project.ok("cache", "ls").splitlines()
    assert header.split() == ["NAME", "KIND", "REVISION", "SIZE", "LAST", "USED"]
    assert row.split()[:5] == [name, "pypi", "1.0", "300", "kB"]
    assert total == "300 kB in all"
    assert [each["size_bytes"] for each in json.loads(project.ok("cache", "ls", "--json"))] == [len(WEIGHTS)]

    refused = project("cache", "rm", name, given="n\n")
    assert (refused.returncode, refused.stdout.splitlines()[-1]) == (
        1,
        "Remove this? [y/N] nothing is removed",
    )
    nobody = project("cache", "rm", name)
    assert (nobody.returncode, nobody.stdout.splitlines()[-1]) == (
        1,
        "nothing is removed: nobody answered (`-y` does not ask)",
    )
    assert project.ok("cache", "rm", "--older-than", "1d", "-y") == "there is nothing to remove\n"
    assert project.ok("cache", "rm", name, given="y\n").endswith("removed 1, 300 kB freed\n")
    assert project.ok("cache", "rm", "--all", "-y") == "there is nothing to remove\n"
    project.ok("pull")
    assert project.ok("cache", "rm", "--all", "-y") == "removed 1, 300 kB freed\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "say what to remove"),
        (["--all", "--older-than", "1d"], "say what to remove"),
        (["no-such"], "the cache holds no `no-such`"),
        (["--older-than", "soon"], "`--older-than soon` is not a duration"),
    ],
)
def test_what_cannot_be_removed_is_refused(shell: Shell, words: list[str], message: str) -> None:
    done = shell("cache", "rm", *words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {message}")
