"""What must something that is named in a file do to be called?"""

from __future__ import annotations

from typing import Any, Protocol

from model_compose.config.expression import Scope
from model_compose.config.schema import Action
from model_compose.drivers.contract import Outcome


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


class Component(Protocol):
    """Something that can be called. One object for each component of a project."""

    async def call(self, action: Action, scope: Scope, context: CallContext, *, streaming: bool) -> Any:
        """Do what an action says, with `${input}` from the scope; -> its output.

        The output is a `Stream` if `streaming` asks for one and the action can give it. Cancelling
        the call ends its work.
        """
