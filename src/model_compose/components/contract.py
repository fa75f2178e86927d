"""What must something that is named in a file do to be called?"""

from __future__ import annotations

import abc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from model_compose.components.callbacks import Callbacks
from model_compose.components.media import Media
from model_compose.config.expression import Scope
from model_compose.config.schema import Action
from model_compose.config.schema import Component as Declared
from model_compose.drivers.contract import Outcome
from model_compose.errors import ModelComposeError, Unsupported
from model_compose.runtime.model import State
from model_compose.runtime.pool import ComponentStatus
from model_compose.runtime.process import Reaper


class CallContext(Protocol):
    """The run that a call belongs to, as a component sees it."""

    @property
    def run_id(self) -> str:
        """The run's id."""

    admitted: bool
    """False until the run's first call has found a place: that one is refused when a queue is full."""

    def served(self) -> None:
        """Note that a call has left its queue."""

    def spent(self, outcome: Outcome) -> None:
        """Note what a call to a model cost."""

    def progress(self, done: int, total: int) -> None:
        """Note how far a call is."""


class Workflows(Protocol):
    """The workflows of the project, for components that call one."""

    async def call(self, name: str, given: Any, context: CallContext, *, streaming: bool) -> Any:
        """Run a workflow inside of another run; -> its output, which may be a `Stream`.

        Raises InvalidInput if it does not take what is given, and what it raises itself.
        """


class Setting(msgspec.Struct, frozen=True):
    """What a component is made from.

    declared   what the file says; `declared.config` is the struct of its type
    folder     where relative paths of the file start
    state      folder that outlives the service, for logs and the like; None where nothing is kept
    scratch    folder that goes with the service
    media      reads images and files that a client sends
    workflows  the project's workflows
    reaper     kills process groups when the service is gone, however it went
    changed    to be called with every new state of the component
    callbacks  answers that come by another way than the call
    """

    declared: Declared
    folder: Path
    state: Path | None
    scratch: Path
    media: Media
    workflows: Workflows
    reaper: Reaper
    changed: Callable[[State], None]
    callbacks: Callbacks


class Callee(Protocol):
    """Something that workflows call."""

    async def call(self, action: Action, scope: Scope, context: CallContext, *, streaming: bool) -> Any:
        """Do what an action says, with `${input}` from the scope; -> its output.

        The output is a `Stream` if `streaming` asks for one and the action can give it. Cancelling
        the call ends its work.
        """


class Component(Callee, Protocol):
    """Something that is named in the file. One object for each component of a project."""

    async def start(self) -> None:
        """Begin to become ready, and return at once. Raises only what no other component can outlive."""

    async def close(self) -> None:
        """End everything that it began."""

    def status(self) -> ComponentStatus:
        """How it is."""

    def ready(self) -> bool:
        """Whether a call would be served now. What starts on demand is ready before that."""

    def settled(self) -> bool:
        """Whether it is as it will be: it is not starting, nor about to."""

    def error(self) -> ModelComposeError | None:
        """Why it has failed, if it has."""

    def restart(self) -> None:
        """Start anew, in the background. Raises Unsupported where there is nothing to start."""

    def stop(self) -> None:
        """Stop, in the background, until somebody starts it again. Raises Unsupported."""


class Stateless(abc.ABC):
    """A component with nothing to start: it is always ready."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.name = setting.declared.id

    async def start(self) -> None:
        """There is nothing to start."""
        return

    async def close(self) -> None:
        """There is nothing to end."""
        return

    def status(self) -> ComponentStatus:
        return ComponentStatus(self.name, "ready", {}, 0, 0, type=self.setting.declared.type)

    def ready(self) -> bool:
        return True

    def settled(self) -> bool:
        return True

    def error(self) -> ModelComposeError | None:
        return None

    def restart(self) -> None:
        raise self._nothing()

    def stop(self) -> None:
        raise self._nothing()

    def _nothing(self) -> ModelComposeError:
        return Unsupported(f"`{self.name}`, a {self.setting.declared.type}, has nothing to start or stop")

    @abc.abstractmethod
    async def call(self, action: Action, scope: Scope, context: CallContext, *, streaming: bool) -> Any:
        """Do what an action says."""
