"""How do texts go through a fixed graph that reads each of them once: tokens, padding, batches?

Batches are padded on the right, and the mask says where. A graph without a mask gets texts of one length at a
time; one that was exported with a fixed length, or a fixed number of texts, gets that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_compose.drivers.contract import LoadOptions, ModelInfo
from model_compose.drivers.custom.session import (
    Array,
    Port,
    Session,
    beside,
    driver_options,
    graph_of,
    info_of,
    open_session,
    unfit,
)
from model_compose.drivers.custom.tokens import Tokenizer, Tokens, read_json
from model_compose.drivers.huggingface.packing import groups
from model_compose.errors import ModelLoadError

_IDS: Final = "input_ids"
_MASK: Final = "attention_mask"
_TYPES: Final = "token_type_ids"
_POSITIONS: Final = "position_ids"
_INPUTS: Final = (_IDS, _MASK, _TYPES, _POSITIONS)

#: Most rows and most tokens of one forward pass. A CPU is busy with few; more only leaves its caches.
_CPU_BUDGET: Final = (32, 8192)
_GPU_BUDGET: Final = (256, 32768)
_FALLBACK_LIMIT: Final = 512
_NO_LIMIT: Final = 1_000_000_000
#: Tokens that take a CPU as long as what a pass costs by itself.
_PASS_OVERHEAD: Final = 40
#: Models whose positions begin behind the index of the padding, so that they have fewer than their table.
_SHIFTED: Final = ("roberta", "camembert", "mpnet", "longformer", "data2vec-text")


class Part(NamedTuple):
    """Some texts of a batch, what the graph says of them, and int64 [texts, tokens], 1 = real token."""

    indexes: list[int]
    outputs: dict[str, Array]
    mask: NDArray[np.int64]


class Texts:
    """A graph that reads texts, with its tokenizer and its configuration.

    limit  the most tokens of a text, those that begin and end it included
    """

    def __init__(self, session: Session, options: LoadOptions, trained_limit: int | None) -> None:
        assert options.source is not None
        self.session = session
        self._options = options
        self.config = read_json(self._beside("config.json"))
        self._tokenizer = Tokenizer.load(self._beside, options.source.origin)
        told = self.config.get("pad_token_id")
        self._pad = told if isinstance(told, int) else self._tokenizer.pad or 0
        self._texts, self._length = _sizes(session)
        self._masked = _MASK in session.inputs
        self.limit = min(
            _limit(self.config, self._pad, self._tokenizer.limit, options.max_seq_length, trained_limit),
            self._length or _NO_LIMIT,
        )
        self._batches = self._rows = 0

    @classmethod
    def load(cls, options: LoadOptions, graph: Path | None = None, trained_limit: int | None = None) -> Texts:
        """Load the graph and what lies beside it. Raises ModelLoadError, DriverMissing."""
        if not options.fast_tokenizer:
            raise ModelLoadError(
                "`fast_tokenizer: false` cannot be used with driver `custom`: it reads `tokenizer.json`",
                hint="leave `fast_tokenizer` out",
            )
        return cls(open_session(graph or graph_of(options), options), options, trained_limit)

    def _beside(self, name: str) -> Path | None:
        return beside(self.session.path, name)

    @property
    def info(self) -> ModelInfo:
        """What it says of itself when it is loaded."""
        return info_of(self.session, self._options, self.limit)

    def budget(self) -> tuple[int, int]:
        """The most rows and the most tokens of one forward pass, padding included."""
        rows, tokens = _CPU_BUDGET if self.session.on_cpu else _GPU_BUDGET
        return self._options.batch_size or rows, driver_options(self._options).max_batch_tokens or tokens

    def tokens(self, text: str, limit: int | None, *, truncate: bool, pair: str | None = None) -> Tokens:
        """The tokens of a text, or of two, at most `limit` of them. Raises RequestTooLong if they are more.

        With `truncate` what is too long is cut, of two texts the longer one.
        """
        limit = min(limit or self.limit, self.limit)
        return self._tokenizer.encode(text, limit, truncate=truncate, pair=pair)

    @property
    def vocabulary(self) -> int:
        """How many different tokens there are."""
        told = self.config.get("vocab_size")
        return told if isinstance(told, int) else self._tokenizer.vocabulary

    def beginning(self, text: str) -> int:
        """How many tokens a text has where another one follows."""
        return self._tokenizer.beginning(text)

    def cost(self, tokens: Tokens) -> int:
        """How many tokens a text takes in a pass."""
        return self._length or len(tokens.ids)

    def run(self, rows: Sequence[Tokens], wanted: Sequence[str]) -> Iterator[Part]:
        """The wanted outputs for texts, part by part of the batch."""
        self._batches += 1
        self._rows += len(rows)
        for indexes in self._parts(rows):
            texts = [rows[i] for i in indexes]
            filled = texts + texts[-1:] * ((self._texts or len(texts)) - len(texts))
            feeds = self._arrays(filled)
            found = self.session.run({name: feeds[name] for name in self.session.inputs}, wanted)
            outputs = {name: array[: len(texts)] for name, array in found.items()}
            yield Part(indexes, outputs, feeds[_MASK][: len(texts)])

    def _parts(self, rows: Sequence[Tokens]) -> list[list[int]]:
        """Which texts go through together: those of like lengths, as many as the graph has room for."""
        lengths = [len(row.ids) for row in rows]
        if self._length is not None or (not self.session.on_cpu and self._masked):
            parts = [list(range(len(rows)))]
        elif self._masked:
            parts = groups(lengths, _PASS_OVERHEAD)
        else:
            parts = [[i for i, n in enumerate(lengths) if n == length] for length in sorted(set(lengths))]
        most = self._texts or len(rows)
        return [part[at : at + most] for part in parts for at in range(0, len(part), most)]

    def _arrays(self, rows: Sequence[Tokens]) -> dict[str, NDArray[np.int64]]:
        shape = len(rows), self._length or max(len(row.ids) for row in rows)
        ids, types, mask = np.full(shape, self._pad), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row.ids)] = row.ids
            mask[i, : len(row.ids)] = 1
            if row.types is not None:
                types[i, : len(row.types)] = row.types
        positions = np.broadcast_to(np.arange(shape[1]), shape)
        return {_IDS: ids, _MASK: mask, _TYPES: types, _POSITIONS: positions}

    def metrics(self) -> dict[str, float]:
        """What it has computed: `rows` / `batches` is how many texts went together."""
        return {"batches": self._batches, "rows": self._rows}


def output_of(session: Session, names: Sequence[str], rank: int) -> Port | None:
    """The output of one of these names; else the only one that there is, if it has so many dimensions."""
    known = [session.outputs[name] for name in names if name in session.outputs]
    candidates = known or (list(session.outputs.values()) if len(session.outputs) == 1 else [])
    return next((port for port in candidates if len(port.shape) == rank), None)


def _sizes(session: Session) -> tuple[int | None, int | None]:
    """How many texts, and how many tokens of each, a graph takes; None: any number. Raises ModelLoadError."""
    strange = [name for name in session.inputs if name not in _INPUTS]
    if strange or _IDS not in session.inputs:
        which = f"wants `{strange[0]}`" if strange else f"has no input `{_IDS}`"
        raise unfit(session, f"does not read texts: it {which}")
    shape = session.inputs[_IDS].shape
    if len(shape) != 2:
        raise unfit(session, f"does not read texts: `{_IDS}` is not [texts, tokens]")
    return shape[0], shape[1]


def _limit(config: dict[str, Any], pad: int, own: int | None, asked: int | None, trained: int | None) -> int:
    """The most tokens: as asked for, as trained, as the tokenizer says; no more than there are positions."""
    told = config.get("max_position_embeddings")
    positions = int(told) if isinstance(told, int) and told > 0 else None
    if positions is not None and str(config.get("model_type")).endswith(_SHIFTED):
        positions -= pad + 1
    return min(asked or trained or own or positions or _FALLBACK_LIMIT, positions or _NO_LIMIT)
