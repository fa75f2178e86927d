"""How does each architecture look at images, and how is it asked for the next token?"""

from __future__ import annotations

import model_compose.drivers.huggingface.lean  # isort: skip  # noqa: F401  before all of the library

import inspect
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar, Final

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache

from model_compose.errors import ModelLoadError

#: Where a configuration does not say how many tokens the decoder has places for.
_FALLBACK_POSITIONS: Final = 512
#: Of the differences between a pass through the cache and a plain one, relative to the largest logit.
_TOLERANCE: Final = 0.05


class Architecture:
    """A loaded model, and what its kind needs.

    start       the token that stands before every output, and before the prompt
    ends        tokens that end an output
    positions   tokens that it has places for, from the start on
    vocabulary  how many tokens it chooses among
    """

    #: The class of transformers that it is, as a configuration names it.
    class_name: ClassVar[str]
    #: Whether the text of a caller can stand before the output.
    prompts: ClassVar[bool] = True

    def __init__(self, model: Any, config: Any, tokenizer: Any) -> None:
        """config  that of the part which writes"""
        self.model = model
        self.start = self._start(config, tokenizer)
        self.ends = self._ends(config, tokenizer)
        self.positions = int(getattr(config, "max_position_embeddings", None) or _FALLBACK_POSITIONS)
        self.vocabulary = int(config.vocab_size)

    def _start(self, config: Any, tokenizer: Any) -> int:
        raise NotImplementedError

    def _ends(self, config: Any, tokenizer: Any) -> tuple[int, ...]:
        own = self.model.generation_config
        told = (None if own is None else own.eos_token_id, config.eos_token_id, tokenizer.eos_token_id)
        return next((ids for ids in map(_ids, told) if ids), ())

    def cache(self) -> Cache:
        """An empty one."""
        return EncoderDecoderCache(DynamicCache(), DynamicCache())

    def look(self, pixels: Tensor) -> Tensor:
        """What is kept of the images; float [images, ...]"""
        raise NotImplementedError

    def read(self, ids: Tensor, mask: Tensor, cache: Cache, seen: Tensor | None) -> Tensor:
        """Compute the next tokens of each row; -> the logits behind the last, [rows, vocabulary].

        ids   int [rows, tokens], padded on the left
        mask  int [rows, all tokens so far], 1 = real token
        seen  what was kept of the image of each row
        """
        raise NotImplementedError

    def generating(self, pixels: Tensor) -> Any:
        """A model with the `generate` of the library, that looks at these images whatever it is asked."""
        return SimpleNamespace(
            config=SimpleNamespace(is_encoder_decoder=not self.prompts),
            generation_config=SimpleNamespace(
                bos_token_id=self.start,
                decoder_start_token_id=self.start,
                pad_token_id=next(iter(self.ends), 0),
            ),
            generate=lambda **asked: self._generate(pixels, asked),
        )

    def _generate(self, pixels: Tensor, asked: dict[str, Any]) -> Tensor:
        raise NotImplementedError


class Blip(Architecture):
    """The text decoder looks at the image in every layer; a prompt is the beginning of a caption."""

    class_name = "BlipForConditionalGeneration"

    def __init__(self, model: Any, config: Any, tokenizer: Any) -> None:
        self._decoder = model.text_decoder
        self._names = _names(self._decoder)
        super().__init__(model, config.text_config, tokenizer)

    def _start(self, config: Any, tokenizer: Any) -> int:
        return int(config.bos_token_id)

    def _ends(self, config: Any, tokenizer: Any) -> tuple[int, ...]:
        # Its `eos_token_id` is a token of BERT that it never says.
        return (int(config.sep_token_id),)

    def look(self, pixels: Tensor) -> Tensor:
        seen: Tensor = self.model.vision_model(pixel_values=pixels).last_hidden_state
        return seen

    def read(self, ids: Tensor, mask: Tensor, cache: Cache, seen: Tensor | None) -> Tensor:
        out = self._decoder(
            input_ids=ids,
            attention_mask=mask,
            position_ids=_places(mask, ids.shape[1]),
            encoder_hidden_states=seen,
            use_cache=True,
            is_decoder=True,
            **_given(self._names, cache),
        )
        return _last(out)

    def _generate(self, pixels: Tensor, asked: dict[str, Any]) -> Tensor:
        found: Tensor = self._decoder.generate(encoder_hidden_states=self.look(pixels), **asked)
        return found


class Git(Architecture):
    """The image stands before the text, as so many tokens; a prompt is a question."""

    class_name = "GitForCausalLM"

    def __init__(self, model: Any, config: Any, tokenizer: Any) -> None:
        self._names = _names(model)
        if config.num_image_with_embedding is not None:
            raise ModelLoadError(
                f"the weights are for videos of {config.num_image_with_embedding} images",
                hint="choose weights that were trained for single images, such as `microsoft/git-base-coco`",
            )
        super().__init__(model, config, tokenizer)

    def _start(self, config: Any, tokenizer: Any) -> int:
        return _first(self.model.generation_config.bos_token_id, config.bos_token_id, tokenizer.cls_token_id)

    def cache(self) -> Cache:
        return DynamicCache()

    def look(self, pixels: Tensor) -> Tensor:
        return pixels  # its layers read image and text together

    def read(self, ids: Tensor, mask: Tensor, cache: Cache, seen: Tensor | None) -> Tensor:
        out = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=_places(mask, ids.shape[1]),
            pixel_values=seen if cache.get_seq_length() == 0 else None,
            use_cache=True,
            **_given(self._names, cache),
        )
        return _last(out)

    def _generate(self, pixels: Tensor, asked: dict[str, Any]) -> Tensor:
        found: Tensor = self.model.generate(pixel_values=pixels, **asked)
        return found


