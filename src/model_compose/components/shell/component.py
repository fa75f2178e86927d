"""How does a call to a `shell` component become a command, and what it says the output?"""

from __future__ import annotations

import asyncio
import codecs
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import UNSET

from model_compose.components.contract import CallContext, Setting, Stateless
from model_compose.components.deadlines import Deadline
from model_compose.components.places import Place, Places
from model_compose.components.requests import request_of, values_of
from model_compose.components.shell.process import PIECE_BYTES, Command, start
from model_compose.components.shell.spec import ShellCommand, ShellConfig, ShellResult
from model_compose.components.streams import Stream, rendered
from model_compose.config.expression import Reference, Scope, references
from model_compose.config.references import RESULTS
from model_compose.config.schema import Action, Tree
from model_compose.config.values import to_text
from model_compose.errors import CommandFailed, ConfigError, InvalidInput, ServiceError, at
from model_compose.types import Blob, for_json

#: Characters of what a command said on stderr that an error message has.
_EXCERPT: Final = 2000


class ShellComponent(Stateless):
    """Runs commands.

    Raises ConfigError if one is to run in a folder outside of `base_dir`.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        config: ShellConfig = setting.declared.config
        self.most_bytes = config.max_output
        self.places = Places(self.name, setting.declared.max_concurrent_count)
        self._base = (setting.folder / Path(config.base_dir).expanduser()).resolve()
        with at(setting.declared.place):
            for action in setting.declared.actions:
                self.folder(action.values.get("working_dir", "."))

    def folder(self, name: str) -> Path:
        """A folder by the name that the file has for it."""
        folder = (self._base / Path(name).expanduser()).resolve()
        if not folder.is_relative_to(self._base):
            raise ConfigError(
                f"`working_dir` of `{self.name}` is `{folder}`, which is not inside of `{self._base}`",
                hint="set `base_dir` of the component to a folder that it is inside of",
            )
        return folder

    async def call(self, action: Action, scope: Scope, context: CallContext, *, streaming: bool) -> Any:
        """Run the command; -> the action's output, a `Stream` of lines maybe."""
        deadline = Deadline(action.timeout)
        piecewise = any(reference.per_chunk for reference in references(action.output))
        run = self._run(action, scope, deadline)
        async with deadline:
            await run.begin(context)
        wanted = streaming or action.streaming
        if piecewise or (wanted and _is_whole(action.output)):
            output = await rendered(action.output, run.stream(), scope)
            return output if wanted else await output.collect()
        result = await run.result()
        names = msgspec.structs.asdict(result)
        return await rendered(action.output, result, scope.child(names))

    def _run(self, action: Action, scope: Scope, deadline: Deadline) -> _Run:
        request = request_of(_as_texts(values_of(action, scope)), ShellCommand)
        return _Run(self, request, deadline)


