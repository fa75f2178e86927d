"""Which adapter does the engine use for a request, and how long does it keep it?"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from model_compose.drivers.huggingface.lora_blends import Adapter, blend, rank_of, write
from model_compose.errors import InvalidInput

#: Blends that are kept for the next request: each lies on disk, and some in the engine's memory.
KEPT: Final = 64


class Engine(Protocol):
    """The part of vLLM's engine that knows adapters."""

    async def add_lora(self, lora_request: Any) -> bool: ...

    async def remove_lora(self, lora_id: int) -> bool: ...


class Blends:
    """The adapters of a model, blended as requests want them.

    room     the highest rank that the engine takes
    folder   private, for what is made of the adapters
    on_cpu   the engine computes on the CPU, where requests without an adapter get the last one that it has
             (vLLM 0.32: their index is -1, and nothing looks for that); so they get one that adds nothing
    """

    def __init__(
        self, engine: Engine, adapters: Sequence[Adapter], room: int, folder: Path, *, on_cpu: bool
    ) -> None:
        self._engine = engine
        self._on_cpu = on_cpu
        self._adapters = adapters
        self._room = room
        self._folder = folder
        self._numbers = itertools.count(1)
        self._kept: dict[tuple[float, ...], _Kept] = {}
        self._making = asyncio.Lock()

    async def check(self) -> None:
        """Have the engine load each adapter, so that one that it refuses is known before any request."""
        for adapter in self._adapters:
            async with self.using({adapter.name: adapter.weight or 1.0}):
                pass
        async with self.using(None):
            pass

    @contextlib.asynccontextmanager
    async def using(self, weights: Mapping[str, float] | None) -> AsyncIterator[Any]:
        """The engine's name for a blend, None for the base alone; it stays until the end of the block.

        weights  by the names of adapters; None: those that the component has
        Raises InvalidInput, and what the engine raises for an adapter that it cannot load.
        """
        chosen = blend(self._adapters, weights)
        if not any(chosen) and not self._on_cpu:
            yield None
            return
        kept = await self._get(chosen)
        try:
            yield kept.request
        finally:
            kept.users -= 1

    async def _get(self, chosen: tuple[float, ...]) -> _Kept:
        """A blend, with one more user."""
        async with self._making:
            kept = self._kept.pop(chosen, None) or await self._make(chosen)
            self._kept[chosen] = kept  # at the end: the first have not been used for longest
            kept.users += 1
            await self._drop()
            return kept

    async def _make(self, chosen: tuple[float, ...]) -> _Kept:
        rank = rank_of(self._adapters, chosen)
        if rank > self._room:
            raise InvalidInput(
                f"these adapters together have rank {rank}, and there is room for {self._room}",
                field="adapters",
                hint="name fewer of them, or raise `options.max_lora_rank`",
            )
        number = next(self._numbers)
        folder = self._folder / str(number)
        try:
            await asyncio.to_thread(write, self._adapters, chosen, folder)
            request = _request(f"blend-{number}", number, str(folder))
            await self._engine.add_lora(request)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return _Kept(request, folder)

    async def _drop(self) -> None:
        """Let go of blends that nobody uses, where they are too many."""
        idle = [chosen for chosen, kept in self._kept.items() if not kept.users]
        for chosen in idle[: max(0, len(self._kept) - KEPT)]:
            kept = self._kept.pop(chosen)
            await self._engine.remove_lora(kept.request.lora_int_id)
            await asyncio.to_thread(shutil.rmtree, kept.folder, ignore_errors=True)


class _Kept:
    def __init__(self, request: Any, folder: Path) -> None:
        self.request = request
        self.folder = folder
        self.users = 0


def _request(name: str, number: int, path: str) -> Any:
    """What the engine calls an adapter."""
    from vllm.lora.request import LoRARequest

    return LoRARequest(name, number, path)
