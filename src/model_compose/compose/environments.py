"""Which Python runs a model's worker, and is the environment that it belongs to there?

`runtime: {type: virtualenv, path: .venvs/vllm}` is a link beside folders that `install.py` makes:

    .venvs/vllm -> .vllm-0a1b2c3d      changes in one step, from one whole environment to the next
    .venvs/.vllm-0a1b2c3d/             an environment, with `model-compose-lock.json` once it is whole
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from model_compose.about import COMMAND
from model_compose.components.model.runtimes import Runtime, version_of
from model_compose.config.spec import DriverSpec, TaskDriver
from model_compose.errors import ConfigError, DriverMissing, InstallFailed
from model_compose.runtime import elsewhere
from model_compose.runtime.interpreter import look

State = Literal["ready", "missing", "stale", "strange"]

#: A folder that `install` made: a dot, the name that the file says, and what makes it another one.
_MADE = re.compile(r"\.(.+)-[0-9a-f]{8}")
_INCLUDES = re.compile(r"(?:-r|--requirement|-c|--constraint)[ =]*([^ #]+)")


class Package(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was installed. `sha256` is that of the package's own files; `origin` a URL that a file named."""

    name: str
    version: str
    sha256: str | None = None
    origin: str | None = None


class Record(msgspec.Struct, frozen=True):
    """What `install` did: `model-compose-lock.json` in an environment.

    wanted  the digest of what the file said
    """

    wanted: str
    requirements: list[str]
    python: str
    installer: str
    version: str
    made: str
    packages: list[Package]


class Environment(msgspec.Struct, frozen=True):
    """An environment that components share.

    path          the folder that the file names, absolute
    requirements  what the file or the driver names, as pip's requirements
    file          the `requirements.txt` that stands in their place
    python        a path or a version of what it is made with; None: the service's
    modules       what must be importable when it is made
    base          the folder of the file
    """

    components: tuple[str, ...]
    path: Path
    requirements: tuple[str, ...]
    file: Path | None
    python: str | None
    modules: tuple[str, ...]
    base: Path

    @property
    def interpreter(self) -> Path:
        """The Python in it."""
        return self.path / "bin" / "python"

    @property
    def way_out(self) -> str:
        """What to do about a folder that is no environment of ours."""
        return f"name another `path`, or use it: `runtime: {{type: process, python: {self.interpreter}}}`"

    @property
    def command(self) -> str:
        """The command that makes it."""
        return f"{COMMAND} install {self.components[0]}"

    def lines(self) -> list[str]:
        """Everything that is required, as the lines of a `requirements.txt`. Raises InstallFailed."""
        named = self.requirements if self.file is None else _lines(self.file, set())
        return [*named, *elsewhere.REQUIREMENTS]

    def wanted(self) -> str:
        """A digest of what it is made from. Raises InstallFailed."""
        return hashlib.sha256(msgspec.json.encode([self.python, self.lines()])).hexdigest()

    def folder(self) -> Path | None:
        """What the link leads to, if that is a folder which `install` made."""
        if not self.path.is_symlink():
            return None
        folder = self.path.parent / self.path.readlink()
        found = _MADE.fullmatch(folder.name)
        ours = found is not None and found[1] == self.path.name and folder.parent == self.path.parent
        return folder if ours else None

    def record(self) -> Record | None:
        """What was installed, if it is whole."""
        folder = self.folder()
        try:
            data = (folder / elsewhere.RECORD).read_bytes() if folder else b""
            return msgspec.json.decode(data, type=Record)
        except (OSError, msgspec.MsgspecError):
            return None

    def state(self) -> State:
        """Whether a worker may start in it. Looks at the disk. Raises InstallFailed."""
        if not os.path.lexists(self.path):
            return "missing"
        folder, record = self.folder(), self.record()
        if folder is None:
            return "strange"
        if record is None or not os.access(self.interpreter, os.X_OK):
            return "missing"
        return "ready" if record.wanted == self.wanted() else "stale"

    def mistake(self) -> DriverMissing | None:
        """Why no worker can start in it. Raises InstallFailed."""
        who, hint = f"component `{self.components[0]}`", f"run `{self.command}`"
        match self.state():
            case "ready":
                return None
            case "missing":
                return DriverMissing(f"the environment `{self.path}` of {who} is not installed", hint=hint)
            case "stale":
                message = f"the environment `{self.path}` of {who} was made for other requirements"
                return DriverMissing(message, hint=hint)
            case "strange":
                message = f"`{self.path}` of {who} was not made by `{COMMAND} install`"
                return DriverMissing(message, hint=self.way_out)


