"""What does the scheduler know of one model?"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Literal

import msgspec

from model_compose.errors import ModelComposeError

State = Literal["unloaded", "loading", "ready", "failed"]


class LoadStage(msgspec.Struct, frozen=True):
    """How far a load is: in which stage, and how much of that is done. `total` is 0 if nobody knows."""

    stage: str
    done: int
    total: int

    def __str__(self) -> str:
        """`weights 40%`; a stage of one step, or of nobody knows how many, is only named."""
        if self.total <= 1:
            return self.stage
        return f"{self.stage} {100 * min(self.done, self.total) // self.total}%"


class ModelPlan(msgspec.Struct, frozen=True):
    """What the scheduler must know of a model.

    size          bytes by memory pool (`host`, `cuda:0`); what `Fetched` says is better
    preload       load it at start and again after a crash, not only for a request
    keep_alive_s  seconds that it stays loaded without a request; None is forever
    max_queue     requests that may wait
    max_active    requests that its worker may have at once; 0 is as many as it takes
    """

    name: str
    size: Mapping[str, int] = {}
    preload: bool = True
    keep_alive_s: float | None = None
    max_queue: int = 256
    max_active: int = 0


class Model:
    """What the scheduler knows of one model, and how far it is."""

    def __init__(self, plan: ModelPlan) -> None:
        self.plan = plan
        self.size = dict(plan.size)
        self.held: dict[
            str, int
        ] = {}  # of GPUs, what its worker really had there; `size` is what it may take
        self.state: State = "unloaded"
        self.fetched: bool | None = False  # are the weights on disk? None: on their way
        self.alive = False  # a worker exists, and with it a claim on memory
        self.leaving = False  # asked to end, and not gone yet
        self.draining = False  # gets no new calls; goes when the last has ended
        self.held_off = False  # stopped by hand: nothing but `Want` brings it back
        self.wanted = False
        self.slots = 0
        self.queue: deque[int] = deque()
        self.active: set[int] = set()
        self.solo = False  # the one active call must run alone
        self.service_s = 0.0  # what a call takes, a moving average
        self.load_began = 0.0
        self.load_took = 0.0
        self.ready_since = 0.0
        self.used_at = 0.0
        self.crashes = 0
        self.retry_at = 0.0
        self.error: ModelComposeError | None = None

    def measured(self, size: Mapping[str, int]) -> None:
        """Take over what was measured. Of a pool that was not, what was declared or estimated stands."""
        self.size |= size

    @property
    def idle(self) -> bool:
        return not self.active and not self.queue

    @property
    def free(self) -> int:
        """Calls that would go to the worker at once."""
        serves = self.state == "ready" and not self.draining and not self.solo and not self.queue
        return max(0, self.slots - len(self.active)) if serves else 0
