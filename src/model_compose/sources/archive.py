"""How does content get out of a zip file without trusting it?

Names in it are only compared and shown, never used as a path; and no more is unpacked than its directory
announces.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, ClassVar, Final, Self

from model_compose.errors import Corrupt
from model_compose.sources.progress import stop_if

_CHUNK_BYTES: Final = 1 << 20
# Weights hardly compress. A member that grows a hundredfold is empty or an attack.
_LARGEST_RATIO: Final = 100
_LARGEST_SMALL_FILE_BYTES: Final = 64 << 20
# All members together: those that we know grow by a fifth.
_LARGEST_RATIO_OF_ALL: Final = 4


class Archive:
    """A zip file, for use in a `with` statement. `label` is what messages call it."""

    kind: ClassVar[str] = "zip file"

    def __init__(self, path: Path, label: str) -> None:
        self._label = label
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
            raise Corrupt(f"`{label}` is not a readable {self.kind}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def members(self) -> list[zipfile.ZipInfo]:
        """Its files."""
        return [member for member in self._zip.infolist() if not member.is_dir()]

    def unpack(self, member: zipfile.ZipInfo, to: BinaryIO, cancel: threading.Event) -> str:
        """Write one member; the sha256 of what was written. Raises Corrupt."""
        limit = max(_LARGEST_RATIO * member.compress_size, _LARGEST_SMALL_FILE_BYTES)
        if member.file_size > limit:
            raise self._distrust(f"{member.compress_size} bytes in it unpack to {member.file_size}")
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

    def unpack_all(self, ending: str, to: Path, size_bytes: int, cancel: threading.Event) -> dict[str, str]:
        """Write all files with this ending into the folder `to`, without the folders that they are in.

        size_bytes  of the archive itself
        ->          the sha256 of each file by its name
        Raises Corrupt, before anything is written, when a name leaves the archive, a file is a link, two
        have one name, or all together are too large.
        """
        found = self._plain(ending)
        total = sum(member.file_size for member in found.values())
        if total > _LARGEST_RATIO_OF_ALL * size_bytes:
            raise self._distrust(f"{size_bytes} bytes unpack to {total}")
        unpacked = {}
        for name, member in found.items():
            with (to / name).open("xb") as file:
                unpacked[name] = self.unpack(member, file, cancel)
                file.flush()
                os.fsync(file.fileno())
        return unpacked

    def _plain(self, ending: str) -> dict[str, zipfile.ZipInfo]:
        """Its files with this ending by their names; none of any ending may be anything but a plain file."""
        found: dict[str, zipfile.ZipInfo] = {}
        for member in self.members():
            name = self._path_of(member)[-1]
            if name.endswith(ending) and found.setdefault(name, member) is not member:
                raise self._distrust(f"it has two files `{name}`")
        return found

    def unpack_folder(
        self, members: Mapping[str, zipfile.ZipInfo], to: Path, cancel: threading.Event
    ) -> None:
        """Write files into the folder `to`, by their paths in it. Raises Corrupt, as `unpack_all` does."""
        for member in members.values():
            self._path_of(member)
        for name, member in members.items():
            path = to / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                self.unpack(member, file, cancel)
                file.flush()
                os.fsync(file.fileno())

    def _path_of(self, member: zipfile.ZipInfo) -> list[str]:
        """The parts of its path. Raises Corrupt if that leaves the archive, or it is no plain file."""
        (shown,) = printable([member])
        parts = member.filename.replace("\\", "/").split("/")
        if ".." in parts or "" in parts or ":" in member.filename or not shown == member.filename:
            raise self._distrust(f"`{shown}` is no name of a file in it")
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
            raise self._distrust(f"`{shown}` is not a plain file")
        return parts

    def _distrust(self, why: str) -> Corrupt:
        return Corrupt(f"`{self._label}` is not to be trusted: {why}")


def printable(members: Iterable[zipfile.ZipInfo]) -> list[str]:
    """Names for a message; what could steer a terminal is replaced."""
    return ["".join(char if char.isprintable() else "?" for char in member.filename) for member in members]
