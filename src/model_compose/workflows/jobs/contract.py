"""What does a type of job get to work with, and what does it give?"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from model_compose.config.expression import Scope
from model_compose.config.schema import Action, Call


class Done(NamedTuple):
    """What a job has done: `output`, which may be a `Stream`, and the jobs that run because of it."""

    output: Any = None
    targets: tuple[str, ...] = ()


class Setting(Protocol):
    """The run of a workflow, as a job sees it.

    scope      what the job's expressions can refer to
    streaming  whether somebody can take its output as it is made
    """

    @property
    def id(self) -> str:
        """The id of the job, for messages."""

    @property
    def scope(self) -> Scope: ...

    @property
    def streaming(self) -> bool: ...

    def action(self, call: Call) -> Action:
        """The action of a call."""

    async def call(self, call: Call, value: Any, *, streaming: bool = False, alone: bool = True) -> Any:
        """Call an action with a value as its `${input}`.

        alone  it is the only call of its job, whose progress is that of the job
        """

    def progress(self, done: int, total: int) -> None:
        """Note how far the job is."""
