"""What do `pull`, `up --dry-run` and `cache` say of known weights?

In this process, because a table that a test has changed is known in no other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.web import sha256_of
from tests.fakes.weights import Shelf, packed
from typer.testing import CliRunner, Result

from model_compose.cli.main import commands
from model_compose.sources.known import KNOWN

MEMBERS = {"det.onnx": os.urandom(200_000), "rec.onnx": os.urandom(100_000)}
PACK = packed(MEMBERS)
FILE = """
component: {id: faces, type: model, task: face-embedding, model: tiny_faces, image: '${input.photo as image}'}
"""


@pytest.fixture(autouse=True)
def shelf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Shelf]:
    with Shelf() as shelf:
        known = shelf.add("tiny_faces.zip", PACK, members=MEMBERS, licence="research only")
        monkeypatch.setitem(KNOWN, "tiny_faces", known)
        for name in ("MODEL_COMPOSE_MODELS", "HF_HUB_OFFLINE", "UV_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("MODEL_COMPOSE_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        (tmp_path / "model-compose.yml").write_text(FILE, encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        yield shelf


def typed(*words: str) -> Result:
    return CliRunner().invoke(commands(), list(words))


def test_the_licence_and_the_size_are_shown_before_anything_comes(shelf: Shelf) -> None:
    first = typed("pull")
    assert first.exit_code == 0, first.output
    began, ended = first.stderr.splitlines()
    assert began == "faces: downloading `tiny_faces (127.0.0.1, research only)` (300 kB)"
    assert ended.startswith("faces: downloaded `tiny_faces (127.0.0.1, research only)` in ")
    assert first.stdout == "faces: tiny_faces is here (300 kB)\n"
    assert typed("pull").stdout == "faces: tiny_faces is here already (300 kB)\n"
    assert len(shelf.requests) == 1


def test_the_plan_knows_the_size_of_what_is_not_here_yet(shelf: Shelf, tmp_path: Path) -> None:
    # With a driver that needs no library.
    text = "component: {id: faces, type: model, task: text-generation, driver: echo, model: tiny_faces}"
    (tmp_path / "model-compose.yml").write_text(text, encoding="utf-8")
    before = typed("up", "--dry-run")
    assert before.exit_code == 0, before.output
    assert before.stdout.split()[-5:] == ["not", "yet", "(300", "kB)", "tiny_faces"]
    assert shelf.requests == []
    typed("pull")
    assert typed("up", "--dry-run").stdout.split()[-4:] == ["echo", "300", "kB", "tiny_faces"]


def test_the_cache_lists_and_removes_them() -> None:
    typed("pull")
    _, row, *_ = typed("cache", "ls").stdout.splitlines()
    assert row.split()[:5] == ["tiny_faces", "known", sha256_of(PACK)[:12], "300", "kB"]
    assert typed("cache", "rm", "tiny_faces", "-y").stdout == "removed 1, 300 kB freed\n"
    assert typed("cache", "ls").stdout == "nothing has been downloaded\n"


def test_without_a_network_the_place_for_the_file_is_named(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused = typed("pull")
    assert refused.exit_code == 1
    assert "error: `tiny_faces` is not on this machine, and the network may not be used\n" in refused.stderr
    place = tmp_path / "cache" / "models" / "tiny_faces.zip"
    assert f"put it here as `{place}`" in refused.stderr
    place.parent.mkdir(parents=True)
    place.write_bytes(PACK)
    assert typed("pull").stdout == "faces: tiny_faces is here (300 kB)\n"
    assert shelf.requests == []
