"""Which models fit into memory together, and which go for another?

Pure: it answers questions about the models that it was given, and changes none. Models that are idle
go first, the least recently used of them before others; a busy one may go when it has had its quantum.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from model_compose.drivers.contract import DeviceMemory
from model_compose.errors import ModelComposeError, ModelLoadError
from model_compose.runtime.model import Model

#: The least time that a busy model keeps its memory; at least four times what loading it took, so
#: that no more than a fifth of the time goes into switching.
MIN_QUANTUM_S: Final = 5.0
QUANTUM_PER_LOAD: Final = 4.0
#: A model that was used a moment ago is not idle yet: callers who ask one thing after the other come
#: back, and would pay for loading it again.
MIN_LINGER_S: Final = 0.1
LINGER_PER_LOAD: Final = 0.1


class Placement:
    """Models and the memory that they share.

    budgets  bytes by memory pool that they may take, whatever there is; a pool that is neither named here
             nor known by `seen` is unlimited
    """

    def __init__(self, models: Sequence[Model], budgets: Mapping[str, int]) -> None:
        self._models = models
        self._budgets = dict(budgets)
        self._devices: dict[str, int] = {}  # bytes that GPUs have in all

    def seen(self, pool: str, memory: DeviceMemory) -> None:
        """What a GPU has for models: what is free, and what they have taken of it.

        The rest is taken by other programs, by what CUDA needs for each process, and by models that load.
        """
        held = (m.held.get(pool, m.size.get(pool, 0)) for m in self._models if m.state == "ready")
        self._devices[pool] = memory.total
        self._budgets[pool] = min(memory.total, memory.free + sum(held))

    def used(self, pool: str) -> int:
        """Bytes of a pool that existing workers claim."""
        return sum(m.size.get(pool, 0) for m in self._models if m.alive)

    def too_big(self, model: Model) -> ModelComposeError | None:
        """Why a model cannot be loaded even alone, if that is so."""
        for pool, budget in self._budgets.items():
            need, name = model.size.get(pool, 0), model.plan.name
            # Of a GPU an estimate may be too high: alone there it is tried, and CUDA says it better.
            if need > budget and pool not in self._devices:
                return ModelLoadError(
                    f"`{name}` needs {_gib(need)} of {pool} memory, and the limit is {_gib(budget)}",
                    hint="raise `memory_limit`, or choose a smaller model, quantization or context length",
                )
        return None

    def fits(self, model: Model, *, soon: bool = False, without: Iterable[Model] = ()) -> bool:
        """Whether a model fits beside the workers that exist, but for those that are named.

        soon  count those out that are on their way out
        """
        gone = set(map(id, without))
        for pool, budget in self._budgets.items():
            need = model.size.get(pool, 0)
            used = sum(
                m.size.get(pool, 0)
                for m in self._models
                if m.alive and id(m) not in gone and not (soon and (m.leaving or m.draining))
            )
            # Alone on a GPU it is loaded, whatever other programs had there when that was asked.
            if used + need > budget and (pool not in self._devices or (need and used)):
                return False
        return True

    def was_too_little(self, model: Model, pool: str | None) -> bool:
        """A GPU had too little memory left to load a model; -> whether there would be more without others.

        It needs more than was there, then, whatever was estimated.
        """
        taken = sum(m.size.get(pool, 0) for m in self._models if m.alive and m is not model) if pool else 0
        if not taken or pool is None or pool == "host":
            return False
        # Where nobody has said yet how much there is, it is no more than what others have.
        budget = self._budgets.setdefault(pool, taken)
        total = self._devices.setdefault(pool, sys.maxsize)
        model.size[pool] = max(model.size.get(pool, 0), min(budget - taken + 1, total), 1)
        return True

    def outgrown(self) -> Model | None:
        """The next model that must go because a budget is exceeded: measured sizes may be above estimates.

        What is in the memory of a GPU fits there, and stays.
        """
        for pool, budget in self._budgets.items():
            if pool in self._devices:
                continue
            staying = [m for m in self._models if m.alive and not (m.leaving or m.draining)]
            if sum(m.size.get(pool, 0) for m in staying) <= budget:
                continue
            ready = [m for m in staying if m.state == "ready" and m.size.get(pool, 0)]
            if ready:
                return min(ready, key=lambda m: (m.size[pool] <= budget, not m.idle, m.used_at))
        return None

    def victims(self, model: Model, now: float) -> list[Model] | None:
        """Those that go so that a model fits, as few as it takes; None if not enough of them may go yet."""
        victims: list[Model] = []
        for other in self._evictable(now):
            victims.append(other)
            if self.fits(model, soon=True, without=victims):
                return self._spared(model, victims)
        return None

    def _spared(self, model: Model, victims: list[Model]) -> list[Model]:
        """Without those whose memory turns out not to be needed."""
        needed = list(victims)
        for victim in victims[:-1]:
            rest = [v for v in needed if v is not victim]
            if self.fits(model, soon=True, without=rest):
                needed = rest
        return needed

    def _evictable(self, now: float) -> list[Model]:
        """Ready models that may be sent away now, in the order in which they are."""
        free = [m for m in self._staying() if _kept_until(m) <= now]
        idle = sorted((m for m in free if m.idle), key=lambda m: m.used_at)
        return idle + sorted((m for m in free if not m.idle), key=lambda m: m.ready_since)

    def evictable_from(self, now: float) -> list[float]:
        """When models that may not be sent away yet may be."""
        return [ends for m in self._staying() if (ends := _kept_until(m)) > now]

    def _staying(self) -> list[Model]:
        return [m for m in self._models if m.state == "ready" and not m.draining]


def _kept_until(model: Model) -> float:
    """Until when a ready model keeps its memory, whoever waits for it."""
    ends = model.ready_since + max(MIN_QUANTUM_S, QUANTUM_PER_LOAD * model.load_took)
    if model.idle:
        ends = min(ends, model.used_at + max(MIN_LINGER_S, LINGER_PER_LOAD * model.load_took))
    return ends


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
