"""Does a service run for this folder, and how is it reached?

A service keeps `.model-compose/` beside its file, for this user only:

    lock          held by the service while it lives, however it dies; its process id stands in it
    service.json  a `Service`: written when it listens, removed when it ends
    token         what a caller must know to restart or stop a component
    runs.sqlite   runs that survive a restart
    logs/         service.log and its predecessors: all that is logged, as JSON lines
                  output.log: what a detached service prints past the log, such as a crash
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import msgspec

from model_compose.errors import ServiceError

#: Whoever asks whether a service runs holds the lock for a moment, which must not stop a new one.
_PATIENCE_S: Final = 1.0
_POLL_S: Final = 0.02


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A running service.

    url               its root, without a slash at the end
    api_url           where its API begins
    file              the first file of its project
    started           in seconds since 1970
    shutdown_timeout  seconds that it gives its runs when it is asked to stop
    certificate       the file of its TLS certificate, if it has one
    """

    pid: int
    url: str
    api_url: str
    file: str
    started: float
    shutdown_timeout: float
    certificate: str | None = None


def root_url(host: str, port: int, *, tls: bool = False) -> str:
    """The URL of a service, without a slash at the end."""
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class StateFolder(msgspec.Struct, frozen=True):
    """The folder of that name beside a project's file."""

    path: Path

    @property
    def log(self) -> Path:
        """The log, as JSON lines."""
        return self.path / "logs" / "service.log"

    @property
    def output(self) -> Path:
        """What a detached service prints past the log."""
        return self.path / "logs" / "output.log"

    # For the service

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Be the one service of this folder. Raises ServiceError if there is one."""
        self._make()
        with (self.path / "lock").open("a+") as lock:
            self._lock(lock)
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            self._forget()  # what a service before us left behind when it was killed
            try:
                yield
            finally:
                self._forget()

    def _make(self) -> None:
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
            self.path.chmod(0o700)
            (self.path / "logs").mkdir(exist_ok=True)
            (self.path / ".gitignore").write_text("*\n")
        except OSError as error:
            raise ServiceError(
                f"the service cannot keep its state in `{self.path}`: {error.strerror}",
                hint="it needs a folder there that it may write to",
            ) from None

    def _lock(self, lock: IO[str]) -> None:
        ends = time.monotonic() + _PATIENCE_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > ends:
                    raise self._taken() from None
                time.sleep(_POLL_S)
            else:
                return

    def _taken(self) -> ServiceError:
        service, pid = self.service(), self.holder()
        where = f" at {service.url}" if service else ", and is starting"
        return ServiceError(
            f"a service runs in this folder already: process {pid}{where}",
            hint="`model-compose down` stops it, `model-compose ps` shows what it does",
        )

    def announce(self, service: Service) -> None:
        """Say where the service listens."""
        self._write("service.json", msgspec.json.format(msgspec.json.encode(service)))

    def new_token(self) -> str:
        """A token for this service; whoever may read the folder may use it."""
        token = secrets.token_urlsafe(32)
        self._write("token", token.encode())
        return token

    def _write(self, name: str, content: bytes) -> None:
        draft = self.path / f"{name}.tmp"
        draft.unlink(missing_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123
            file.write(content)
        draft.replace(self.path / name)

    def _forget(self) -> None:
        for name in ("service.json", "token"):
            (self.path / name).unlink(missing_ok=True)

    # For everybody else

    def holder(self) -> int | None:
        """The process id of the service, which may still be starting; None if there is none."""
        try:
            lock = (self.path / "lock").open()
        except FileNotFoundError:
            return None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read() or 0)
        return None

    def service(self) -> Service | None:
        """The service, once it listens."""
        pid = self.holder()
        try:
            service = msgspec.json.decode((self.path / "service.json").read_bytes(), type=Service)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        return service if service.pid == pid else None

    def running(self) -> Service:
        """The service. Raises ServiceError if there is none, or it does not listen yet."""
        service = self.service()
        if service is not None:
            return service
        if self.holder() is not None:
            raise ServiceError("the service is starting", hint="`model-compose logs -f` shows how far it is")
        raise ServiceError("no service runs for this folder", hint="`model-compose up -d` starts one")

    def token(self) -> str:
        """The token of the running service. Raises ServiceError."""
        try:
            return (self.path / "token").read_text()
        except OSError as error:
            raise ServiceError(f"the token of the service cannot be read: {error.strerror}") from None
