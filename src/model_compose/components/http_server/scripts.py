"""Which of the file's commands run before a server, and which of them have run before?"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from model_compose.components.http_server.commands import Argv, fingerprint
from model_compose.components.http_server.process import Place, how_it_ended
from model_compose.errors import ServiceError

#: What a command gets to end by itself when nobody wants it any more.
GRACE_S: Final = 5.0


class Done:
    """Remembers, beside the file, which commands have run to a good end."""

    def __init__(self, folder: Path, component: str) -> None:
        self._folder = folder
        self._path = folder / "installed" / f"{component}.json"

    def __call__(self, key: str, mark: str) -> bool:
        """Whether what is marked so has run."""
        return self._all().get(key) == mark

    def add(self, key: str, mark: str) -> None:
        """It has. Raises ServiceError."""
        self._write({**self._all(), key: mark})

    def forget(self) -> None:
        """Nothing has run: what it made may be gone."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _all(self) -> dict[str, str]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, str])
        except (OSError, msgspec.MsgspecError):
            return {}

    def _write(self, marks: dict[str, str]) -> None:
        draft = self._path.with_suffix(".tmp")
        try:
            if not self._folder.exists():
                self._folder.mkdir(mode=0o700)
                (self._folder / ".gitignore").write_text("*\n")
            self._path.parent.mkdir(exist_ok=True)
            draft.write_bytes(msgspec.json.encode(marks))
            draft.replace(self._path)
        except OSError as error:
            raise ServiceError(f"`{self._path}` cannot be written: {error.strerror}") from error


class Scripts:
    """Runs commands of one component, one after the other.

    told  hears which of how many runs, and that none does any more
    """

    def __init__(
        self, component: str, place: Place, done: Done, told: Callable[[str, int, int], None]
    ) -> None:
        self._component = component
        self._place = place
        self._done = done
        self._told = told

    async def once(self, key: str, commands: Sequence[Argv]) -> None:
        """Run what has not run before. Raises ServiceError with its last lines when a command fails."""
        mark = fingerprint(commands, str(self._place.folder))
        if not commands or await asyncio.to_thread(self._done, key, mark):
            return
        began = time.monotonic()
        await self.run(key, commands)
        await asyncio.to_thread(self._done.add, key, mark)
        took_s = time.monotonic() - began
        self._place.output.say(logging.INFO, "`%s` is done, after %.1f s", key, took_s)

    async def run(self, key: str, commands: Sequence[Argv]) -> None:
        """Run commands. Raises ServiceError with its last lines when one fails."""
        for i, command in enumerate(commands):
            number = f" ({i + 1} of {len(commands)})" if len(commands) > 1 else ""
            text = self._place.output.secrets.shown(command)
            self._place.output.say(logging.INFO, "%s%s: %s", key, number, text)
            self._told(key, i, len(commands))
            await self._run(key, command)

    async def _run(self, key: str, command: Argv) -> None:
        what = f"`{key}` of `{self._component}`"
        program = await self._place.start(command, what)
        try:
            code = await program.wait()
        finally:
            await program.stop(GRACE_S)
        if code != 0:
            hint = "run the command by hand to see what it lacks"
            raise ServiceError(f"{what} {how_it_ended(code)}{program.last()}", hint=hint)
