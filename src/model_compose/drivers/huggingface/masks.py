"""How is a model asked for the next tokens of sequences that lie in slots, padded and at different places?"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Final

import torch

from model_compose.drivers.huggingface.cache import SlotCache

_FULL: Final = "full_attention"
_SLIDING: Final = "sliding_attention"
#: Bytes of keys and values that an unknown architecture is taken to need for a token and layer.
_GUESS: Final = 4096


class Forward:
    """Calls a causal language model with masks and positions of ours."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._dtype = next(model.parameters()).dtype
        if not self._dtype.is_floating_point:
            self._dtype = torch.float32
        self._device = model.device
        takes = inspect.signature(model.forward).parameters
        self._cache_name = "cache" if "cache" in takes else "past_key_values"
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
        config = model.config.get_text_config()
        self._kinds = set(getattr(config, "layer_types", None) or ())
        window = getattr(config, "sliding_window", None)
        self._window = window if getattr(config, "use_sliding_window", True) else None

    def __call__(
        self,
        ids: Sequence[Sequence[int]],
        positions: Sequence[Sequence[int]],
        pads: Sequence[int],
        starts: Sequence[int],
        cache: SlotCache,
    ) -> torch.Tensor:
        """The logits after the last cell of each row, float32 `[rows, vocabulary]`.

        ids, positions  `[rows, width]`; of cells that are padding, anything
        pads            cells at the beginning of each row that nobody may look at
        starts          the cell that each row begins at; `cache` has been aimed there
        """
        mask: Any = self._mask(pads, starts, len(ids[0]), None)
        if len(self._kinds) > 1:
            mask = {_FULL: mask, _SLIDING: self._mask(pads, starts, len(ids[0]), self._window)}
        elif self._window is not None and self._kinds != {_FULL}:
            mask = self._mask(pads, starts, len(ids[0]), self._window)
        out = self._model(
            input_ids=torch.tensor(ids, device=self._device),
            attention_mask=mask,
            position_ids=torch.tensor(positions, device=self._device),
            use_cache=True,
            **{self._cache_name: cache},
            **self._last_only,
        )
        logits = out.logits[:, -1].float()
        assert isinstance(logits, torch.Tensor)
        return logits

    def _mask(
        self, pads: Sequence[int], starts: Sequence[int], width: int, window: int | None
    ) -> torch.Tensor:
        """What is added to the attention scores, `[rows, 1, width, cells]`: 0, or nearly minus infinity."""
        cells = max(starts) + width
        key = torch.arange(cells, device=self._device)[None, None]
        query = (
            torch.tensor(starts, device=self._device)[:, None]
            + torch.arange(width, device=self._device)[None]
        )[:, :, None]
        seen = (key <= query) & (key >= torch.tensor(pads, device=self._device)[:, None, None])
        if window is not None:
            seen &= key > query - window
        # Not minus infinity: a row that sees nothing, which is padding, would become not-a-number.
        lowest = torch.finfo(self._dtype).min
        return torch.zeros_like(seen, dtype=self._dtype).masked_fill_(~seen, lowest)[:, None]


def shares(config: Any) -> bool:
    """Whether the layers of an architecture all keep keys and values for each token."""
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ())
    return not config.is_encoder_decoder and kinds <= {_FULL, _SLIDING} and not getattr(text, "alibi", False)


def cell_bytes(config: Any, dtype: torch.dtype) -> int:
    """Bytes of keys and values for one token of one sequence."""
    text = config.get_text_config()
    heads = getattr(text, "num_attention_heads", None)
    layers = getattr(text, "num_hidden_layers", None)
    hidden = getattr(text, "hidden_size", None)
    if not (isinstance(heads, int) and isinstance(layers, int) and isinstance(hidden, int)):
        return _GUESS * (layers if isinstance(layers, int) else 1)
    width = getattr(text, "head_dim", None) or hidden // heads
    key_heads = getattr(text, "num_key_value_heads", None) or heads
    return int(2 * layers * key_heads * width * dtype.itemsize)
