"""Which file, or folder, of a wheel is meant?

A wheel is a zip file from somebody else; nothing in it is imported or run.
"""

from __future__ import annotations

import zipfile
from typing import ClassVar

from model_compose.errors import SourceNotFound, did_you_mean
from model_compose.sources.archive import Archive, printable


class Wheel(Archive):
    """A wheel that lies in a file, for use in a `with` statement. `label` is what messages call it."""

    kind: ClassVar[str] = "wheel"

    def find(self, filename: str) -> zipfile.ZipInfo:
        """The one member whose path is `filename` or ends in it. Raises SourceNotFound."""
        members = self.members()
        wanted = filename.split("/")
        found = [member for member in members if member.filename == filename]
        found = found or [
            member for member in members if member.filename.split("/")[-len(wanted) :] == wanted
        ]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(f"`{name}`" for name in printable(found))
            raise SourceNotFound(
                f"`{self._label}` has {len(found)} files called `{filename}`",
                hint=f"write more of the path: {names}",
            )
        raise self._missing(filename, "file", members)

    def folder(self, name: str) -> dict[str, zipfile.ZipInfo]:
        """The files of the one folder whose path is `name` or ends in it, by their paths below it.

        Raises SourceNotFound.
        """
        wanted = name.strip("/").split("/")
        found: dict[str, dict[str, zipfile.ZipInfo]] = {}
        members = self.members()
        for member in members:
            parts = member.filename.split("/")
            for end in range(len(wanted), len(parts)):
                if parts[end - len(wanted) : end] == wanted:
                    found.setdefault("/".join(parts[:end]), {})["/".join(parts[end:])] = member
                    break
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            raise SourceNotFound(
                f"`{self._label}` has {len(found)} folders called `{name}`",
                hint=f"write more of the path: {', '.join(f'`{each}/`' for each in found)}",
            )
        raise self._missing(name, "folder", members)

    def _missing(self, name: str, kind: str, members: list[zipfile.ZipInfo]) -> SourceNotFound:
        content = [member for member in members if ".dist-info/" not in member.filename]
        return SourceNotFound(
            f"`{self._label}` has no {kind} `{name}`",
            hint=did_you_mean(name, printable(content or members)),
        )
