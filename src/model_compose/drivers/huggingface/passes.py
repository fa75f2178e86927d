"""How do tokens of several texts become the input of one forward pass, and its output theirs again?"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_compose.drivers.huggingface.load import Loaded
from model_compose.drivers.huggingface.packing import bins

#: Tokens of a row that several texts share: in a longer one, more attention between texts is thrown away.
PACKED_ROW: Final = 64
#: By how much two ways of computing the same thing may differ, against the largest number of either.
_SAME: Final = {torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 1e-1}

Numbers = NDArray[np.int64]


class Tokens(NamedTuple):
    """A text as the model gets it; `types` (of segments) only where they are not all 0."""

    ids: list[int]
    types: list[int] | None
    truncated: bool


class Passes:
    """Forward passes of a loaded model.

    pad        the token that fills rows up
    typed      the model takes the type of each token
    positions  how many tokens of a text it has places for; None where it computes them, however many
    """

    def __init__(self, loaded: Loaded, pad: int, *, typed: bool) -> None:
        self._loaded = loaded
        self._pad = pad
        self._typed = typed
        self._base = loaded.model.base_model
        self._classifies = self._base is not loaded.model
        places = _position_embedding(loaded.model)
        # RoBERTa and its relatives begin to count behind the index of the padding.
        padding = None if places is None else places.padding_idx
        self._first = 0 if padding is None else padding + 1
        told = getattr(loaded.config.get_text_config(), "max_position_embeddings", None) or 0
        most = told if places is None else places.num_embeddings - self._first
        self.positions: int | None = most if most > 0 else None

    def can_pack(self, rows: Sequence[Tokens]) -> bool:
        """Whether the model gives the same for these texts in one row as with a row for each.

        That is tried: models differ in which positions and masks they take, and few say so.
        """
        if "position_ids" not in inspect.signature(type(self._base).forward).parameters:
            return False
        output, mask = self.padded(rows)
        try:
            if self._classifies:
                found, expected = self.packed_logits(rows), output.logits
            else:
                real = mask.unsqueeze(-1)
                found, expected = self.packed(rows)[0] * real, output.last_hidden_state * real
            error = (found - expected).abs().max() / expected.abs().max()
        except Exception:  # noqa: BLE001  whatever a model says to inputs of a shape that it does not take
            return False
        return bool(error < _SAME.get(self._loaded.dtype, 0.0))

    def padded(self, rows: Sequence[Tokens]) -> tuple[Any, Tensor]:
        """With a row for each text; -> the model's output, and int [batch, tokens], 1 = real token."""
        ids, types, mask = self._arrays(rows)
        placed = self._placed(mask)
        return self._run(self._loaded.model, ids, types, attention_mask=placed), placed

    def _arrays(self, rows: Sequence[Tokens]) -> tuple[Numbers, Numbers, Numbers]:
        shape = len(rows), max(len(row.ids) for row in rows)
        ids, types, mask = np.full(shape, self._pad), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for i, row in enumerate(rows):
            _fill(ids[i], types[i], 0, row)
            mask[i, : len(row.ids)] = 1
        return ids, types, mask

    def packed_logits(self, rows: Sequence[Tokens]) -> Tensor:
        """What a classifier says of texts, several of which stand in a row; float [batch, labels]."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        hidden, mask = self.packed(rows)
        pooler = getattr(self._base, "pooler", None)
        known = BaseModelOutputWithPooling(hidden, None if pooler is None else pooler(hidden))
        # What comes on top of the base differs from model to model, and cannot be called by itself.
        self._base.forward = lambda *_, **__: known
        try:
            ids, types, _ = self._arrays(rows)
            logits: Tensor = self._run(self._loaded.model, ids, types, attention_mask=mask).logits
        finally:
            del self._base.forward
        return logits

    def packed(self, rows: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
        """With several texts in a row; -> their vectors as if each had its own, and the mask."""
        lengths = np.array([len(row.ids) for row in rows])
        filled = bins(lengths.tolist(), PACKED_ROW)
        shape = len(filled), max(int(lengths[row].sum()) for row in filled)
        ids, types = np.full(shape, self._pad), np.zeros(shape, np.int64)
        positions, owner = np.zeros(shape, np.int64), np.full(shape, -1)
        # Where each token of each text is, in all rows behind each other.
        where = np.zeros((len(rows), lengths.max()), np.int64)
        for row, texts in enumerate(filled):
            start = 0
            for i in texts:
                end = start + lengths[i]
                _fill(ids[row], types[row], start, rows[i])
                positions[row, start:end] = np.arange(lengths[i])
                owner[row, start:end] = i
                where[i, : lengths[i]] = row * shape[1] + np.arange(start, end)
                start = end
        apart = owner[:, None, :, None] == owner[:, None, None, :]
        output = self._run(
            self._base,
            ids,
            types,
            attention_mask=self._placed(apart),
            position_ids=self._placed(positions + self._first),
        )
        vectors: Tensor = output.last_hidden_state.flatten(0, 1)
        mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
        return vectors[self._placed(where)], self._placed(mask)

    def _run(self, model: Any, ids: Numbers, types: Numbers, **given: Tensor) -> Any:
        if self._typed:
            given["token_type_ids"] = self._placed(types)
        return model(input_ids=self._placed(ids), **given)

    def _placed(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._loaded.device, non_blocking=True)


def _fill(ids: Numbers, types: Numbers, start: int, text: Tokens) -> None:
    """Write a text into a row."""
    ids[start : start + len(text.ids)] = text.ids
    if text.types is not None:
        types[start : start + len(text.ids)] = text.types


def _position_embedding(model: Any) -> torch.nn.Embedding | None:
    """The vectors of positions, where a model has some."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            return module
    return None
