"""What does a request say in the words of the engine?"""

from __future__ import annotations

from typing import Any, Final

from model_compose.errors import InvalidInput
from model_compose.tasks.generation import Generation, ResponseFormat

#: What the engine takes; colder than that it would change the number itself.
_COLDEST: Final = 0.01
_HOTTEST: Final = 2.0


def parameters(request: Generation, room: int) -> dict[str, Any]:
    """Arguments of the engine's `SamplingParams`, but for the form of the output and how it comes.

    room  tokens that the context has for an output
    Raises InvalidInput for what the engine cannot do.
    """
    if not request.greedy and not _COLDEST <= request.temperature <= _HOTTEST:
        raise InvalidInput(
            f"vLLM takes temperatures from {_COLDEST} to {_HOTTEST:g}, not {request.temperature:g}",
            field="temperature",
            hint="0 is greedy",
        )
    most = max(1, min(request.max_output_length, room))
    stop = request.stop_sequences
    return {
        "n": request.num_return_sequences,
        "max_tokens": most,
        "min_tokens": min(request.min_output_length, most),
        "temperature": 0.0 if request.greedy else request.temperature,
        "top_k": request.top_k,
        "top_p": request.top_p,
        "min_p": request.min_p,
        "repetition_penalty": request.repetition_penalty,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "stop": [stop] if isinstance(stop, str) else list(stop),
        "seed": request.seed,
        "logprobs": request.logprobs,
    }


def form(wanted: ResponseFormat | None) -> dict[str, Any] | None:
    """Arguments of `StructuredOutputsParams`: the form that an output must have; None for any text."""
    if wanted is None or wanted.type == "text":
        return None
    return {"json": wanted.json_schema.schema} if wanted.json_schema else {"json_object": True}


def sampling_params(arguments: dict[str, Any], wanted: dict[str, Any] | None, *, streaming: bool) -> Any:
    """The engine's own. Raises InvalidInput, and what the engine raises for values that it does not take."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    kind = RequestOutputKind.DELTA if streaming else RequestOutputKind.FINAL_ONLY
    structured = None if wanted is None else StructuredOutputsParams(**wanted)
    return SamplingParams(**arguments, structured_outputs=structured, output_kind=kind)