class EncoderDecoder(Architecture):
    """Any encoder of images with any decoder of texts. It was trained without prompts."""

    class_name = "VisionEncoderDecoderModel"
    prompts = False

    def __init__(self, model: Any, config: Any, tokenizer: Any) -> None:
        self._own = config
        self._names = _names(model)
        super().__init__(model, config.decoder, tokenizer)

    def _start(self, config: Any, tokenizer: Any) -> int:
        told = self.model.generation_config
        return _first(
            getattr(told, "decoder_start_token_id", None),
            getattr(self._own, "decoder_start_token_id", None),
            getattr(told, "bos_token_id", None),
            config.bos_token_id,
        )

    def look(self, pixels: Tensor) -> Tensor:
        seen: Tensor = self.model.encoder(pixel_values=pixels).last_hidden_state
        return seen

    def read(self, ids: Tensor, mask: Tensor, cache: Cache, seen: Tensor | None) -> Tensor:
        # Nothing is padded where nobody has a prompt, and not every decoder takes positions.
        out = self.model(
            decoder_input_ids=ids, encoder_outputs=(seen,), use_cache=True, **{self._names["cache"]: cache}
        )
        return _last(out)

    def _generate(self, pixels: Tensor, asked: dict[str, Any]) -> Tensor:
        without = {key: value for key, value in asked.items() if key not in ("input_ids", "attention_mask")}
        found: Tensor = self.model.generate(pixel_values=pixels, **without)
        return found


#: By the `model_type` of a configuration.
ARCHITECTURES: Final[Mapping[str, type[Architecture]]] = {
    "blip": Blip,
    "git": Git,
    "vision-encoder-decoder": EncoderDecoder,
}


class Passes:
    """Forward passes of the rows of a batch, from their images on.

    pixels   float [rows, channels, height, width]
    prompts  tokens of each row, the one that starts every output first
    """

    def __init__(self, how: Architecture, pixels: Tensor, prompts: Sequence[Sequence[int]]) -> None:
        width = max(map(len, prompts))
        pads = [width - len(ids) for ids in prompts]
        rows = [[ids[0]] * pad + list(ids) for pad, ids in zip(pads, prompts, strict=True)]
        self._how = how
        self._device = pixels.device
        self._mask = self._tensor([[0] * pad + [1] * (width - pad) for pad in pads])
        self._cache = how.cache()
        self._seen = how.look(pixels)
        self.logits = how.read(self._tensor(rows), self._mask, self._cache, self._seen)

    def _tensor(self, numbers: Sequence[Any]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=self._device)

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; one may stand there several times."""
        if list(rows) == list(range(len(self.logits))):
            return
        chosen = self._tensor(rows)
        self._cache.batch_select_indices(chosen)
        self._mask, self._seen, self.logits = self._mask[chosen], self._seen[chosen], self.logits[chosen]

    def add(self, tokens: Sequence[int]) -> None:
        """Read a token for each row."""
        self._mask = torch.cat((self._mask, self._mask.new_ones((len(tokens), 1))), 1)
        ids = self._tensor([[token] for token in tokens])
        self.logits = self._how.read(ids, self._mask, self._cache, self._seen)


def agrees(how: Architecture, pixels: Tensor) -> bool:
    """Whether tokens read one by one give what all of them give together."""
    ids = [how.start, *[(7 * i + 3) % how.vocabulary for i in range(4)]]
    plain = Passes(how, pixels, [ids]).logits
    passes = Passes(how, pixels, [ids[:1]])
    for token in ids[1:]:
        passes.add([token])
    return bool((passes.logits - plain).abs().max() <= _TOLERANCE * plain.abs().max())


def _names(model: Any) -> dict[str, str]:
    """What this version of the library calls the parameters that not all versions have."""
    takes = inspect.signature(model.forward).parameters
    names = {"cache": "cache" if "cache" in takes else "past_key_values"}
    return names | ({"last": "logits_to_keep"} if "logits_to_keep" in takes else {})


def _given(names: Mapping[str, str], cache: Cache) -> dict[str, Any]:
    return {names["cache"]: cache, **({names["last"]: 1} if "last" in names else {})}


def _places(mask: Tensor, width: int) -> Tensor:
    """The positions of the last tokens of each row, counted without its padding."""
    return (mask.cumsum(-1) - 1).clamp(min=0)[:, -width:]


def _last(out: Any) -> Tensor:
    logits: Tensor = out.logits[:, -1].float()
    return logits


def _ids(*told: Any) -> tuple[int, ...]:
    """All tokens that are told, as one number or as several."""
    each = [token for one in told for token in (one if isinstance(one, list | tuple) else [one])]
    return tuple(dict.fromkeys(token for token in each if isinstance(token, int)))


def _first(*told: Any) -> int:
    found = _ids(*told)
    if not found:
        raise ModelLoadError("the configuration does not tell the token that an output starts with")
    return found[0]
