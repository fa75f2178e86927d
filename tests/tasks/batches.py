"""How do tests run a `BatchModel` without a runtime?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.engines import load_options, loaded, unseen

from model_compose.drivers.alone import Alone
from model_compose.drivers.contract import BatchModel, LoadOptions, Outcome

__all__ = ["load_options", "loaded", "outcomes", "started"]


def started(model: BatchModel, options: LoadOptions) -> Any:
    """The model, loaded."""
    model.load(options, unseen)
    return model


def outcomes(model: BatchModel, requests: Sequence[Any]) -> list[Outcome]:
    """What the requests give in one batch, longest first as the runtime hands them over."""
    items = [(i, item) for i, request in enumerate(requests) for item in model.prepare(request)]
    items.sort(key=lambda each: -each[1].cost)
    raws = model.forward([item for _, item in items], Alone(1))
    found = {i: raw for (i, _), raw in zip(items, raws, strict=True)}
    return [model.finish(request, [found[i]]) for i, request in enumerate(requests)]
