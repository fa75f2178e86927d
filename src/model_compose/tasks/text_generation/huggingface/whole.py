"""How is a request served that cannot share forward passes: by the library's own `generate`?

Beam search, encoder-decoder models, and architectures that keep other things than keys and values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
import torch
from transformers import GenerationConfig, LogitsProcessor, StoppingCriteria

from model_compose.drivers.huggingface.load import Loaded
from model_compose.errors import Cancelled
from model_compose.tasks.generation import Generation
from model_compose.tasks.text_generation.huggingface.output import Output
from model_compose.tasks.text_generation.huggingface.sampling import not_finite

_TOKENS: Final = (
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"),
    *("forced_bos_token_id", "forced_eos_token_id"),
)


class Request(msgspec.Struct, frozen=True, eq=False):
    """A request and the outputs that it will have."""

    request: Generation
    prompt: list[int]
    blend: tuple[float, ...]
    outputs: list[Output]

    def end(self, error: BaseException | None = None) -> None:
        """All of its outputs have ended."""
        for output in self.outputs:
            output.end(error)


def generate(loaded: Loaded, request: Request, between: Callable[[], None]) -> None:
    """Serve a request, whose outputs are then complete. `between` is called after each step, for others.

    The text of a single output is passed on as it comes, that of several at the end.
    """
    asked, model = request.request, loaded.model
    alone = len(request.outputs) == 1 and asked.num_beams == 1
    if asked.seed is not None:
        torch.manual_seed(asked.seed)
    ids = torch.tensor([request.prompt], device=loaded.device)
    given: dict[str, Any] = {"streamer": _Streamer(request.outputs[0])} if alone else {}
    found = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        generation_config=_config(asked, model.generation_config, request.outputs[0]),
        stopping_criteria=[_Between(request, between)],
        logits_processor=[_Penalties(asked, 0 if model.config.is_encoder_decoder else ids.shape[1])],
        **given,
    )
    if request.outputs[0].cancelled:
        raise Cancelled("the caller went away")
    if not alone:
        begin = 1 if model.config.is_encoder_decoder else ids.shape[1]
        for output, tokens in zip(request.outputs, found.tolist(), strict=True):
            for token in tokens[begin:]:
                output.take(token)
                if output.finish_reason is not None:
                    break


def _config(asked: Generation, own: Any, output: Output) -> Any:
    sampling = (
        {"do_sample": False}
        if asked.greedy
        else {
            "do_sample": True,
            "temperature": asked.temperature,
            "top_k": asked.top_k,
            "top_p": asked.top_p,
            "min_p": asked.min_p or None,
        }
    )
    beams = (
        {}
        if asked.num_beams == 1
        else {
            "num_beams": asked.num_beams,
            "length_penalty": asked.length_penalty,
            "early_stopping": asked.early_stopping,
        }
    )
    tokens = {name: getattr(own, name, None) for name in _TOKENS}
    if tokens["pad_token_id"] is None:
        tokens["pad_token_id"] = next(iter(output.ends), 0)
    return GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=output.most - output.length,
        min_new_tokens=asked.min_output_length,
        repetition_penalty=asked.repetition_penalty,
        num_return_sequences=asked.num_return_sequences,
        **{**tokens, "eos_token_id": sorted(output.ends) or None},
        **sampling,
        **beams,
    )


class _Streamer:
    """Takes tokens from `generate` one by one."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._begun = False

    def put(self, value: torch.Tensor) -> None:
        """The prompt, or the token that an encoder-decoder model begins with; then one token each time."""
        if self._begun and self._output.finish_reason is None:
            self._output.take(int(value.item()))
        self._begun = True

    def end(self) -> None:
        """Nothing to do."""


class _Between(StoppingCriteria):
    """Stops what nobody waits for or what a stop sequence has ended, and lets others compute."""

    def __init__(self, request: Request, between: Callable[[], None]) -> None:
        self._outputs = request.outputs
        self._between = between

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self._between()
        first = self._outputs[0]
        stop = first.cancelled or (len(self._outputs) == 1 and first.finish_reason is not None)
        return torch.full((input_ids.shape[0],), stop, device=input_ids.device)


class _Penalties(LogitsProcessor):
    """Presence and frequency penalties, which the library does not have.

    What is no number is an error here: sampled from on a GPU, it would take that from the process.
    """

    def __init__(self, asked: Generation, prompt_length: int) -> None:
        self._presence = asked.presence_penalty
        self._frequency = asked.frequency_penalty

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not bool((scores.amax(-1) < torch.inf).all()):  # nor is what is no number
            raise not_finite()
        if not (self._presence or self._frequency):
            return scores
        counts = torch.zeros_like(scores).scatter_add_(
            1, input_ids, torch.ones_like(input_ids, dtype=scores.dtype)
        )
        return scores - self._frequency * counts - self._presence * (counts > 0)
