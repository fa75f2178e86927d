"""Where may a model run?

`Executor` is the gateway's side of one loaded model. It has three hosts: a worker process
(`process.py`), the calling process itself (`local.py`), and later a Ray actor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from model_compose.errors import ModelComposeError
from model_compose.runtime.interpreter import Interpreter
from model_compose.runtime.messages import Load, ToGateway, ToWorker


class Listener(Protocol):
    """Who hears what an executor has to say, always on the gateway's event loop."""

    def message(self, message: ToGateway) -> None:
        """The model said something."""

    def exited(self, error: ModelComposeError | None) -> None:
        """The host is gone, for good; None when it was asked to. Nothing comes after this."""


class Executor(Protocol):
    """One model in its host."""

    async def start(self, load: Load, environment: Mapping[str, str], listener: Listener) -> None:
        """Start the host and have it load. Raises ServiceError when it cannot be started."""

    def send(self, message: ToWorker) -> None:
        """Pass a message on; what a host that is gone would have got is dropped."""

    def pause(self) -> None:
        """Take the CPU away from the host, whole, until `resume`."""

    def resume(self) -> None:
        """Let the host compute again."""

    async def stop(self, grace_s: float) -> None:
        """End the host: kindly, and after `grace_s` seconds not so."""

    @property
    def pid(self) -> int | None:
        """The process that computes, if it is one of its own."""

    @property
    def interpreter(self) -> Interpreter | None:
        """The Python that runs it, if that is not the service's."""

    def last_lines(self) -> Sequence[str]:
        """What the host printed last, oldest first."""
