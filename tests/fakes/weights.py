"""Known weights for tests: a small table, and a server that has what it names.

with Shelf() as shelf:
    known = shelf.add("Tiny_x4.pth", b"...")
    monkeypatch.setitem(KNOWN, "Tiny_x4", known)
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

from tests.fakes.web import Answer, Request, WebServer, sha256_of

from model_compose.sources.known import KnownWeights


class Shelf(WebServer):
    """Serves files by their names, as the releases of a repository do."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}

    def add(
        self,
        file: str,
        content: bytes,
        *,
        members: Mapping[str, bytes] | None = None,
        licence: str = "BSD-3-Clause",
        home: str | None = None,
    ) -> KnownWeights:
        """Offer a file; -> what the table says of it."""
        self.files[file] = content
        return KnownWeights(
            url=f"{self.url}/releases/{file}",
            sha256=sha256_of(content),
            size_bytes=len(content),
            licence=licence,
            members={name: sha256_of(each) for name, each in (members or {}).items()},
            home=home,
        )

    def answer(self, request: Request) -> Answer:
        name = request.path.rpartition("/")[2]
        if name not in self.files:
            return Answer(404)
        return self.file(request, name, self.files[name], f'"{name}"', {})


def packed(files: Mapping[str, bytes]) -> bytes:
    """A zip file, made the same way every time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            archive.writestr(member, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
