"""How does the service listen, and how does it stop?"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from model_compose.api.protocol import LimitedHttp
from model_compose.compose.app import App
from model_compose.config.schema import Tls
from model_compose.errors import ServiceError

log = logging.getLogger(__name__)

#: What the last responses may take after every run has been told to end.
LAST_WORDS_S = 5


def listen(host: str, port: int, key: str = "`controller.port`") -> socket.socket:
    """A socket that listens. Raises ServiceError when the port is taken or not allowed.

    key  what says the port, for messages
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            hint = f"end the program that uses it, or set {key}; 0 takes a free one"
            raise ServiceError(f"port {port} on {host} is in use", hint=hint) from error
        raise ServiceError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    sock.listen(2048)
    return sock


def tls_options(tls: Tls | None, folder: Path) -> dict[str, Any]:
    """How uvicorn is told of the files. Raises ServiceError if they are not what they should be."""
    if tls is None:
        return {}
    certificate, key = (folder / Path(name).expanduser() for name in (tls.certificate, tls.key))
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, password="")
    except OSError as error:
        raise ServiceError(
            f"`controller.tls` cannot be used: {error.strerror or error}",
            hint="both are PEM files, and the key belongs to the certificate and has no password",
        ) from error
    return {"ssl_certfile": certificate, "ssl_keyfile": key}


#: Idle connections are for clients and proxies to close, which keep them for less: whoever sends a request
#: while the other side closes loses it.
KEEP_ALIVE_S: Final = 75


class Quiet(uvicorn.Server):
    """uvicorn in a process that is not its own: it hears no signals, and neither logs nor names itself.

    grace_s  what responses may take to end when it stops
    """

    def __init__(self, asgi: ASGIApp, grace_s: int, **more: Any) -> None:
        super().__init__(
            uvicorn.Config(
                asgi,
                loop="none",
                http=LimitedHttp,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=grace_s,
                **more,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own way with signals: not here."""
        yield


class Server(Quiet):
    """The service, with our own way of stopping: runs end or are told to, children end, exit code 0."""

    def __init__(self, asgi: ASGIApp, app: App) -> None:
        controller = app.project.controller
        grace_s = int(controller.shutdown_timeout) + LAST_WORDS_S
        super().__init__(asgi, grace_s, **tls_options(controller.tls, app.project.folder))
        self._app = app
        self._stopping: asyncio.Task[None] | None = None

    def obey_signals(self) -> None:
        """From now on SIGTERM and SIGINT stop the service; a second one does so at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)

    def stop(self) -> None:
        """Take no new connections, and let runs end; asked again, cancel them."""
        if self.should_exit:
            self._app.interrupt()
            return
        log.info("stopping")
        self.should_exit = True
        drain = self._app.drain(self._app.project.controller.shutdown_timeout)
        self._stopping = asyncio.ensure_future(drain)
