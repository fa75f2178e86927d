"""What does a job know of the run that it belongs to, and what does it tell it?"""

from __future__ import annotations

from typing import Literal, Protocol

from model_compose.components.contract import CallContext
from model_compose.drivers.contract import Outcome

JobState = Literal["processing", "retrying", "completed", "failed", "cancelled", "skipped"]


class RunContext(CallContext, Protocol):
    """The run, as its workflow sees it."""

    def job(self, name: str, state: JobState, *, attempt: int = 1, error: str | None = None) -> None:
        """Note that a job has a new state.

        attempt  which one this is
        error    why it failed, also where something else happens then
        """


class JobContext:
    """The run that a call belongs to, as the component that is called sees it, and workflows in it.

    quiet  one of many calls of its job: what happens in it is not told of
    """

    def __init__(self, run: RunContext, name: str, depth: int = 1, *, quiet: bool = False) -> None:
        self._run = run
        self._name = name
        self._quiet = quiet
        self.depth = depth

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return self._run.run_id

    @property
    def admitted(self) -> bool:
        """Whether the run has found a place."""
        return self._run.admitted

    @admitted.setter
    def admitted(self, admitted: bool) -> None:
        self._run.admitted = admitted

    def served(self) -> None:
        """Note that a call has left its queue."""
        self._run.served()

    def spent(self, outcome: Outcome) -> None:
        """Note what a call to a model cost."""
        self._run.spent(outcome)

    def progress(self, done: int, total: int) -> None:
        """Note how far a call is."""
        if not self._quiet:
            self._run.progress(done, total)

    def job(self, name: str, state: JobState, *, attempt: int = 1, error: str | None = None) -> None:
        """Note the state of a job of a workflow that is run by this call."""
        if not self._quiet:
            self._run.job(f"{self._name}/{name}", state, attempt=attempt, error=error)
