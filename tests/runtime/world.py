"""What would the scheduler's effects do? A world of workers without processes, for its tests.

The world performs effects as they come and refuses those that make no sense. It tells the scheduler
what the test lets happen, and the time only when the scheduler asked to be woken or something happens:
whatever gets stuck here would get stuck in a service.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from model_compose.drivers.contract import DeviceMemory
from model_compose.errors import ModelComposeError, ModelLoadError, OutOfMemory, WorkerDied
from model_compose.runtime import events
from model_compose.runtime.model import ModelPlan
from model_compose.runtime.scheduler import Scheduler


@dataclass
class Worker:
    ready: bool = False
    leaving: bool = False
    slots: int = 0
    calls: dict[int, bool] = field(default_factory=dict)
    """The calls that it has, and whether each runs alone."""


@dataclass
class Request:
    model: str
    since: float
    served: list[float] = field(default_factory=list)
    began: bool = False
    cancelled: bool = False
    ends: int = 0
    error: ModelComposeError | None = None

    @property
    def waits(self) -> bool:
        return not self.ends and not self.cancelled


class World:
    """Models of given true sizes, their workers, and the calls to them."""

    def __init__(
        self,
        plans: Iterable[ModelPlan],
        budgets: Mapping[str, int] | None = None,
        *,
        sizes: Mapping[str, Mapping[str, int]] | None = None,
        slots: int = 2,
        gpu: int = 0,
    ) -> None:
        self.plans = {plan.name: plan for plan in plans}
        self.budgets = dict(budgets or {})
        self.sizes = {name: dict((sizes or {}).get(name, plan.size)) for name, plan in self.plans.items()}
        self.slots = slots
        self.gpu = gpu  # bytes of `cuda:0`, of which other programs have some
        self.of_others = 0
        self.scheduler = Scheduler(self.plans.values(), budgets)
        self.now = 0.0
        self.workers: dict[str, Worker] = {}
        self.fetching: set[str] = set()
        self.calls: dict[int, Request] = {}
        self.wakes: list[float] = []
        self.loads: list[tuple[float, str]] = []
        self.effects: list[events.Effect] = []
        self._open: list[int] = []

    # What happens

    def tell(self, event: events.Event) -> list[events.Effect]:
        effects = self.scheduler.on(event, self.now)
        self.effects += effects
        for effect in effects:
            self._perform(effect)
        self._check()
        return effects

    def submit(self, model: str, *, bounded: bool = False) -> int:
        call = len(self.calls) + 1
        self.calls[call] = Request(model, self.now)
        self._open.append(call)
        self.tell(events.Submit(call, model, bounded))
        return call

    def cancel(self, call: int) -> None:
        request = self.calls[call]
        active = any(call in worker.calls for worker in self.workers.values())
        if request.waits:
            request.cancelled = True
            if not active:
                request.ends += 1
            self.tell(events.Cancel(call))

    def begin(self, call: int) -> None:
        self.calls[call].began = True
        self.tell(events.Began(call))

    def end(self, call: int) -> None:
        request = self.calls[call]
        del self.workers[request.model].calls[call]
        request.ends += 1
        assert request.ends == 1
        self.tell(events.Ended(call))

    def fetched(self, model: str) -> None:
        self.fetching.remove(model)
        self.tell(events.Fetched(model, self.plans[model].size))

    def loaded(self, model: str) -> None:
        worker = self.workers[model]
        worker.ready = True
        worker.slots = max(1, min(self.slots, self.plans[model].max_active or self.slots))
        self.tell(events.Loaded(model, self.slots, self.sizes[model], self._devices(model)))

    def _has_room_for(self, model: str) -> bool:
        """Whether there is as much on the GPU as a model really takes, beside the workers that are there."""
        there = [name for name, worker in self.workers.items() if worker.ready or name == model]
        taken = self.of_others + sum(self.sizes[name].get("cuda:0", 0) for name in there)
        return not self.gpu or not self.sizes[model].get("cuda:0") or taken <= self.gpu

    def _devices(self, model: str) -> dict[str, DeviceMemory] | None:
        """What a worker sees of the GPU, with what it has taken itself."""
        there = [name for name, worker in self.workers.items() if worker.ready]
        taken = self.of_others + sum(self.sizes[name].get("cuda:0", 0) for name in there)
        held = self.sizes[model].get("cuda:0", 0)
        return {"cuda:0": DeviceMemory(self.gpu, max(0, self.gpu - taken), held)} if self.gpu else None

    def finds_no_memory(self, model: str) -> None:
        self.tell(events.LoadFailed(model, OutOfMemory("out of memory on `cuda:0`", pool="cuda:0")))

    def refuses_to_load(self, model: str) -> None:
        self.tell(events.LoadFailed(model, ModelLoadError(f"`{model}` is no model")))

    def grows(self, model: str, size: Mapping[str, int]) -> None:
        self.sizes[model] |= size
        self.tell(events.Measured(model, size, self._devices(model)))

    def crashes(self, model: str) -> None:
        """The worker is gone without having been asked, or with an error while it was."""
        self._gone(model, WorkerDied(f"the worker of `{model}` was killed"))

    def leaves(self, model: str) -> None:
        """A worker that was asked to has ended."""
        assert self.workers[model].leaving
        self._gone(model, None)

    def _gone(self, model: str, error: ModelComposeError | None) -> None:
        worker = self.workers.pop(model)
        for call in worker.calls:
            if self.calls[call].cancelled:
                self.calls[call].ends += 1
                assert self.calls[call].ends == 1
        self.tell(events.Exited(model, error))

    def wake(self) -> None:
        """The earliest time that the scheduler asked for has come."""
        at = min(self.wakes)
        self.wakes.remove(at)
        self.now = max(self.now, at)
        self.tell(events.Wake())

    def wait(self, seconds: float) -> None:
        """Time passes, and with it the times that the scheduler asked for."""
        until = self.now + seconds
        while self.wakes and min(self.wakes) <= until:
            self.wake()
        self.now = until

    def settle(self, *, most: int = 10_000) -> None:
        """Everything goes well from now on, until nothing is left to happen."""
        for _ in range(most):
            if not self.step():
                return
        raise AssertionError("the scheduler does not come to rest")

    def step(self) -> bool:
        """The next thing goes well; False when there is none."""
        for model in sorted(self.fetching):
            self.fetched(model)
            return True
        for model, worker in sorted(self.workers.items()):
            if worker.calls:
                self.end(min(worker.calls))
                return True
            if worker.leaving:
                self.leaves(model)
                return True
            if not worker.ready and self._has_room_for(model):
                self.loaded(model)
                return True
            if not worker.ready:
                self.finds_no_memory(model)
                return True
        if self.wakes:
            self.wake()
            return True
        return False

    # What the scheduler wants

    def _perform(self, effect: events.Effect) -> None:
        match effect:
            case events.Fetch(model):
                assert model not in self.fetching, f"{model} is being fetched already"
                assert model not in self.workers, f"{model} has a worker"
                self.fetching.add(model)
            case events.Load(model):
                assert model not in self.workers, f"{model} has a worker already"
                assert model not in self.fetching, f"{model} is not on disk yet"
                self.workers[model] = Worker()
                self.loads.append((self.now, model))
                for pool, budget in self.budgets.items():
                    assert self.claimed(pool) <= budget, f"loading {model} takes too much of {pool}"
            case events.Unload(model):
                assert not self.workers[model].leaving, f"{model} was told to go before"
                self.workers[model].leaving = True
            case events.Serve(call, model, alone):
                self._serve(call, model, alone)
            case events.Withdraw(call, model):
                assert call in self.workers[model].calls
                assert self.calls[call].cancelled
            case events.Fail(call, error):
                self._fail(call, error)
            case events.WakeAt(at):
                assert at > self.now, "asked to be woken in the past"
                self.wakes.append(at)

    def _serve(self, call: int, model: str, alone: bool) -> None:
        worker, request = self.workers[model], self.calls[call]
        assert worker.ready, f"{model} is not loaded"
        assert not worker.leaving, f"{model} is on its way out"
        assert request.model == model
        assert request.waits
        assert call not in worker.calls
        assert not request.began, "what has begun cannot be served again"
        assert len(request.served) < 2, "nothing is served a third time"
        assert alone == bool(request.served), "the second time is alone, and only that"
        worker.calls[call] = alone
        request.served.append(self.now)
        assert len(worker.calls) <= worker.slots
        assert len(worker.calls) == 1 or not any(worker.calls.values()), "alone means alone"

    def _fail(self, call: int, error: ModelComposeError) -> None:
        request = self.calls[call]
        assert request.waits, f"call {call} has ended before"
        request.ends += 1
        request.error = error
        for worker in self.workers.values():
            worker.calls.pop(call, None)  # nobody listens to it any more

    def claimed(self, pool: str) -> int:
        """Bytes that the workers claim, by the sizes that the scheduler knows."""
        return sum(self.scheduler.size(model).get(pool, 0) for model in self.workers)

    def _check(self) -> None:
        self._open = [call for call in self._open if self.calls[call].waits]
        assert len(self.wakes) < 100
        for model, plan in self.plans.items():
            worker = self.workers.get(model, Worker())
            waiting = [c for c in self._open if self.calls[c].model == model and c not in worker.calls]
            assert self.scheduler.waiting(model) == len(waiting)
            assert self.scheduler.active(model) == len(worker.calls)
            free = self.scheduler.room(model) - max(0, plan.max_queue - len(waiting))
            assert 0 <= free <= self.slots
            assert not free or (self.scheduler.state(model) == "ready" and not waiting)
