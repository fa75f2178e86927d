"""Which model is loaded, which is evicted, and which request is served next?

Pure: `on(event, now)` changes the state and returns the effects to perform; there is no clock, lock,
process or sleep in here. `now` is in seconds of any clock that never goes back. What fits into memory,
and what goes for another, is decided in `placement.py`.

Rules
- A model is loaded when a request waits for it (or `Want` asks for it) and its size fits the memory
  budgets; idle models are evicted for it, least recently used first.
- A busy model is evicted too when somebody waits for its memory, but not before it has had its
  `quantum`: then it gets no new requests, ends those it has, and goes. So steady traffic on A cannot
  starve B, and two models that do not fit together do not spend their time loading.
- Sizes are declared or estimated until the model is loaded, and from then on measured, pool by pool: of a
  pool that nobody can measure, the estimate stands. Where they turn out to exceed a budget, models go
  until they do not: idle ones first, then busy ones as above.
- A crash fails what had begun to answer. What had given nothing yet runs once more, *alone*, so that
  a request that kills its worker takes nobody with it a second time. Restarts back off; after
  `MAX_CRASHES` in a row, without a request served in between, the model is `failed` until somebody
  asks for it with `Want`. So it is with a load for which a GPU's memory did not suffice beside others.
- Every call that was submitted ends exactly once: `Ended` by the worker, or a `Fail` effect, or a
  `Cancel` by its caller.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from model_compose.errors import ModelComposeError, ModelUnavailable, OutOfMemory, Overloaded, WorkerDied
from model_compose.runtime.events import (
    Began,
    Cancel,
    Effect,
    Ended,
    Event,
    Exited,
    Fail,
    Fetch,
    Fetched,
    Load,
    Loaded,
    LoadFailed,
    Measured,
    Release,
    Serve,
    Submit,
    Unload,
    Wake,
    WakeAt,
    Want,
    Withdraw,
)
from model_compose.runtime.model import Model, ModelPlan, State
from model_compose.runtime.placement import Placement

MAX_CRASHES: Final = 5
FIRST_BACKOFF_S: Final = 0.5
MAX_BACKOFF_S: Final = 30.0
#: A model that waits this long for memory has first claim on all that comes free.
STARVING_S: Final = 30.0


class _Call(msgspec.Struct):
    model: str
    since: float
    served_at: float = 0.0
    began: bool = False
    alone: bool = False
    withdrawn: bool = False


class Scheduler:
    """The state of all models and calls.

    budgets  bytes by memory pool; a pool that is not named is unlimited
    """

    def __init__(self, plans: Iterable[ModelPlan], budgets: Mapping[str, int] | None = None) -> None:
        self._models = {plan.name: Model(plan) for plan in plans}
        self._placement = Placement(list(self._models.values()), dict(budgets or {}))
        self._calls: dict[int, _Call] = {}
        self._wake_at: float | None = None

    # What others may look at

    def state(self, model: str) -> State:
        """The state of a model as users see it."""
        return self._models[model].state

    def error(self, model: str) -> ModelComposeError | None:
        """Why a model is `failed`, or what its last worker died of."""
        return self._models[model].error

    def size(self, model: str) -> Mapping[str, int]:
        """Bytes by pool: measured, or else declared or estimated."""
        return self._models[model].size

    def wanted(self, model: str) -> bool:
        """Whether it is being loaded, or is to be, for a request or without one."""
        state = self._models[model]
        return state.wanted or bool(state.queue) or state.state == "loading"

    def waiting(self, model: str) -> int:
        """Calls in the queue of a model."""
        return len(self._models[model].queue)

    def active(self, model: str) -> int:
        """Calls that its worker has."""
        return len(self._models[model].active)

    def room(self, model: str) -> int:
        """How many more calls it would take now, into its queue and past it."""
        state = self._models[model]
        return max(0, state.plan.max_queue - len(state.queue)) + state.free

    def used(self, pool: str) -> int:
        """Bytes of a pool that existing workers claim."""
        return self._placement.used(pool)

    # Events

    def on(self, event: Event, now: float) -> list[Effect]:
        """Take an event in; -> what must be done, in this order."""
        effects: list[Effect] = []
        match event:
            case Submit():
                self._submit(event, now, effects)
            case Cancel(call):
                self._cancel(call, effects)
            case Began(call):
                if call in self._calls:
                    self._calls[call].began = True
            case Ended(call):
                self._ended(call, now)
            case Loaded(name):
                self._loaded(self._models[name], event, now)
            case Fetched(name, size):
                self._fetched(self._models[name], size)
            case Measured(name):
                self._measured(self._models[name], event)
            case LoadFailed(name, error):
                self._load_failed(self._models[name], error, now, effects)
            case Exited(name, error):
                self._exited(self._models[name], error, now, effects)
            case Want(name):
                self._want(self._models[name])
            case Release(name, stay):
                self._release(self._models[name], stay, effects)
            case Wake():
                self._wake_at = None
        self._settle(now, effects)
        return effects

    def _submit(self, event: Submit, now: float, effects: list[Effect]) -> None:
        model = self._models[event.model]
        if model.state == "failed" or model.held_off:
            effects.append(Fail(event.call, self._unavailable(model)))
            return
        if event.bounded and not model.free and len(model.queue) >= model.plan.max_queue:
            effects.append(Fail(event.call, self._overloaded(model)))
            return
        self._calls[event.call] = _Call(event.model, now)
        model.queue.append(event.call)

    def _cancel(self, call: int, effects: list[Effect]) -> None:
        state = self._calls.get(call)
        if state is None or state.withdrawn:
            return
        model = self._models[state.model]
        if call in model.active:
            state.withdrawn = True
            effects.append(Withdraw(call, state.model))
        else:
            model.queue.remove(call)
            del self._calls[call]

    def _ended(self, call: int, now: float) -> None:
        state = self._calls.pop(call, None)
        if state is not None:
            model = self._models[state.model]
            model.active.discard(call)
            model.solo = False
            model.crashes = 0  # what serves is not in a crash loop
            model.used_at = now
            took = now - state.served_at
            model.service_s = 0.8 * model.service_s + 0.2 * took if model.service_s else took

    def _fetched(self, model: Model, size: Mapping[str, int]) -> None:
        model.fetched = True
        if model.state == "loading":
            model.state = "unloaded"
        if size:
            model.size = dict(size)

    def _loaded(self, model: Model, event: Loaded, now: float) -> None:
        if model.leaving:  # it was told to go while it loaded
            return
        model.state = "ready"
        model.slots = max(1, min(event.slots, model.plan.max_active or event.slots))
        self._measured(model, event)
        model.wanted = False
        model.load_took = now - model.load_began
        model.ready_since = model.used_at = now

    def _measured(self, model: Model, event: Loaded | Measured) -> None:
        model.measured(event.size)
        if event.devices == {}:  # it was taken for one that would be on a GPU, unless the file says so
            known = event.size.keys() | model.plan.size.keys() | {"host"}
            model.size = {pool: n for pool, n in model.size.items() if pool in known}
        model.held = {pool: memory.held for pool, memory in (event.devices or {}).items()}
        for pool, memory in (event.devices or {}).items():
            self._placement.seen(pool, memory)

    def _load_failed(self, model: Model, error: ModelComposeError, now: float, effects: list[Effect]) -> None:
        if model.leaving:
            return
        if isinstance(error, OutOfMemory) and self._placement.was_too_little(model, error.pool):
            model.wanted = model.wanted or model.plan.preload
            self._failed_again(model, error, now, effects)
            if model.state != "failed":
                self._unload(model, effects)
        else:
            self._give_up(model, error, effects)

    def _exited(
        self, model: Model, error: ModelComposeError | None, now: float, effects: list[Effect]
    ) -> None:
        asked = model.leaving
        model.fetched = model.fetched or False
        model.alive = model.leaving = model.draining = False
        if model.state != "failed":
            model.state = "unloaded"
        died = error or WorkerDied(f"the worker of `{model.plan.name}` ended")
        self._lose(model, died, effects)
        if model.state == "failed" or model.held_off:
            self._fail_queue(model, effects)
        if asked or model.state == "failed":
            return
        model.wanted = (model.wanted or model.plan.preload) and not model.held_off
        self._failed_again(model, died, now, effects)

    def _failed_again(
        self, model: Model, error: ModelComposeError, now: float, effects: list[Effect]
    ) -> None:
        """Try again after a while, but not for ever."""
        model.crashes += 1
        model.error = error
        if model.crashes >= MAX_CRASHES:
            self._give_up(model, error, effects)
        else:
            model.retry_at = now + min(FIRST_BACKOFF_S * 2 ** (model.crashes - 1), MAX_BACKOFF_S)

    def _lose(self, model: Model, error: ModelComposeError, effects: list[Effect]) -> None:
        """Its worker is gone: end what had begun, queue the rest again, in order, each to run alone."""
        again = []
        for call in sorted(model.active):
            state = self._calls[call]
            if state.withdrawn:
                del self._calls[call]
            elif state.began or state.alone:
                del self._calls[call]
                effects.append(Fail(call, error))
            else:
                state.alone = True
                again.append(call)
        model.active.clear()
        model.solo = False
        model.queue.extendleft(reversed(again))

    def _give_up(self, model: Model, error: ModelComposeError, effects: list[Effect]) -> None:
        model.state = "failed"
        model.error = error
        model.wanted = False
        model.fetched = False
        self._fail_active(model, effects)
        self._fail_queue(model, effects)
        if model.alive and not model.leaving:
            model.leaving = True
            effects.append(Unload(model.plan.name))

    def _fail_active(self, model: Model, effects: list[Effect]) -> None:
        for call in sorted(model.active):
            if not self._calls[call].withdrawn:
                model.active.discard(call)
                del self._calls[call]
                effects.append(Fail(call, self._unavailable(model)))

    def _fail_queue(self, model: Model, effects: list[Effect]) -> None:
        while model.queue:
            call = model.queue.popleft()
            del self._calls[call]
            effects.append(Fail(call, self._unavailable(model)))

    def _want(self, model: Model) -> None:
        model.held_off = False
        if model.state == "failed":
            model.state = "unloaded"
            model.error = None
        model.crashes = 0
        model.retry_at = 0.0
        model.wanted = model.state != "ready" or model.draining

    def _release(self, model: Model, stay: bool, effects: list[Effect]) -> None:
        model.wanted = False
        model.held_off = stay
        if model.fetched:  # a fetch that is under way goes on
            model.fetched = False
        if stay:
            self._fail_queue(model, effects)
        if model.state == "ready":
            model.draining = True
        elif model.state == "loading" and model.alive:
            self._unload(model, effects)

    def _overloaded(self, model: Model) -> ModelComposeError:
        wait_s = len(model.queue) * model.service_s / max(1, model.slots)
        return Overloaded(
            f"the queue of `{model.plan.name}` is full ({model.plan.max_queue} requests wait)",
            retry_after_s=min(60.0, max(1.0, math.ceil(wait_s))),
        )

    def _unavailable(self, model: Model) -> ModelComposeError:
        name = model.plan.name
        if model.held_off:
            return ModelUnavailable(f"`{name}` is stopped", hint=f"model-compose restart {name}")
        why = model.error
        return ModelUnavailable(f"`{name}` has failed: {why}", hint=why.hint if why else None)

    # What follows from the state

    def _settle(self, now: float, effects: list[Effect]) -> None:
        wake: list[float] = []
        for model in self._models.values():
            self._serve(model, now, effects)
            self._retire(model, now, effects, wake)
        self._relieve(effects)
        self._fill_memory(now, effects, wake)
        due = min(wake, default=None)
        if due is not None and (self._wake_at is None or due < self._wake_at):
            self._wake_at = due
            effects.append(WakeAt(due))

    def _serve(self, model: Model, now: float, effects: list[Effect]) -> None:
        if model.state != "ready" or model.draining:
            return
        while model.queue and len(model.active) < model.slots and not model.solo:
            call = model.queue[0]
            state = self._calls[call]
            if state.alone and model.active:
                return
            model.queue.popleft()
            model.active.add(call)
            model.solo = state.alone
            state.served_at = now
            effects.append(Serve(call, model.plan.name, state.alone))

    def _retire(self, model: Model, now: float, effects: list[Effect], wake: list[float]) -> None:
        """Unload what has drained or has been idle for its `keep_alive`."""
        if model.state != "ready" or model.active:
            return
        if model.draining:
            self._unload(model, effects)
        elif model.idle and model.plan.keep_alive_s is not None:
            ends = model.used_at + model.plan.keep_alive_s
            if ends <= now:
                self._unload(model, effects)
            else:
                wake.append(ends)

    def _unload(self, model: Model, effects: list[Effect]) -> None:
        model.leaving = True
        model.state = "unloaded"
        effects.append(Unload(model.plan.name))

    def _relieve(self, effects: list[Effect]) -> None:
        while (model := self._placement.outgrown()) is not None:
            too_big = self._placement.too_big(model)
            if too_big is not None:
                self._give_up(model, too_big, effects)
            else:
                self._send_away(model, effects)

    def _send_away(self, model: Model, effects: list[Effect]) -> None:
        """Unload a model as soon as it has ended what it does."""
        model.draining = True
        if not model.active:
            self._unload(model, effects)

    def _fill_memory(self, now: float, effects: list[Effect], wake: list[float]) -> None:
        """Load what is needed, most urgent first, and make room where that is fair."""
        reserved = False  # what comes free is for an older one than those that follow
        for model in self._needed():
            too_big = self._placement.too_big(model)
            if model.retry_at > now:
                wake.append(model.retry_at)
            elif not model.fetched:
                model.fetched = None
                model.state = "loading"
                effects.append(Fetch(model.plan.name))
            elif too_big is not None:
                self._give_up(model, too_big, effects)
            elif reserved:
                continue
            elif self._placement.fits(model):
                model.alive = True
                model.state = "loading"
                model.load_began = now
                effects.append(Load(model.plan.name))
            elif self._placement.fits(model, soon=True) or self._make_room(model, now, effects, wake):
                reserved = True
            elif not model.queue:
                model.wanted = False  # a preload that does not fit waits for its first request
            else:
                reserved = now - self._calls[model.queue[0]].since >= STARVING_S

    def _make_room(self, model: Model, now: float, effects: list[Effect], wake: list[float]) -> bool:
        """Send away as many as it takes; -> whether that is enough."""
        if not model.queue:
            return False  # a wish (preload) never throws out what is already there
        victims = self._placement.victims(model, now)
        if victims is None:
            wake += self._placement.evictable_from(now)
            return False
        for victim in victims:
            self._send_away(victim, effects)
        return True

    def _needed(self) -> list[Model]:
        """Models that must be loaded and have no worker: the oldest waiting request first, then wishes."""
        models = [
            m
            for m in self._models.values()
            if (m.queue or m.wanted) and not m.alive and m.state == "unloaded" and not m.held_off
        ]
        return sorted(models, key=lambda m: (not m.queue, self._calls[m.queue[0]].since if m.queue else 0.0))
