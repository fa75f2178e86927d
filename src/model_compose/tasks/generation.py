"""What do all tasks that generate text have in common?

Names and defaults follow spec §5.3: `max_output_length` counts new tokens, temperature 0 is greedy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

import msgspec

from model_compose.config.spec import Positive, doc
from model_compose.drivers.contract import Outcome
from model_compose.errors import InvalidInput, RequestTooLong
from model_compose.types import FinishReason, Result, Usage

#: Engines keep seeds in 32 bits, and take the largest value of those for "random".
RANDOM_SEED: Final = 2**32 - 1
Seed = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 2)]

#: Of an adapter. Far beyond it a model only gives numbers that are none.
AdapterWeight = Annotated[float, msgspec.Meta(ge=-100, le=100)]

#: An empty one would end every output before it begins.
Stop = Annotated[str, msgspec.Meta(min_length=1)]

#: Below this, dividing by it gives infinities; what is meant is 0.
COLDEST: Final = 1e-6


class JsonSchema(msgspec.Struct, frozen=True):
    """A JSON Schema that the output must satisfy, under OpenAI's names."""

    schema: Annotated[dict[str, Any], doc("the JSON Schema itself")]
    name: Annotated[str, doc("a name for it; models do not see it")] = "output"
    strict: Annotated[bool, doc("always true here: the grammar leaves no other way")] = True


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    """The form that the output must have."""

    type: Annotated[
        Literal["text", "json_object", "json_schema"],
        doc("`text` is free, `json_object` any JSON, `json_schema` what `json_schema` describes"),
    ]
    json_schema: Annotated[JsonSchema | None, doc("with `type: json_schema`")] = None

    def __post_init__(self) -> None:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("`type: json_schema` needs a `json_schema`, and no other type takes one")


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of every task that generates text."""

    max_output_length: Annotated[
        int, doc("most new tokens; the model's context may end the output earlier", ge=1, le=2**31 - 1)
    ] = 1024
    min_output_length: Annotated[int, doc("fewest new tokens", ge=1)] = 1
    max_input_length: Annotated[
        Positive | None, doc("most tokens of the prompt; null is what the context leaves")
    ] = None
    truncate: Annotated[bool, doc("cut a prompt that is too long from its start, instead of refusing it")] = (
        False
    )
    num_return_sequences: Annotated[int, doc("how many outputs for one prompt", ge=1, le=64)] = 1
    do_sample: Annotated[bool, doc("false is greedy, whatever the temperature says")] = True
    temperature: Annotated[float, doc("0 is greedy; higher is less predictable", ge=0, le=5)] = 0.7
    top_k: Annotated[int, doc("sample from this many most likely tokens; 0 is all", ge=0, le=2**31 - 1)] = 50
    top_p: Annotated[float, doc("sample from the fewest tokens with this much probability", gt=0, le=1)] = 0.9
    min_p: Annotated[
        float, doc("leave out tokens less likely than this share of the likeliest", ge=0, le=1)
    ] = 0.0
    repetition_penalty: Annotated[
        float, doc("above 1, tokens that occurred, the prompt's included, become less likely", ge=0.01, le=10)
    ] = 1.0
    presence_penalty: Annotated[float, doc("subtracted once from tokens that occurred", ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[
        float, doc("subtracted for each time that a token occurred", ge=-2, le=2)
    ] = 0.0
    num_beams: Annotated[int, doc("beams of a beam search; 1 is none", ge=1)] = 1
    length_penalty: Annotated[float, doc("with beams: above 0 favours long outputs")] = 1.0
    early_stopping: Annotated[bool, doc("with beams: stop as soon as enough are complete")] = True
    stop_sequences: Annotated[
        tuple[Stop, ...] | Stop, doc("texts that end the output and are not part of it", aliases=("stop",))
    ] = ()
    seed: Annotated[
        Seed | None, doc("same seed, same output, as far as the arithmetic of the engine allows")
    ] = None
    response_format: Annotated[ResponseFormat | None, doc("force the output to be JSON, or this JSON")] = None
    logprobs: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=20)] | None,
        doc("with each token its log probability and those of so many others"),
    ] = None
    adapters: Annotated[
        dict[str, AdapterWeight] | None,
        doc("weights of the component's `peft_adapters` for this request, by name; others count 0"),
    ] = None

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return not self.do_sample or self.temperature < COLDEST


class TextDelta(Result, frozen=True, array_like=True, omit_defaults=True):
    """A piece of generated text. `index` says of which of several outputs."""

    text: str
    index: int = 0
    reasoning: str = ""
    logprobs: list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None

    def plain(self) -> str | None:
        """The text; null if this piece has none, because it is reasoning or part of a tool call."""
        return self.text or None


class Completion(Result, frozen=True, omit_defaults=True):
    """A generated text, without its prompt and without special tokens.

    `reasoning` is what a model that thinks aloud said before its answer.
    """

    text: str
    finish_reason: FinishReason = "stop"
    usage: Usage = Usage()
    reasoning: str = ""
    tool_calls: list[dict[str, Any]] | None = None
    logprobs: list[dict[str, Any]] | None = None

    def plain(self) -> Any:
        """The text; the whole message if the model called tools, because then the text is not all."""
        if self.tool_calls:
            return {"role": "assistant", "content": self.text or None, "tool_calls": self.tool_calls}
        return self.text


def streams(request: Generation) -> bool:
    """Several outputs at once would be mixed up in one stream of texts."""
    return request.num_return_sequences == 1


#: One output, or a list of them with `num_return_sequences` above 1.
Completions = Completion | list[Completion]


def input_limit(request: Generation, context: int) -> int:
    """The most prompt tokens of a request, in a context that holds prompt and output together."""
    limit = min(request.max_input_length or context, context)
    if not request.truncate:
        return limit
    # A prompt that is cut leaves room for the output, but never gives up half of the context.
    return min(limit, max(context - request.max_output_length, context // 2))


def too_long(size: int, limit: int, context: int) -> RequestTooLong:
    """What is said of a prompt of so many tokens that may not be cut."""
    if limit < context:
        what, hint = "`max_input_length` is", "shorten it, or set `truncate: true`"
    else:
        what = "the context holds"
        hint = "shorten it, set `truncate: true`, or take a model with a longer context"
    return RequestTooLong(
        f"the prompt has {size} tokens, and {what} {limit}", size=size, limit=limit, hint=hint
    )


def refuse_equal_outputs(request: Generation) -> None:
    """Raise InvalidInput for several outputs that would all be the same."""
    if request.num_return_sequences > 1 and request.greedy and request.num_beams == 1:
        raise InvalidInput(
            "several outputs of greedy decoding would all be the same",
            field="num_return_sequences",
            hint="set a temperature above 0 and leave `do_sample` true",
        )


def refuse_more_outputs_than_beams(request: Generation) -> None:
    """Raise InvalidInput for more outputs than a beam search has at its end."""
    if request.num_return_sequences > request.num_beams > 1:
        raise InvalidInput(
            f"{request.num_return_sequences} outputs of {request.num_beams} beams",
            field="num_return_sequences",
            hint="ask for as many beams as outputs, or more",
        )


def outcome_of(completions: Sequence[Completion]) -> Outcome:
    """The outcome of a request with these outputs; its prompt is counted once."""
    first = completions[0]
    if len(completions) == 1:
        return Outcome(first, first.usage, first.finish_reason)
    tokens = sum(each.usage.completion_tokens for each in completions)
    usage = msgspec.structs.replace(first.usage, completion_tokens=tokens)
    return Outcome(list(completions), usage, first.finish_reason)
