"""Is there room for a download, and what is said when there is not?"""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from model_compose.errors import SourceError

# The disk, the user's quota, or the largest file that the process may write.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def require_room(folder: Path, needed_bytes: int, what: str) -> None:
    """Raise SourceError unless the disk of `folder` has `needed_bytes` free; the folder must exist."""
    if shutil.disk_usage(folder).free < needed_bytes:
        raise _no_room(folder, needed_bytes, what)


@contextlib.contextmanager
def full_disk_explained(folder: Path, needed_bytes: int | None, what: str) -> Iterator[None]:
    """Turn the system's complaint about a full disk into a SourceError that names both numbers."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise _no_room(folder, needed_bytes, what) from error


def size_text(n_bytes: float) -> str:
    """`98.4 MB`: a number of bytes for people, in powers of 1000 as disks and networks count."""
    units = ("B", "kB", "MB", "GB", "TB")
    power = 0
    while n_bytes >= 999.5 and power < len(units) - 1:
        n_bytes /= 1000
        power += 1
    digits = 0 if power == 0 or n_bytes >= 99.95 else 1
    return f"{n_bytes:.{digits}f} {units[power]}"


def _no_room(folder: Path, needed_bytes: int | None, what: str) -> SourceError:
    needed = "" if needed_bytes is None else f"{size_text(needed_bytes)} needed, "
    free = size_text(shutil.disk_usage(folder).free)
    return SourceError(
        f"no room for `{what}` in `{folder}`: {needed}{free} free",
        hint="free some space (`model-compose cache rm`), or keep models on another disk: "
        "`MODEL_COMPOSE_CACHE`, and `HF_HOME` for the hub",
    )
