"""How is an environment made? The one place that ever installs anything, for `model-compose install`.

A new one is made beside the old one, and takes its place in one step when it is whole. What was begun and
not ended, because the process was killed, is never used, and is removed by the next install.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import fcntl
import hashlib
import importlib.metadata
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Final

import msgspec

from model_compose.about import COMMAND, __version__
from model_compose.components.model.runtimes import redacted, version_of
from model_compose.compose.environments import Environment, Package, Record, leftovers
from model_compose.errors import DriverMissing, InstallFailed
from model_compose.runtime import elsewhere, reaper
from model_compose.runtime.interpreter import Look, look, without_ours
from model_compose.sources.cache import Cache
from model_compose.sources.indexes import pip_for_uv

#: Takes a line about what happens.
Say = Callable[[str], None]

_LAST_LINES: Final = 20
_WAITS_AFTER_S: Final = 1.0

#: Files of a package that whoever installs it writes, and not whoever made it.
_WRITTEN_HERE: Final = frozenset(("INSTALLER", "RECORD", "REQUESTED", "direct_url.json", "uv_cache.json"))


def install(environment: Environment, say: Say, *, anew: bool = False) -> Record | None:
    """Make an environment as the file wants it; -> what was installed, None if it is there already.

    anew  make it even so
    Raises InstallFailed; nothing new is left then, and what was there stays. Blocks, waits for another
    install of the same, and ends its programs when it is interrupted.
    """
    path = environment.path
    waiting = threading.Timer(_WAITS_AFTER_S, say, ["another install of it runs; this one waits"])
    waiting.start()
    try:
        with Cache.of_machine(os.environ).lock(f"environment {path}", threading.Event()):
            waiting.cancel()
            return _locked(environment, say, anew=anew)
    finally:
        waiting.cancel()


def _locked(environment: Environment, say: Say, *, anew: bool) -> Record | None:
    state = environment.state()
    if state == "strange":
        raise InstallFailed(
            f"`{environment.path}` is there, and `{COMMAND} install` did not make it",
            hint=environment.way_out,
        )
    _clear(environment.path)
    if state == "ready" and not anew:
        return None
    record = _made(environment, say)
    if not _clear(environment.path):
        say("the one before is still used by a worker; the next install removes it")
    return record


def _made(environment: Environment, say: Say) -> Record:
    path = environment.path
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with _watched() as (scratch, watch):
            record = _Making(environment, folder, scratch, _Programs(path, say, watch)).whole()
        data = msgspec.json.format(msgspec.json.encode(record), indent=2)
        (folder / elsewhere.RECORD).write_bytes(data + b"\n")
        link = folder.with_name(f"{folder.name}.link")
        link.symlink_to(folder.name)
        link.replace(path)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return record


def _clear(path: Path) -> bool:
    """Remove what is of no use any more; -> whether nothing is left of it that a worker still uses."""
    free = True
    for each in leftovers(path):
        if each.is_symlink():
            each.unlink()
        elif _is_used(each):
            free = False
        else:
            shutil.rmtree(each, ignore_errors=True)
    return free


def _is_used(folder: Path) -> bool:
    """Whether a worker lives in an environment; see `hold` of `elsewhere.py`."""
    with contextlib.suppress(FileNotFoundError), (folder / elsewhere.RECORD).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class _Programs:
    """Runs what makes an environment, and says what it says."""

    def __init__(self, path: Path, say: Say, watch: IO[str]) -> None:
        self._path = path
        self._say = say
        self._watch = watch

    def run(self, command: list[str], folder: Path, environ: Mapping[str, str]) -> None:
        """Run a program to its end. Raises InstallFailed with its last lines."""
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**environ, "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._tell(f"+{process.pid}\n")
        last: deque[str] = deque(maxlen=_LAST_LINES)
        assert process.stdout is not None
        try:
            for line in process.stdout:
                shown = redacted(line.rstrip())
                if shown:
                    last.append(shown)
                    self._say(shown)
            code = process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            process.stdout.close()
            self._tell(f"-{process.pid}\n")
        if code != 0:
            name = Path(command[0]).name if "-m" not in command else command[command.index("-m") + 1]
            lines = "".join(f"\n  {line}" for line in last)
            raise InstallFailed(f"`{self._path}` is not made: `{name}` ended with exit code {code}{lines}")

    def _tell(self, line: str) -> None:
        self._watch.write(line)
        self._watch.flush()


class _Making:
    """An environment in the making, with uv if that is here, else with venv and pip."""

    def __init__(self, wanted: Environment, folder: Path, scratch: Path, programs: _Programs) -> None:
        self._wanted = wanted
        self._folder = folder
        self._scratch = scratch
        self._programs = programs
        self._uv = uv()
        self._python = str(folder / "bin" / "python")

    def whole(self) -> Record:
        """Make it, install what it needs, and look whether that is what it needs."""
        self._make()
        (self._folder / ".gitignore").write_text("*\n")
        self._check_version(self._look().version)
        self._install()
        found = self._look(self._wanted.modules)
        if found.trouble is not None or found.missing:
            why = found.trouble or f"they do not bring `{found.missing[0]}`"
            hint = (
                f"write what brings `{found.missing[0]}` into `requirements`" if found.missing else found.hint
            )
            raise InstallFailed(f"`{self._wanted.path}` would not do: {why}", hint=hint)
        return Record(
            wanted=self._wanted.wanted(),
            requirements=[redacted(line) for line in self._wanted.lines()],
            python=found.version,
            installer=self._installer(),
            version=__version__,
            made=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            packages=packages(self._folder),
        )

    def _make(self) -> None:
        python = self._wanted.python or sys.executable
        if self._uv is not None:
            self._run([self._uv, "venv", "--quiet", "--python", python, str(self._folder)])
            return
        if version_of(python) is not None:
            found = shutil.which(f"python{python}")
            if found is None:
                hint = "install that Python, or uv, which gets it; or write the path of one"
                raise InstallFailed(f"there is no `python{python}` here", hint=hint)
            python = found
        self._run([python, "-m", "venv", str(self._folder)])

    def _look(self, modules: tuple[str, ...] = ()) -> Look:
        try:
            return look(self._python, modules)
        except DriverMissing as error:
            raise InstallFailed(error.message) from error

    def _check_version(self, version: str) -> None:
        if tuple(map(int, version.split("."))) < elsewhere.OLDEST:
            oldest = ".".join(map(str, elsewhere.OLDEST))
            hint = f"name another interpreter, such as `python: '{oldest}'`"
            raise InstallFailed(f"workers need Python {oldest} or newer, and this is {version}", hint=hint)

    def _install(self) -> None:
        file, own = self._wanted.file, elsewhere.REQUIREMENTS
        if file is None and not self._wanted.requirements:
            self._pip(*own)
            return
        if file is None:
            # Not on the command line, which everybody can read: there may be passwords in URLs.
            file = self._scratch / "requirements.txt"
            file.write_text("".join(f"{line}\n" for line in self._wanted.requirements), encoding="utf-8")
        # Where one has a hash, all must have one, and ours has none.
        hashed = any("--hash" in line for line in self._wanted.lines())
        self._pip("-r", str(file), *(() if hashed else own))
        if hashed and self._look().trouble is not None:
            self._pip(*own)

    def _pip(self, *words: str) -> None:
        if self._uv is not None:
            self._run([self._uv, "pip", "install", "--python", self._python, *words])
        else:
            options = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
            self._run([self._python, "-m", "pip", "install", *options, *words])

    def _run(self, command: list[str]) -> None:
        environ = without_ours(os.environ)
        if self._uv is not None:
            environ |= pip_for_uv(environ, home=Path.home())
        # uv has settings of projects, and relative paths of requirements start there too.
        file = self._wanted.file
        self._programs.run(command, self._wanted.base if file is None else file.parent, environ)

    def _installer(self) -> str:
        command = [self._uv, "--version"] if self._uv else [self._python, "-m", "pip", "--version"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return " ".join(done.stdout.split()[:2])


def uv() -> str | None:
    """Where uv is, if it is installed."""
    beside = Path(sys.executable).with_name("uv")
    return shutil.which("uv") or (str(beside) if os.access(beside, os.X_OK) else None)


def packages(folder: Path) -> list[Package]:
    """What is installed in an environment, by name."""
    sites = {str(each.resolve()) for each in folder.glob("lib*/python*/site-packages")}
    found = [_package(each) for each in importlib.metadata.distributions(path=sorted(sites))]
    return sorted(found, key=lambda package: package.name.lower())


def _package(distribution: importlib.metadata.Distribution) -> Package:
    named = distribution.read_text("direct_url.json")
    origin = redacted(str(json.loads(named).get("url"))) if named else None
    return Package(distribution.name, distribution.version, _sha256(distribution), origin)


def _sha256(distribution: importlib.metadata.Distribution) -> str | None:
    """A digest of the files that the package came with; the same wherever and by whom it is installed."""
    record = distribution.read_text("RECORD")
    if record is None:
        return None
    files = sorted(
        f"{path},{digest}\n"
        for path, digest, *_ in csv.reader(record.splitlines())
        if digest
        and not path.startswith("..")
        and path.rpartition("/")[2] not in _WRITTEN_HERE
        and not path.endswith(".pyc")
    )
    return hashlib.sha256("".join(files).encode()).hexdigest()


@contextlib.contextmanager
def _watched() -> Iterator[tuple[Path, IO[str]]]:
    """A folder, and where to write process groups: all of it ends with this process, even by `kill -9`."""
    scratch = Path(tempfile.mkdtemp(prefix="model-compose-"))
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", reaper.__file__, str(scratch)],
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdin is not None
    try:
        yield scratch, process.stdin
    finally:
        process.stdin.close()
        process.wait()
