"""How do LoRA adapters join the layers of a loaded model, with a blend of their own for each row?

A layer gives ``base(x) + sum(weight * scaling * up(down(x)))``. Its adapters are stacked: their ranks stand
side by side in one `down` and one `up`, and between the two each row of the batch is multiplied by its own
weights. So any number of adapters costs two products, and callers with different blends share a batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import torch
from torch import Tensor, nn

from model_compose.drivers.contract import LoadedAdapter
from model_compose.drivers.huggingface.lora_files import Delta, read
from model_compose.errors import EngineError, InvalidInput, ModelLoadError

_PRECISIONS: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Blending(Protocol):
    """The adapters of a model, for those who compute with it."""

    def blend(self, weights: Mapping[str, float] | None) -> tuple[float, ...]:
        """Weights of the adapters of one request, in a fixed order. Raises InvalidInput."""

    def use(self, rows: Sequence[tuple[float, ...]]) -> None:
        """The blend of each row of the batch in the next forward passes; one blend is for every row."""


class Adapters:
    """The adapters of one model. Where all weights are 0, its layers give what they give without them."""

    def __init__(self, names: Iterable[str], defaults: Iterable[float]) -> None:
        self.names = tuple(names)
        self.defaults = tuple(defaults)
        self._scales: dict[Any, _Scale] = {}
        self._rows: tuple[tuple[float, ...], ...] = ()

    @classmethod
    def attach(cls, model: Any, adapters: Sequence[LoadedAdapter], dtype: torch.dtype) -> Adapters:
        """Read adapters and put them into the layers of a model, quantized ones too.

        dtype  what is computed in where an adapter has no `precision`
        Raises ModelLoadError for one that does not fit. The blend is that of the defaults.
        """
        made = cls([a.name for a in adapters], [a.weight for a in adapters])
        found: dict[str, list[tuple[int, Delta]]] = defaultdict(list)
        for i, adapter in enumerate(adapters):
            precision = _precision(adapter) or dtype
            for delta in read(model, adapter):
                cast = delta._replace(down=delta.down.to(precision), up=delta.up.to(precision))
                require_finite(adapter, cast)
                found[delta.layer].append((i, cast))
        for deltas in found.values():
            made._join(deltas)
        made.use([made.defaults])
        return made

    def _join(self, deltas: list[tuple[int, Delta]]) -> None:
        """Put all that is added to one layer into it: a stack for each number format."""
        module = deltas[0][1].module
        stacks = []
        for dtype in dict.fromkeys(delta.down.dtype for _, delta in deltas):
            same = [(i, delta) for i, delta in deltas if delta.down.dtype == dtype]
            times = _times(module)
            terms = tuple((i, delta.down.shape[0], delta.scaling * times) for i, delta in same)
            device = _device(module)
            scale = self._scales.setdefault((terms, device, dtype), _Scale(terms, device, dtype))
            down = torch.cat([delta.down for _, delta in same]).to(device)
            up = torch.cat([delta.up.T for _, delta in same]).contiguous().to(device)
            stacks.append(_Stack(deltas[0][1].layer, down, up, scale, isinstance(module, nn.Embedding)))
        # A hook leaves the layer what it is: models look at `weight`, `weight.dtype` and `in_features`.
        module.register_forward_hook(_Hook(stacks), with_kwargs=True)

    def blend(self, weights: Mapping[str, float] | None) -> tuple[float, ...]:
        """Weights of the adapters of one request, in the order of `names`. Raises InvalidInput."""
        for name in weights or {}:
            if name not in self.names:
                known = ", ".join(f"`{n}`" for n in self.names) or "none"
                raise InvalidInput(f"there is no adapter `{name}`; there are: {known}", field="adapters")
        if weights is None:
            return self.defaults
        return tuple(float(weights.get(name, 0.0)) for name in self.names)

    def use(self, rows: Sequence[tuple[float, ...]]) -> None:
        """The blend of each row of the batch in the next forward passes, until the next call.

        One blend is for every row, whatever the size of the batch; else there are as many as rows.
        """
        chosen = tuple(rows)
        if chosen == self._rows:
            return
        self._rows = chosen
        distinct = chosen[:1] if len(set(chosen)) == 1 else chosen
        for scale in self._scales.values():
            scale.set(distinct)


class _Scale:
    """Weight times scaling at each rank of a stack, for the next passes. Layers that are alike share it.

    terms   of each adapter in the stack: its index, its rank and its scaling
    factor  float [rank] for all rows, float [rows, 1, rank] for each its own; None: nothing is added
    part    the ranks between the first and the last adapter that has a weight; None: all
    """

    def __init__(
        self, terms: tuple[tuple[int, int, float], ...], device: torch.device, dtype: torch.dtype
    ) -> None:
        self._terms = terms
        self._device = device
        self._dtype = torch.promote_types(dtype, torch.float32)
        self.factor: Tensor | None = None
        self.part: slice | None = None

    def set(self, rows: Sequence[tuple[float, ...]]) -> None:
        """Prepare for these blends: one for all rows, or one for each."""
        used = [t for t, (i, _, _) in enumerate(self._terms) if any(row[i] != 0.0 for row in rows)]
        if not used:
            self.factor = self.part = None
            return
        terms = self._terms[used[0] : used[-1] + 1]
        start = sum(rank for _, rank, _ in self._terms[: used[0]])
        self.part = slice(start, start + sum(rank for _, rank, _ in terms)) if terms != self._terms else None
        values = [[row[i] * scaling for i, rank, scaling in terms for _ in range(rank)] for row in rows]
        factor = torch.tensor(values, dtype=self._dtype).to(self._device)
        self.factor = factor[0] if len(rows) == 1 else factor.unsqueeze(1)


class _Stack:
    """The adapters of one layer in one number format.

    down  [rank, in], the ranks of all of them
    up    [rank, out]
    """

    def __init__(self, layer: str, down: Tensor, up: Tensor, scale: _Scale, embeds: bool) -> None:
        self._layer = layer
        self._down = down.T.contiguous() if embeds else down
        self._up = up
        self._embeds = embeds
        self.scale = scale

    def add(self, x: Tensor, output: Tensor) -> Tensor:
        """Add to what the layer gives for an input."""
        factor, part = self.scale.factor, self.scale.part
        if factor is None:
            return output
        down, up = self._down, self._up
        if part is not None:
            down, up = (down[:, part] if self._embeds else down[part]), up[part]
        if self._embeds:
            hidden = nn.functional.embedding(x, down)
        else:
            hidden = nn.functional.linear(x.to(down.dtype), down)
        if factor.dim() == 1:
            hidden = hidden * factor
        else:
            rows = factor.shape[0]
            self._require_rows(x, rows)
            hidden = (hidden.reshape(rows, -1, hidden.shape[-1]) * factor).reshape(hidden.shape)
        return (output + hidden.to(up.dtype) @ up).to(output.dtype)

    def _require_rows(self, x: Tensor, rows: int) -> None:
        """Some models flatten [rows, tokens, in] to [rows * tokens, in] on the way, such as OPT."""
        flat = x.dim() == 2 and not self._embeds and x.shape[0] % rows == 0
        if x.shape[0] != rows and not flat:
            raise EngineError(
                f"layer `{self._layer}` computes {x.shape[0]} rows, and there are {rows} blends"
            )


class _Hook:
    """What a layer calls after itself."""

    def __init__(self, stacks: list[_Stack]) -> None:
        self._stacks = stacks

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> Tensor | None:
        added = output
        for stack in self._stacks:
            if stack.scale.factor is not None:
                added = stack.add(args[0] if args else next(iter(kwargs.values())), added)
        return None if added is output else added


def require_finite(adapter: LoadedAdapter, delta: Delta) -> None:
    """What is no number stays so times 0, and would spoil rows that do not ask for the adapter."""
    for half in (delta.down, delta.up):
        if not half.isfinite().all():
            form = str(half.dtype).removeprefix("torch.")
            raise ModelLoadError(
                f"adapter `{adapter.name}` has weights for `{delta.layer}` that are no numbers in `{form}`"
            )


def _times(module: nn.Module) -> float:
    """What a layer multiplies its weights with: some embeddings do (Gemma)."""
    times: Any = getattr(module, "embed_scale", 1.0)
    return float(times.to(module.get_parameter("weight").dtype) if isinstance(times, Tensor) else times)


def _device(module: nn.Module) -> torch.device:
    """Where a layer is. One whose weights are packed (int8 of torch) shows none, and is on the CPU."""
    for tensor in (*module.parameters(), *module.buffers()):
        return tensor.device
    return torch.device("cpu")


def _precision(adapter: LoadedAdapter) -> torch.dtype | None:
    """The number format that an adapter asks for. Raises ModelLoadError."""
    if adapter.precision in (None, "auto"):
        return None
    if adapter.precision not in _PRECISIONS:
        valid = ", ".join(f"`{name}`" for name in _PRECISIONS)
        raise ModelLoadError(
            f"adapter `{adapter.name}` has the unknown precision `{adapter.precision}`",
            hint=f"valid: {valid}",
        )
    return _PRECISIONS[adapter.precision]
