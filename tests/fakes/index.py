"""A package index for tests: the simple API in JSON and HTML on 127.0.0.1, and wheels to put on it."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.web import Answer, Request, WebServer, sha256_of


@dataclass(frozen=True)
class _File:
    content: bytes
    sha256: str | None


class FakeIndex(WebServer):
    """`form` is what it speaks: `json` or `html`. With `login`, it wants that user and password."""

    def __init__(self, *, form: str = "json", login: tuple[str, str] | None = None) -> None:
        super().__init__()
        self._form = form
        self._login = login
        self._files: dict[str, _File] = {}
        self.supports_ranges = True
        self.files_url = "../.."  # where the links of its pages lead

    def add(self, filename: str, content: bytes, *, sha256: str | None = "right") -> None:
        """Offer a file. `sha256` may be a wrong one, or None to announce none."""
        self._files[filename] = _File(content, sha256_of(content) if sha256 == "right" else sha256)

    def downloads(self, filename: str) -> list[Request]:
        """The requests for a file, in their order."""
        return [request for request in self.requests if request.path == f"/files/{filename}"]

    def answer(self, request: Request) -> Answer:
        if self._login is not None and request.authorization != _basic(*self._login):
            return Answer(401, {"WWW-Authenticate": "Basic"})
        kind, _, name = request.path.strip("/").partition("/")
        if kind == "simple":
            return self._page(name)
        if kind == "files" and name in self._files:
            file = self._files[name]
            if not self.supports_ranges:
                request = Request(request.method, request.path, request.query, {})
            return self.file(request, name, file.content, f'"{sha256_of(file.content)[:16]}"', {})
        return Answer(404)

    def _page(self, project: str) -> Answer:
        files = {name: file for name, file in self._files.items() if _project(name) == project}
        if not files:
            return Answer(404)
        if self._form == "json":
            entries = [
                {
                    "filename": name,
                    "url": f"{self.files_url}/files/{name}",
                    "hashes": {"sha256": file.sha256} if file.sha256 else {},
                    "size": len(file.content),
                }
                for name, file in files.items()
            ]
            page = {"meta": {"api-version": "1.1"}, "name": project, "files": entries}
            return Answer(
                200, {"Content-Type": "application/vnd.pypi.simple.v1+json"}, json.dumps(page).encode()
            )
        return Answer(200, {"Content-Type": "text/html"}, _html(f"{self.files_url}/files", files).encode())


def write_folder_index(root: Path, wheels: Mapping[str, bytes], *, hashes: bool = True) -> str:
    """Lay out wheels as an index in a folder; its `file:` URL."""
    (root / "files").mkdir(parents=True, exist_ok=True)
    by_project: dict[str, dict[str, _File]] = {}
    for name, content in wheels.items():
        (root / "files" / name).write_bytes(content)
        file = _File(content, sha256_of(content) if hashes else None)
        by_project.setdefault(_project(name), {})[name] = file
    for project, files in by_project.items():
        page = root / "simple" / project / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(_html("../../files", files))
    return (root / "simple").as_uri()


def wheel(files: Mapping[str, bytes], *, name: str = "pkg", version: str = "1.0") -> bytes:
    """A wheel with these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, content in files.items():
            archive.writestr(zipfile.ZipInfo(path), content, zipfile.ZIP_DEFLATED)
        metadata = (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: never-install-me\n"
        )
        archive.writestr(zipfile.ZipInfo(f"{name}-{version}.dist-info/METADATA"), metadata)
    return buffer.getvalue()


def _project(filename: str) -> str:
    return filename.partition("-")[0].lower().replace("_", "-")


def _html(base: str, files: Mapping[str, _File]) -> str:
    anchors = "".join(
        f'<a href="{base}/{name}{f"#sha256={file.sha256}" if file.sha256 else ""}">{name}</a><br/>\n'
        for name, file in files.items()
    )
    return f"<!DOCTYPE html><html><body>{anchors}</body></html>"


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
