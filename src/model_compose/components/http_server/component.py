"""How does a server that the file names live beside the service?

It is installed, built, started, watched, started again when it dies, and ended. One task decides all of
that, in the order in which it reads below; whoever calls the server waits until it is open.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from msgspec.structs import replace

from model_compose.components.contract import CallContext, Setting
from model_compose.components.http_client.exchange import Exchange
from model_compose.components.http_server.commands import Secrets, commands_of
from model_compose.components.http_server.output import LogFile, Output
from model_compose.components.http_server.process import (
    Place,
    Program,
    how_it_ended,
    resident_bytes,
)
from model_compose.components.http_server.readiness import Probe
from model_compose.components.http_server.scripts import Done, Scripts
from model_compose.components.http_server.spec import HttpServerConfig, url_of
from model_compose.components.streams import Stream
from model_compose.config.expression import Scope
from model_compose.config.schema import Action
from model_compose.config.schema import Component as Declared
from model_compose.drivers.contract import ModelInfo
from model_compose.errors import ModelComposeError, ModelUnavailable, ServiceError, TimedOut
from model_compose.runtime.model import LoadStage, State
from model_compose.runtime.pool import ComponentStatus
from model_compose.runtime.process import Reaper

log = logging.getLogger(__name__)

#: A server that dies so often within so long is given up.
MAX_CRASHES: Final = 5
CRASH_WINDOW_S: Final = 600.0
FIRST_BACKOFF_S: Final = 1.0
MAX_BACKOFF_S: Final = 60.0
#: How often a server that is not ours is looked at, and the memory of one that is.
LOOK_S: Final = 5.0


class HttpServer:
    """A server, and the calls to it."""

    def __init__(self, setting: Setting) -> None:
        declared = setting.declared
        config: HttpServerConfig = declared.config
        self._name = declared.id
        self._config = config
        self._setting = setting
        self._place = _place(declared, setting.folder, setting.state, setting.reaper)
        self._output = self._place.output
        done = Done(_state_folder(setting.folder, setting.state), declared.id)
        self._scripts = Scripts(declared.id, self._place, done, self._stage)
        self._probe = Probe(config.port, config.healthcheck)
        self._exchange = Exchange(
            declared.id,
            config,
            base_url=url_of(config),
            media=setting.media,
            callbacks=setting.callbacks,
            most=declared.max_concurrent_count,
        )
        self._state: State = "unloaded"
        self._error: ModelComposeError | None = None
        self._loading: LoadStage | None = None
        self._program: Program | None = None
        self._adopted = False
        self._memory = 0
        self._wanted = False
        self._held_off = False  # stopped by hand
        self._order = 0  # grows with every order to start or to stop
        self._obeyed = 0
        self._open = False  # whether calls are let through
        self._closing = False
        self._waiting = 0
        self._active = 0
        self._bell = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None

    # Component

    async def start(self) -> None:
        """Begin to start it, if that is not for the first call to do."""
        if self._config.preload:
            self._want()
        self._supervisor = asyncio.create_task(self._supervise(), name=f"server {self._name}")

    async def close(self) -> None:
        """End it, and whatever is being run for it."""
        self._closing = True
        self._open = False
        self._ring()
        if self._supervisor is not None:
            await asyncio.wait([self._supervisor])
        await self._exchange.aclose()
        await asyncio.to_thread(self._output.close)

    def status(self) -> ComponentStatus:
        program = self._program
        details = {"server": "not ours"} if self._adopted else {}
        return ComponentStatus(
            self._name,
            self._state,
            {"host": self._memory} if program is not None and self._memory else {},
            self._waiting,
            self._active,
            pid=program.pid if program is not None else None,
            info=ModelInfo(slots=0, details={"port": str(self._config.port), **details}),
            error=str(self._error) if self._error is not None else None,
            loading=self._loading if self._state == "loading" else None,
            type=self._setting.declared.type,
        )

    def ready(self) -> bool:
        return self._state == "ready" or (self._state == "unloaded" and self.settled())

    def settled(self) -> bool:
        return self._state in ("ready", "failed") or not self._wanted

    def error(self) -> ModelComposeError | None:
        return self._error if self._state == "failed" else None

    def restart(self) -> None:
        self._held_off = False
        self._want()

    def stop(self) -> None:
        self._held_off = True
        self._wanted = False
        self._new_order()

    def _want(self) -> None:
        self._wanted = True
        self._error = None
        if self._state == "failed":
            self._state = "unloaded"
        self._new_order()

    def _new_order(self) -> None:
        self._order += 1
        self._open = False
        self._ring()

    # Calls

    async def call(self, action: Action, scope: Scope, context: CallContext, *, streaming: bool) -> Any:
        """Do what an action says, as soon as the server is there."""
        if not self._open:
            action = await self._until_open(action)
        self._active += 1
        try:
            result = await self._exchange.call(action, scope, context, streaming=streaming)
        except BaseException:
            self._left()
            raise
        if isinstance(result, Stream):
            return self._followed(result)
        self._left()
        return result

    def _followed(self, stream: Stream) -> Stream:
        """A stream that counts as a call until it is over."""
        over = False

        def left() -> None:
            nonlocal over
            if not over:
                over = True
                self._left()

        async def pieces() -> AsyncIterator[list[Any]]:
            try:
                async for some in stream.reader():
                    yield some
            finally:
                left()

        async def close() -> None:
            try:
                await stream.aclose()
            finally:
                left()

        return Stream(pieces(), close=close, whole=stream.whole)

    def _left(self) -> None:
        self._active -= 1
        if not self._active:
            self._ring()

    async def _until_open(self, action: Action) -> Action:
        """Wait for the server; -> the action with what is left of its time.

        Raises ModelUnavailable if it will not come, and TimedOut.
        """
        self._require_hope()
        if self._state == "unloaded" and not self._wanted:
            self._want()
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._waiting += 1
        try:
            async with asyncio.timeout(action.timeout):
                while not self._open:
                    await self._bell.wait()
                    self._require_hope()
        except TimeoutError:
            raise TimedOut(f"`{self._name}` was not ready before the action's `timeout` ran out") from None
        finally:
            self._waiting -= 1
        if action.timeout is None:
            return action
        return replace(action, timeout=max(action.timeout - (loop.time() - began), 0.001))

    def _require_hope(self) -> None:
        if self._held_off or self._closing:
            raise ModelUnavailable(f"`{self._name}` is stopped", hint=f"model-compose restart {self._name}")
        if self._state == "failed" and self._error is not None:
            why = self._error
            raise ModelUnavailable(f"`{self._name}` has failed: {why}", hint=why.hint)

    def _ring(self) -> None:
        """Have those who wait for anything look again."""
        self._bell.set()
        self._bell = asyncio.Event()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not (condition() or self._closing):
            await self._bell.wait()

    def _set(self, state: State) -> None:
        if state != self._state:
            self._state = state
            self._ring()
            self._setting.changed(state)

    def _stage(self, stage: str, done: int, total: int) -> None:
        self._loading = LoadStage(stage, done, total)

    # Life

    async def _supervise(self) -> None:
        """Obey the orders to start and to stop, one after the other."""
        while not self._closing:
            self._obeyed = self._order
            if not self._wanted:
                self._set("unloaded")
                await self._until(lambda: self._order != self._obeyed)
                continue
            life = asyncio.create_task(self._live(), name=f"life of {self._name}")
            await self._until(lambda: self._order != self._obeyed)
            # Calls that it has are served first; new ones wait.
            await self._until(lambda: not self._active)
            life.cancel()
            await asyncio.wait([life])

    async def _live(self) -> None:
        """Install, start and watch it, until it has failed or is not wanted any more."""
        error: ModelComposeError | None = None
        self._adopted = False
        self._set("loading")
        try:
            await self._work()
        except ModelComposeError as raised:
            error = raised
        except Exception:
            log.exception("server of `%s`", self._name, extra={"component": self._name})
            error = ServiceError(f"the server of `{self._name}` cannot be watched any more; the log says why")
        finally:
            self._open = False
            await self._end()
        self._error = error
        self._set("failed")

    async def _work(self) -> None:
        lacking = await self._prepare()
        try:
            program = await self._bring_up()
        except ModelComposeError as error:
            raise (lacking or error) from error
        if lacking is not None:
            self._output.say(logging.INFO, "the server answers: `install` is tried once more")
            await self._scripts.once("install", commands_of(self._config.install))
        await self._serve(program)

    async def _prepare(self) -> ModelComposeError | None:
        """Install and build, unless that has been done; -> why it could not be installed.

        What `ollama pull` needs is a server that runs: the installation is tried again then.
        """
        lacking: ModelComposeError | None = None
        try:
            await self._scripts.once("install", commands_of(self._config.install))
        except ModelComposeError as error:
            if not self._config.start:
                raise
            lacking = error
            self._output.say(logging.WARNING, "%s\nit is tried once more when the server answers", error)
        try:
            await self._scripts.once("build", commands_of(self._config.build))
        except ModelComposeError as error:
            raise (lacking or error) from error
        self._loading = None
        return lacking

    async def _bring_up(self) -> Program | None:
        """Start it and wait until it is ready; -> it, None if it is somebody else's. Raises ServiceError."""
        start = commands_of(self._config.start)
        if await self._probe.listens():
            self._adopted = True
            port = self._config.port
            self._output.say(
                logging.INFO, "a server listens on port %d already: it is used, and left alone", port
            )
        elif self._adopted or not start:
            self._adopted = True
            self._output.say(logging.INFO, "waiting for somebody's server on port %d", self._config.port)
        else:
            self._adopted = False
            self._output.say(logging.INFO, "start: %s", self._output.secrets.shown(start[0]))
            self._program = await self._place.start(start[0], f"`start` of `{self._name}`")
        await self._until_ready(self._program)
        return self._program

    async def _until_ready(self, program: Program | None) -> None:
        """Wait for it. Raises ServiceError when it ends instead, or takes too long."""
        try:
            async with asyncio.timeout(self._config.start_timeout):
                while True:
                    if program is not None and not program.running:
                        raise await self._died(program, " before it was ready")
                    if await self._probe.ready() and (program is None or program.running):
                        return
                    if program is None:
                        await asyncio.sleep(self._probe.pause_s)
                    else:
                        await program.ended(self._probe.pause_s)
        except TimeoutError:
            told = f"within {self._config.start_timeout:g} s: {self._probe.said} on port {self._config.port}"
            last = program.last() if program is not None else ""
            hint = "it must listen on the `port` of the component, or `start_timeout` must be longer"
            raise ServiceError(
                f"the server of `{self._name}` was not ready {told}{last}", hint=hint
            ) from None

    async def _serve(self, program: Program | None) -> None:
        """Let calls through while it lives, and start it again. Raises ServiceError if that is in vain."""
        crashes: deque[float] = deque()
        while True:
            self._error = None
            self._open = self._order == self._obeyed
            self._set("ready")
            self._ring()
            program = await self._revive(await self._lost(program), crashes)

    async def _lost(self, program: Program | None) -> ServiceError:
        """Wait until it is gone; -> what there is to say of that."""
        if program is None:
            while True:
                await asyncio.sleep(LOOK_S)
                if not await self._probe.listens():
                    break
            port = self._config.port
            return ServiceError(f"the server on port {port}, which is not ours, does not answer any more")
        while program.running:
            self._memory = await asyncio.to_thread(resident_bytes, program.pid)
            await program.ended(LOOK_S)
        return await self._died(program, "")

    async def _revive(self, error: ModelComposeError, crashes: deque[float]) -> Program | None:
        """Start it again, after longer and longer pauses. Raises the last error if it dies too often."""
        loop = asyncio.get_running_loop()
        while True:
            self._open = False
            self._error = error
            self._set("loading")
            await self._end()
            crashes.append(loop.time())
            while crashes[0] < loop.time() - CRASH_WINDOW_S:
                crashes.popleft()
            if len(crashes) >= MAX_CRASHES:
                raise error
            pause_s = min(FIRST_BACKOFF_S * 2 ** (len(crashes) - 1), MAX_BACKOFF_S)
            then = "waiting for it" if self._adopted else f"it is started again in {pause_s:g} s"
            self._output.say(logging.WARNING, "%s\n%s", error, then)
            await asyncio.sleep(pause_s)
            try:
                return await self._bring_up()
            except ServiceError as again:
                if self._adopted:
                    raise
                error = again

    async def _died(self, program: Program, when: str) -> ServiceError:
        code = await program.wait()
        hint = None
        if code == 0:
            hint = "`start` must stay in the foreground as long as the server runs"
        elif code == -signal.SIGKILL:
            hint = "the kernel may have run out of memory"
        how = f"{how_it_ended(code)}{when}{program.last()}"
        return ServiceError(f"the server of `{self._name}` {how}", hint=hint)

    async def _end(self) -> None:
        """End its process, if it has one."""
        if self._program is not None:
            await self._program.stop(self._config.stop_timeout)
        self._program = None
        self._memory = 0


