"""Which file of a wheel is meant?

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
        content = [member for member in members if ".dist-info/" not in member.filename]
        raise SourceNotFound(
            f"`{self._label}` has no file `{filename}`",
            hint=did_you_mean(filename, printable(content or members)),
        )
