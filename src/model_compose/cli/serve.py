"""What happens between the start and the end of a service?"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from model_compose.api.http import http_app
from model_compose.api.listeners import Ports, listening
from model_compose.api.metrics import Metrics
from model_compose.api.server import Server, listen
from model_compose.api.webui import PATH, listen_apart, missing
from model_compose.cli.downloads import Show, Stages
from model_compose.cli.state import Service, StateFolder, root_url
from model_compose.compose.app import App
from model_compose.compose.run import Run
from model_compose.config.schema import Project
from model_compose.config.spec import Catalog
from model_compose.errors import ModelComposeError, Overloaded
from model_compose.runtime.model import LoadStage, State

log = logging.getLogger(__name__)

#: Told once, when everything that is preloaded is loaded (True) or something of it has failed (False).
Loaded = Callable[[bool], None]


class Watch(Metrics):
    """Measures a service, and logs what happens to its components and runs."""

    def __init__(self) -> None:
        super().__init__()
        self._stages = Stages(lambda component, text: log.info("%s", text, extra={"component": component}))

    def watch(self, app: App) -> None:
        """Show the states of the app's models too."""
        super().watch(app)
        self._app = app

    def changed(self, component: str, state: State) -> None:
        """A component has a new state."""
        extra = {"component": component}
        self._stages.over(component)
        if state == "failed":
            log.error("%s", _told(self._app.component(component).error()), extra=extra)
        else:
            log.info("%s", state, extra=extra)

    def loading(self, model: str, stage: LoadStage) -> None:
        """A model says how far its load is."""
        self._stages(model, stage)

    def run_ended(self, run: Run) -> None:
        """A run ended."""
        super().run_ended(run)
        # What was refused is told to whoever asked and counted; a line for each would be the flood itself.
        usual = run.error is None or isinstance(run.error, Overloaded)
        level = logging.DEBUG if usual else logging.INFO
        if log.isEnabledFor(level):
            why = f": {run.error}" if run.error else ""
            log.log(level, "run of `%s` %s%s", run.workflow_id, run.status, why, extra={"task_id": run.id})


def _told(error: ModelComposeError | None) -> str:
    if error is None:
        return "failed"
    return f"failed: {error}" + (f"\nhint: {error.hint}" if error.hint else "")


async def serve(
    project: Project, catalog: Catalog, state: StateFolder, file: Path, *, show: Show, loaded: Loaded
) -> None:
    """Serve until a signal says otherwise. The caller holds the state folder.

    Raises ServiceError when it cannot listen, DriverMissing when a library is not installed, and the
    error of a model when no model is left that works.
    """
    began = time.monotonic()
    controller = project.controller
    watch = Watch()
    app = App(project, catalog, progress=show, state=state.path, observer=watch)
    for note in project.warnings:
        log.warning("%s", f"{note.message} ({note.place})" if note.place else note.message)
    with (
        listen(controller.host, controller.port) as listener,
        listen_apart(controller) as apart,
        Ports(project) as ports,
    ):
        port = listener.getsockname()[1]
        url = root_url(_reached(controller.host), port, tls=controller.tls is not None)
        watch.watch(app)
        async with app:
            server = Server(http_app(app, watch, state.new_token()), app)
            server.obey_signals()  # whoever reads the state folder may stop us
            api_url = url + controller.base_path.rstrip("/")
            state.announce(
                Service(
                    pid=os.getpid(),
                    url=url,
                    api_url=api_url,
                    file=str(file),
                    started=time.time(),
                    shutdown_timeout=controller.shutdown_timeout,
                    certificate=_certificate(project),
                )
            )
            log.info("listening on %s", url)
            pages = _pages(project, url, apart)

            def settled() -> None:
                failed = app.failed()
                took_s = time.monotonic() - began
                log.info("%s", _welcome(project, url, api_url, took_s, failed, pages, ports.urls()))
                loaded(not failed)

            async with listening(app, ports):  # until the last run, which may wait for an answer
                await _serve(server, app, [listener, *([apart] if apart else [])], settled)
    log.info("stopped")


async def _serve(server: Server, app: App, sockets: list[socket.socket], settled: Callable[[], None]) -> None:
    """Serve until a signal, or until nothing works any more; then raise the error of one of them."""
    serving = asyncio.create_task(server.serve(sockets=sockets), name="server")
    losing = asyncio.create_task(_until_hopeless(app, settled), name="losing")
    await asyncio.wait([serving, losing], return_when=asyncio.FIRST_COMPLETED)
    if not serving.done():
        server.stop()
    await serving
    if losing.done():
        raise losing.result()
    losing.cancel()


async def _until_hopeless(app: App, settled: Callable[[], None]) -> ModelComposeError:
    """Wait for what is preloaded, then for the moment when everything has failed; -> why."""
    await app.until(app.settled)
    if app.hopeless() is None:
        settled()
    await app.until(lambda: app.hopeless() is not None)
    error = app.hopeless()
    assert error is not None
    log.error("nothing is left to serve")
    return error


def _certificate(project: Project) -> str | None:
    """The file of the service's certificate, if it has one."""
    tls = project.controller.tls
    return None if tls is None else str(project.folder / Path(tls.certificate).expanduser())


def _reached(host: str) -> str:
    """Where a client on this machine finds a service that listens there."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  compared, not bound


def _pages(project: Project, url: str, apart: socket.socket | None) -> str | None:
    """Where the web UI is, if there is one."""
    controller = project.controller
    if missing(controller) is not None:
        return None
    if apart is None or controller.ui is None:
        return f"{url}{PATH}/"
    host = _reached(controller.ui.host or controller.host)
    return root_url(host, apart.getsockname()[1], tls=controller.tls is not None) + f"{PATH}/"


def _welcome(
    project: Project,
    url: str,
    api_url: str,
    took_s: float,
    failed: Sequence[str],
    pages: str | None,
    others: Sequence[str],
) -> str:
    """What somebody wants to know who has just started a service."""
    default = project.default_workflow()
    workflows = [f"{w.id} (default)" if w is default else w.id for w in project.workflows.values()]
    lines = [
        f"serving without what has failed: {', '.join(failed)}" if failed else f"ready after {took_s:.1f} s",
        f"  API        {api_url}",
        f"  docs       {url}/docs",
        *([f"  web UI     {pages}"] if pages else []),
        f"  workflows  {', '.join(workflows)}",
        *(f"  listens    {line}" for line in others),
    ]
    return "\n".join(lines)