def _place(declared: Declared, folder: Path, state: Path | None, reaper: Reaper) -> Place:
    config: HttpServerConfig = declared.config
    environment = config.env or {}
    file = LogFile(log_of(state, declared.id)) if state is not None else None
    output = Output(declared.id, file, Secrets(environment, os.environ))
    return Place(folder / (config.working_dir or ""), environment, output, reaper)


def _state_folder(folder: Path, state: Path | None) -> Path:
    """Where it is remembered what has been installed, also by those who keep nothing else, such as `run`."""
    return state if state is not None else folder / ".model-compose"


def log_of(state: Path, component: str) -> Path:
    """The file with all that a server prints."""
    name = quote(component, safe="")
    # These names are those of the service's own logs.
    return state / "logs" / f"{name}{'_' if name in ('service', 'output') else ''}.log"


async def clean(declared: Declared, folder: Path, state: Path) -> None:
    """Run the commands of `clean`, and have `install` run again next time. Raises ServiceError."""
    commands = commands_of(declared.config.clean)
    if not commands:
        return
    reaper = Reaper(Path(tempfile.mkdtemp(prefix="model-compose-")))
    place = _place(declared, folder, state, reaper)
    done = Done(state, declared.id)
    try:
        await Scripts(declared.id, place, done, lambda *_: None).run("clean", commands)
        await asyncio.to_thread(done.forget)
    finally:
        await reaper.close()
        await asyncio.to_thread(place.output.close)
