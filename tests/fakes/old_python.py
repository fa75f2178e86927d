"""A Python that says that it is older than it is, or has a model-compose of another version.

old_python.py VERSION FILE WORDS...    as `python FILE WORDS...`; VERSION is such as `3.10.13`, or `ours`
"""

from __future__ import annotations

import runpy
import sys
import types
from pathlib import Path


def main() -> None:
    version, *words = (word for word in sys.argv[1:] if word != "-u")
    if version == "ours":
        about = types.ModuleType("model_compose.about")
        about.__dict__["__version__"] = "0.0.9"
        sys.modules["model_compose.about"] = about
    else:
        sys.version_info = (*map(int, version.split(".")), "final", 0)  # type: ignore[assignment]
    sys.argv = words
    sys.path[0] = str(Path(words[0]).parent)
    runpy.run_path(words[0], run_name="__main__")


def pretending(folder: Path, python: str, version: str) -> str:
    """An interpreter in a folder that is another one, and pretends; -> its path."""
    path = folder / f"python-{version}"
    path.write_text(f'#!/bin/sh\nexec "{python}" "{__file__}" {version} "$@"\n')
    path.chmod(0o755)
    return str(path)


if __name__ == "__main__":
    main()
