"""Can a worker run under a Python that is not the service's, and has it what a driver needs?"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from model_compose.errors import DriverMissing
from model_compose.runtime import elsewhere

#: A Python that takes longer to start is broken, or lies on a disk that is gone.
_LOOK_S: Final = 60.0

#: What the service's own Python is told by its environment, and no other shall hear.
_OURS: Final = ("PYTHONHOME", "PYTHONPATH", "PYTHONEXECUTABLE", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")


class Interpreter(msgspec.Struct, frozen=True):
    """The Python that runs a worker."""

    path: str
    version: str


class Look(msgspec.Struct, frozen=True):
    """What `elsewhere.py` says of the Python that runs it."""

    version: str
    missing: list[str]
    trouble: str | None = None
    hint: str | None = None


def located(python: str) -> str:
    """An interpreter by the folder that it really lies in.

    An environment that is made anew moves: who was started in the old one goes on in the old one. The
    last part stays: the `python` of an environment is a link, and is not the same as what it leads to.
    """
    return os.path.join(os.path.realpath(os.path.dirname(python)), os.path.basename(python))  # noqa: PTH118, PTH119, PTH120


def without_ours(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables without those that are meant for the service's own Python."""
    return {name: value for name, value in environ.items() if name not in _OURS}


def environment_for(python: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables for a Python elsewhere; its programs, such as compilers of kernels, are found first."""
    folder = str(Path(python).parent)
    return {**without_ours(environ), "PATH": os.pathsep.join(filter(None, [folder, environ.get("PATH")]))}


def look(python: str, modules: Sequence[str] = ()) -> Look:
    """What a Python is, and which of the modules it lacks. Blocks. Raises DriverMissing if it is none."""
    command = [located(python), elsewhere.__file__, "--look", *modules]
    try:
        done = subprocess.run(
            command,
            env=environment_for(command[0], os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LOOK_S,
            check=False,
        )
        if done.returncode == 0:
            return msgspec.json.decode(done.stdout.rstrip().rpartition(b"\n")[2], type=Look)
        why = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        said = why or f"it ended with {done.returncode}"
    except FileNotFoundError:
        raise DriverMissing(f"there is no interpreter `{python}`") from None
    except OSError as error:
        said = error.strerror or str(error)
    except subprocess.TimeoutExpired:
        said = f"it did not answer within {_LOOK_S:g} seconds"
    except msgspec.MsgspecError:
        said = "what it printed makes no sense"
    raise DriverMissing(f"`{python}` cannot be used as an interpreter: {said}")
