"""A Hugging Face hub for tests: the HTTP protocol that huggingface_hub 2.4 speaks, on 127.0.0.1.

    with FakeHub() as hub:
        hub.add("owner/model", {"config.json": b"{}", "model.safetensors": b"..."})
        hub.break_after("model.safetensors", 100)

Large files (by their ending, as on the real hub) are redirected to a second server, the CDN, which must
never see a token.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from tests.fakes.web import Answer, Request, WebServer, sha256_of

LARGE = (".safetensors", ".bin", ".gguf", ".onnx", ".pt", ".pth", ".h5", ".msgpack")


@dataclass
class _Repository:
    revisions: dict[str, str]
    commits: dict[str, dict[str, bytes]]
    private: bool
    gated: bool
    readers: Collection[str]


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        self.answer = _json({"error": message}, status, {"X-Error-Code": code, "X-Error-Message": message})


class _Cdn(WebServer):
    """Serves large files by their sha256, with a signature in the query as real storage has."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, tuple[str, bytes]] = {}

    def answer(self, request: Request) -> Answer:
        if request.authorization is not None:
            return Answer(400, body=b"only one way to authenticate is allowed")
        name, content = self.files[request.path.removeprefix("/blobs/")]
        etag = f'"{hashlib.md5(content).hexdigest()}"'  # noqa: S324
        return self.file(request, name, content, etag, {"Content-Type": "binary/octet-stream"})


class FakeHub(WebServer):
    """`requests` are those to the hub, `cdn.requests` those for large files.

    `known_tokens` are tokens of accounts; those in `readers` of a repository may read it when it is
    private or gated.
    """

    def __init__(self, *, known_tokens: Iterable[str] = ()) -> None:
        super().__init__()
        self.cdn = _Cdn()
        self.known_tokens = set(known_tokens)
        self._repositories: dict[str, _Repository] = {}
        self._failures: list[int | None] = []

    def add(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        revision: str = "main",
        private: bool = False,
        gated: bool = False,
        readers: Collection[str] = (),
    ) -> str:
        """Make `revision` of a repository point to a new commit with these files; the commit's id."""
        commit = hashlib.sha1(repr((name, sorted(files.items()))).encode()).hexdigest()  # noqa: S324
        repository = self._repositories.setdefault(name, _Repository({}, {}, private, gated, readers))
        repository.revisions[revision] = commit
        repository.commits[commit] = dict(files)
        self.known_tokens.update(readers)
        for path, content in files.items():
            if path.endswith(LARGE):
                self.cdn.files[sha256_of(content)] = (path, content)
        return commit

    def corrupt(self, content: bytes, *, becomes: bytes) -> None:
        """Serve other bytes than announced for a large file."""
        name, _ = self.cdn.files[sha256_of(content)]
        self.cdn.files[sha256_of(content)] = (name, becomes)

    def fail_next(self, *statuses: int | None) -> None:
        """Answer the next requests to the hub with these statuses; None lets one through."""
        self._failures.extend(statuses)

    def break_after(self, name: str, *sizes: int) -> None:
        if name.endswith(LARGE):
            self.cdn.break_after(name, *sizes)
        else:
            super().break_after(name, *sizes)

    def paths(self) -> list[str]:
        """What was asked for, hub and CDN together, as `METHOD path`."""
        return [f"{request.method} {request.path}" for request in (*self.requests, *self.cdn.requests)]

    def __enter__(self) -> Self:
        self.cdn.__enter__()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.cdn.__exit__(*error)

    def answer(self, request: Request) -> Answer:
        if self._failures and (status := self._failures.pop(0)) is not None:
            return Answer(status)
        try:
            if request.path.startswith("/api/models/"):
                return self._api(request, request.path.removeprefix("/api/models/"))
            if "/resolve/" in request.path:
                return self._resolve(request)
        except _Refused as refused:
            return refused.answer
        return Answer(404)

    def _api(self, request: Request, rest: str) -> Answer:
        for verb in ("revision", "tree", "refs"):
            name, separator, revision = rest.partition(f"/{verb}")
            if separator:
                break
        else:
            name, verb, revision = rest, "revision", ""
        repository = self._repository(request, name)
        if verb == "refs":
            branches = [
                {"name": name, "ref": f"refs/heads/{name}", "targetCommit": commit}
                for name, commit in repository.revisions.items()
            ]
            return _json({"branches": branches, "tags": [], "converts": []})
        commit, files = self._commit(repository, revision.strip("/") or "main")
        if verb == "tree":
            return _json([_tree_entry(path, content) for path, content in sorted(files.items())])
        siblings = [_sibling(path, content) for path, content in sorted(files.items())]
        return _json(
            {
                "_id": "0" * 24,
                "id": name,
                "modelId": name,
                "sha": commit,
                "private": repository.private,
                "gated": "auto" if repository.gated else False,
                "tags": [],
                "siblings": siblings,
            }
        )

    def _resolve(self, request: Request) -> Answer:
        name, _, rest = request.path.lstrip("/").partition("/resolve/")
        revision, _, path = rest.partition("/")
        repository = self._repository(request, name)
        if repository.gated and _token(request) not in repository.readers:
            status = 401 if _token(request) is None else 403
            raise _Refused(status, "GatedRepo", f"Access to model {name} is restricted.")
        commit, files = self._commit(repository, revision)
        headers = {"X-Repo-Commit": commit}
        if path not in files:
            raise _Refused(404, "EntryNotFound", "Entry not found")
        content = files[path]
        if not path.endswith(LARGE):
            return self.file(request, path, content, f'"{_git_sha1(content)}"', headers)
        sha256 = sha256_of(content)
        return Answer(
            302,
            {
                **headers,
                "Location": f"{self.cdn.url}/blobs/{sha256}?X-Amz-Signature=secret",
                "X-Linked-Etag": f'"{sha256}"',
                "X-Linked-Size": str(len(content)),
            },
        )

    def _repository(self, request: Request, name: str) -> _Repository:
        token = _token(request)
        if token is not None and token not in self.known_tokens:
            raise _Refused(401, "", "Invalid credentials in Authorization header")
        repository = self._repositories.get(name)
        if repository is None or (repository.private and token not in repository.readers):
            # The real hub does not tell strangers whether a repository exists.
            if token is None:
                raise _Refused(401, "RepoNotFound", "Invalid username or password.")
            raise _Refused(404, "RepoNotFound", "Repository not found")
        return repository

    def _commit(self, repository: _Repository, revision: str) -> tuple[str, dict[str, bytes]]:
        commit = repository.revisions.get(revision, revision)
        if commit not in repository.commits:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit, repository.commits[commit]


def _token(request: Request) -> str | None:
    return request.authorization.removeprefix("Bearer ") if request.authorization else None


def _sibling(path: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"rfilename": path, "size": len(content), "blobId": _git_sha1(content)}
    if path.endswith(LARGE):
        entry["lfs"] = {"sha256": sha256_of(content), "size": len(content), "pointerSize": 134}
    return entry


def _tree_entry(path: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": path, "size": len(content), "oid": _git_sha1(content)}
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": sha256_of(content), "size": len(content), "pointerSize": 134}
    return entry


def _git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324


def _json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(value).encode())