class _Run:
    """One command from its start to its end."""

    def __init__(self, component: ShellComponent, request: ShellCommand, deadline: Deadline) -> None:
        self._component = component
        self._request = request
        self._argv = _argv(request)
        self._deadline = deadline
        self._room = component.most_bytes
        self._place: Place | None = None
        self._command: Command | None = None

    async def begin(self, context: CallContext) -> None:
        """Wait for a place, and start the command."""
        setting = self._component.setting
        folder = self._component.folder(self._request.working_dir)
        self._place = await self._component.places.take(context)
        try:
            self._command = await start(
                self._argv,
                folder=folder,
                environment={**os.environ, **self._request.env},
                stdin=_stdin(self._request.stdin),
                scratch=setting.scratch,
                reaper=setting.reaper,
            )
        except OSError as error:
            raise self._not_started(error, folder) from error
        finally:
            if self._command is None:
                self._place.leave()

    def _not_started(self, error: OSError, folder: Path) -> Exception:
        name = self._component.name
        if not folder.is_dir():
            return ServiceError(f"`working_dir` of `{name}` is no folder: `{folder}`", hint="create it")
        if isinstance(error, FileNotFoundError):
            return ServiceError(f"`{name}` cannot run `{self._argv[0]}`: there is no such program")
        why = error.strerror or str(error)
        if len(self._argv) > 1 and error.errno == _TOO_LONG:
            hint = "give it by `stdin`"
            return InvalidInput(f"the arguments of `{name}` are too long: {why}", hint=hint)
        return ServiceError(f"`{name}` cannot run `{self._argv[0]}`: {why}")

    async def close(self) -> None:
        """End the command, unless it has ended."""
        if self._command is not None:
            await self._command.close()
        if self._place is not None:
            self._place.leave()

    async def result(self) -> ShellResult:
        """Everything that it says, once it has ended. Raises CommandFailed, TimedOut."""
        command = self._command
        assert command is not None
        try:
            async with self._deadline, asyncio.TaskGroup() as group:
                out = group.create_task(self._all(command, command.stdout))
                err = group.create_task(self._all(command, command.stderr))
            async with self._deadline:
                code = await command.ended()
            return self._ended(out.result(), err.result(), code)
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        finally:
            await self.close()

    async def _all(self, command: Command, reader: asyncio.StreamReader) -> str:
        pieces = []
        while piece := await command.read(reader):
            self._count(piece)
            pieces.append(piece)
        return b"".join(pieces).decode(errors="replace")

    def _count(self, piece: bytes) -> None:
        self._room -= len(piece)
        if self._room < 0:
            name, most = self._component.name, self._component.most_bytes
            hint = "let it write less, or raise `max_output`"
            raise CommandFailed(f"`{name}` wrote more than {most} bytes, and was ended", hint=hint)

    def _ended(self, stdout: str, stderr: str, code: int) -> ShellResult:
        if code != 0 and self._request.check:
            excerpt = self._redacted(stderr.strip())[-_EXCERPT:]
            how = f"ended with exit code {code}" if code > 0 else f"was ended by signal {-code}"
            said = f": {excerpt}" if excerpt else ""
            raise CommandFailed(f"`{self._component.name}` {how}{said}", exit_code=code)
        return ShellResult(stdout.strip(), stderr.strip(), code)

    def _redacted(self, text: str) -> str:
        """A text without the values of the variables that the file gives the command."""
        for value in self._request.env.values():
            if len(value) >= _SHORTEST_SECRET:
                text = text.replace(value, "***")
        return text

    def stream(self) -> Stream:
        """The lines of its standard output, each with its end; what they make is its result."""
        command = self._command
        assert command is not None
        ended: list[ShellResult] = []

        async def errors() -> str:
            try:
                return await self._all(command, command.stderr)
            except CommandFailed:
                await command.close()  # so that nobody waits for more on stdout
                raise

        async def pieces() -> AsyncIterator[list[Any]]:
            lines = _Lines()
            said = asyncio.ensure_future(errors())
            try:
                more = True
                while more:
                    async with self._deadline:
                        piece = await command.read(command.stdout)
                    self._count(piece)
                    more = bool(piece)
                    if some := lines.feed(piece, final=not more):
                        yield some
                async with self._deadline:
                    stderr, code = await said, await command.ended()
                ended.append(self._ended("", stderr, code))
            finally:
                said.cancel()
                await asyncio.wait([said])
                if not said.cancelled():
                    said.exception()  # it has been raised, or nobody asks for it any more
                await self.close()

        async def whole(lines: list[Any]) -> Any:
            return msgspec.structs.replace(ended[0], stdout="".join(lines).strip())

        return Stream(pieces(), close=self.close, whole=whole)


class _Lines:
    """Cuts bytes into lines, each with its end; a very long one comes in parts."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, piece: bytes, *, final: bool = False) -> list[str]:
        text = self._rest + self._decoder.decode(piece, final)
        complete, newline, rest = text.rpartition("\n")
        if final or len(rest) > PIECE_BYTES:
            complete, newline, rest = text, "", ""
        self._rest = rest
        lines = (complete + newline).split("\n")
        return [line + "\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


_TOO_LONG: Final = 7  # E2BIG
_SHORTEST_SECRET: Final = 4


def _is_whole(tree: Tree) -> bool:
    """Whether a tree is the result as it is."""
    if tree is UNSET:
        return True
    return isinstance(tree, Reference) and tree.key in RESULTS and not tree.path and tree.type is None


def _as_texts(values: dict[str, Any]) -> dict[str, Any]:
    """Values with arguments and variables as texts. Raises InvalidInput for what cannot be one."""
    command, env = values.get("command"), values.get("env") or {}
    if isinstance(command, list):
        values["command"] = [_text(item, f"command[{index}]") for index, item in enumerate(command)]
    values["env"] = {n: _text(value, f"env.{n}") for n, value in env.items() if value is not None}
    return values


def _argv(request: ShellCommand) -> list[str]:
    """The program and its arguments."""
    command = request.command
    if isinstance(command, str):
        return ["sh", "-c", command]
    return ["sh", "-c", command[0], "sh", *command[1:]] if request.shell else command


def _text(value: Any, field: str) -> str:
    if value is None:
        raise InvalidInput(
            f"`{field}` has no value", field=field, hint="give it a default: `${input.x | ...}`"
        )
    if isinstance(value, Blob):
        raise InvalidInput(f"`{field}`: a file is no argument", field=field, hint="give it by `stdin`")
    text = to_text(value, field)
    if "\0" in text:
        raise InvalidInput(f"`{field}` has a NUL character, which no argument can have", field=field)
    return text


def _stdin(value: Any) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, Blob):
        return value.data
    return value.encode() if isinstance(value, str) else msgspec.json.encode(for_json(value))
