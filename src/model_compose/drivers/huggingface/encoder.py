"""How do texts go through a model that reads each of them once: tokens, padding, threads, budgets?

Encoders and classifiers share this; what they make of the model's output is theirs. Batches are padded on
the right whatever the tokenizer says: there a causal model never looks, and positions begin with 0 for every
row, so a text gets the same among others as alone.

On a CPU time goes by tokens, padding included. So encoders that allow it get several short texts in one row,
and of others, texts of like lengths go through in passes of their own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from model_compose.drivers.contract import LoadOptions, LoadProgress, ModelInfo
from model_compose.drivers.huggingface.load import Auto, Loaded, driver_options, load, load_tokenizer
from model_compose.drivers.huggingface.lora import Adapters
from model_compose.drivers.huggingface.memory import memory_guarded, taken
from model_compose.drivers.huggingface.packing import groups
from model_compose.drivers.huggingface.passes import PACKED_ROW, Passes, Tokens
from model_compose.errors import RequestTooLong

#: Most rows and most tokens of one forward pass. A CPU is busy with few; more only leaves its caches.
_CPU_BUDGET: Final = (32, 8192)
_GPU_BUDGET: Final = (256, 32768)
#: Where neither the model nor its tokenizer has a limit; libraries write 1e30 for none.
_FALLBACK_LIMIT: Final = 512
_NO_LIMIT: Final = 1_000_000_000
#: Tokens that take a CPU as long as what a pass costs by itself.
_PASS_OVERHEAD: Final = 40
#: Tokens of the texts that a model is tried with: short ones, and as long as one that shares a row may be.
_PROBES: Final = (5, PACKED_ROW, 3, 17, 1)


class Encoder:
    """A loaded model with its tokenizer.

    limit  the most tokens of a text, those that begin and end it included
    """

    def __init__(
        self, loaded: Loaded, tokenizer: Any, options: LoadOptions, trained_limit: int | None
    ) -> None:
        self.loaded = loaded
        self.device = loaded.device
        self._options = options
        self._tokenizer = tokenizer
        self._fast = tokenizer.backend_tokenizer if tokenizer.is_fast else None
        self._without_limits()
        typed = "token_type_ids" in tokenizer.model_input_names
        self._passes = Passes(loaded, _pad_token(loaded.model, tokenizer), typed=typed)
        self._packs = False
        self.limit = _limit(self._passes.positions, tokenizer, options.max_seq_length, trained_limit)
        self._batches = self._rows = 0

    @classmethod
    def load(
        cls,
        options: LoadOptions,
        auto: Auto,
        progress: LoadProgress,
        config: Any,
        *,
        trained_limit: int | None = None,
    ) -> Encoder:
        """Load weights and tokenizer, and put the adapters in.

        trained_limit  most tokens of the texts that it was trained with, where that is known to be less
        Raises ModelLoadError, DriverMissing.
        """
        tokenizer = load_tokenizer(options, config)
        config.use_cache = False  # keys and values are for those who write a next token
        loaded = load(options, auto, progress, config)
        if options.adapters:
            Adapters.attach(loaded.model, options.adapters, loaded.dtype)
        return cls(loaded, tokenizer, options, trained_limit)

    @property
    def info(self) -> ModelInfo:
        """What it says of itself when it is loaded."""
        on_cpu = self.device.type == "cpu"
        return ModelInfo(
            slots=1,
            threads=self._options.threads if on_cpu else 1,
            elastic=on_cpu,
            context_length=self.limit,
            details=self.loaded.details,
        )

    def budget(self) -> tuple[int, int]:
        """The most rows and the most tokens of one forward pass, padding included."""
        rows, tokens = _CPU_BUDGET if self.device.type == "cpu" else _GPU_BUDGET
        return self._options.batch_size or rows, driver_options(self._options).max_batch_tokens or tokens

    def tokens(self, text: str, limit: int | None, *, truncate: bool, pair: str | None = None) -> Tokens:
        """The tokens of a text, or of two, at most `limit` of them. Raises RequestTooLong if they are more.

        With `truncate` what is too long is cut, of two texts the longer one.
        """
        limit = min(limit or self.limit, self.limit)
        ids, types = self._tokenize(text, pair)
        if len(ids) <= limit:
            return Tokens(ids, types, False)
        if not truncate:
            raise RequestTooLong(
                f"the text has {len(ids)} tokens, and the limit is {limit}",
                size=len(ids),
                limit=limit,
                field="text",
                hint="shorten it, or set `truncate: true`",
            )
        return Tokens(*self._cut(text, pair, limit), True)

    @property
    def vocabulary(self) -> int:
        """How many different tokens there are."""
        return int(self.loaded.config.get_text_config().vocab_size)

    def beginning(self, text: str) -> int:
        """How many tokens a text has where another one follows: without the one that ends it."""
        ids, _ = self._tokenize(text)
        return len(ids) - (bool(ids) and ids[-1] in self._tokenizer.all_special_ids)

    def _tokenize(self, text: str, pair: str | None = None) -> tuple[list[int], list[int] | None]:
        if self._fast is None:
            return self._parts(self._tokenizer(text, pair))
        # The library's own wrapper takes several times as long for the same tokens.
        found = self._fast.encode(text, pair)
        return found.ids, self._types(found.type_ids)

    def _cut(self, text: str, pair: str | None, limit: int) -> tuple[list[int], list[int] | None]:
        found = self._parts(self._tokenizer(text, pair, truncation=True, max_length=limit))
        self._without_limits()  # the wrapper has told the tokenizer to cut, from now on
        return found

    def _parts(self, found: Mapping[str, list[int]]) -> tuple[list[int], list[int] | None]:
        return found["input_ids"], self._types(found.get("token_type_ids") or [])

    def _types(self, types: list[int]) -> list[int] | None:
        return types if any(types) else None

    def _without_limits(self) -> None:
        if self._fast is not None:
            self._fast.no_truncation()
            self._fast.no_padding()

    @contextlib.contextmanager
    def passing(self, threads: int) -> Iterator[None]:
        """Around a forward pass and what is made of it: threads, memory, no gradients."""
        if self.device.type == "cpu" and torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        with memory_guarded(self.device), torch.inference_mode():
            yield

    def pack(self) -> None:
        """Let short texts share rows from now on, if the model gives the same for them then."""
        if self.device.type == "cpu" and self.limit >= PACKED_ROW:
            with self.passing(self._options.threads):
                self._packs = self._passes.can_pack(_probes(self._tokenizer, self.loaded.model))

    def hidden(self, rows: Sequence[Tokens]) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """The vectors of texts' tokens, part by part of the batch.

        -> indexes of the texts, float [texts, tokens, dim], and int [texts, tokens], 1 = real token
        """
        self._count(rows)
        packed, padded = self._parts_of(rows)
        if packed:
            yield packed, *self._passes.packed([rows[i] for i in packed])
        for part in padded:
            output, mask = self._passes.padded([rows[i] for i in part])
            yield part, output.last_hidden_state, mask

    def logits(self, rows: Sequence[Tokens]) -> Tensor:
        """What a classifier says of texts: float [batch, labels]."""
        self._count(rows)
        packed, padded = self._parts_of(rows)
        found = [self._passes.packed_logits([rows[i] for i in packed])] if packed else []
        found += [self._passes.padded([rows[i] for i in part])[0].logits for part in padded]
        return in_order(found, [packed, *padded])

    def _parts_of(self, rows: Sequence[Tokens]) -> tuple[list[int], list[list[int]]]:
        """Which texts share rows, and which are padded together."""
        lengths = [len(row.ids) for row in rows]
        if self.device.type != "cpu":
            return [], [list(range(len(rows)))]
        packed = [i for i, length in enumerate(lengths) if self._packs and length <= PACKED_ROW]
        rest = [i for i, length in enumerate(lengths) if not self._packs or length > PACKED_ROW]
        parts = groups([lengths[i] for i in rest], _PASS_OVERHEAD)
        return packed, [[rest[i] for i in part] for part in parts]

    def _count(self, rows: Sequence[Tokens]) -> None:
        self._batches += 1
        self._rows += len(rows)

    def metrics(self) -> dict[str, float]:
        """What it has computed: `rows` / `batches` is how many texts went together."""
        return {"batches": self._batches, "rows": self._rows}

    def memory(self) -> dict[str, int]:
        """What it takes on GPUs."""
        return taken()


def in_order(parts: Sequence[Tensor], indexes: Sequence[Sequence[int]]) -> Tensor:
    """The rows of parts of a batch, in the order of the batch."""
    order = torch.tensor([i for part in indexes for i in part], device=parts[0].device)
    return torch.cat(tuple(parts))[order.argsort()]


def _probes(tokenizer: Any, model: Any) -> list[Tokens]:
    """Texts of tokens that mean nothing special, such as padding."""
    special = set(tokenizer.all_special_ids)
    words = [i for i in range(model.config.get_text_config().vocab_size) if i not in special]
    return [Tokens([words[i * 7919 % len(words)] for i in range(n)], None, False) for n in _PROBES]


def _pad_token(model: Any, tokenizer: Any) -> int:
    """What fills the rows up. Classifiers on top of a language model look for it to find a text's end."""
    told = model.config.get_text_config().pad_token_id
    if told is not None:
        return int(told)
    pad = tokenizer.pad_token_id
    pad = tokenizer.eos_token_id if pad is None else pad
    model.config.get_text_config().pad_token_id = model.config.pad_token_id = pad or 0
    return pad or 0


def _limit(positions: int | None, tokenizer: Any, asked: int | None, trained: int | None) -> int:
    """The most tokens: as asked for, as trained, as the tokenizer says; no more than there are positions."""
    own = tokenizer.model_max_length
    wanted = asked or trained or (own if own < _NO_LIMIT else None)
    return min(wanted or positions or _FALLBACK_LIMIT, positions or _NO_LIMIT)