def environment_of(
    component: str, where: Runtime, driver: DriverSpec, how: TaskDriver, folder: Path
) -> Environment | None:
    """The environment of a component; None if it has none of its own. Relative paths start in `folder`."""
    if where.type != "virtualenv":
        return None
    python = where.python
    if python is not None and version_of(python) is None:
        python = absolute(python, folder)
    named = where.requirements
    return Environment(
        (component,),
        Path(absolute(where.path or f".venvs/{component}", folder)),
        named if isinstance(named, tuple) else driver.requirements if named is None else (),
        Path(absolute(named, folder)) if isinstance(named, str) else None,
        python,
        (*driver.modules, *how.modules),
        folder.absolute(),
    )


def absolute(path: str, folder: Path) -> str:
    """A path of the file. What is a link stays one: the `python` of an environment is one."""
    return os.path.normpath(folder.absolute() / Path(path).expanduser())


def shared(environments: Iterable[Environment]) -> list[Environment]:
    """Each environment once. Raises ConfigError if two components want different things at one path."""
    found: dict[Path, Environment] = {}
    for each in environments:
        other = found.setdefault(each.path, each)
        if (other.requirements, other.file, other.python) != (each.requirements, each.file, each.python):
            who = f"`{other.components[0]}` and `{each.components[0]}`"
            hint = "give them the same `requirements` and `python`, or each a `path` of its own"
            raise ConfigError(f"components {who} want different things at `{each.path}`", hint=hint)
        if other is not each:
            modules = tuple(dict.fromkeys((*other.modules, *each.modules)))
            names = (*other.components, *each.components)
            found[each.path] = msgspec.structs.replace(other, components=names, modules=modules)
    return list(found.values())


def require(component: str, python: str, environment: Environment | None, modules: tuple[str, ...]) -> None:
    """Raise DriverMissing if a worker cannot start under a Python, or lacks its engine there. Blocks."""
    mistake = environment.mistake() if environment is not None else None
    if mistake is not None:
        raise mistake
    again = None if environment is None else f"run `{environment.command} --reinstall`"
    try:
        found = look(python, modules)
    except DriverMissing as error:
        message = f"component `{component}` cannot start its worker: {error}"
        raise DriverMissing(message, hint=again or "`python` names the interpreter that runs it") from None
    if found.trouble is not None:
        message = f"component `{component}` cannot run with `{python}`: {found.trouble}"
        raise DriverMissing(message, hint=again or found.hint)
    if found.missing:
        message = f"component `{component}` needs `{found.missing[0]}`, which is not installed for `{python}`"
        raise DriverMissing(message, hint=again or f"`{python} -m pip install` what brings it")


def leftovers(path: Path) -> Iterator[Path]:
    """Folders and links beside an environment that `install` made, other than the one that it uses."""
    used = path.readlink().name if path.is_symlink() else None
    for each in sorted(path.parent.glob(f".{path.name}-*")):
        found = _MADE.fullmatch(each.name.removesuffix(".link"))
        if found is not None and found[1] == path.name and each.name != used:
            yield each


def _lines(file: Path, seen: set[Path]) -> Iterator[str]:
    """The lines of a `requirements.txt` that mean something, and those of the files that it includes."""
    if file in seen:
        return
    seen.add(file)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InstallFailed(f"`requirements` cannot be read: {_why(error)}: `{file}`") from error
    for line in map(str.strip, text.splitlines()):
        if line and not line.startswith("#"):
            yield line
            included = _INCLUDES.match(line)
            if included is not None and "://" not in included[1]:
                yield from _lines(Path(absolute(included[1], file.parent)), seen)


def _why(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is no UTF-8"
