"""What is `task: text-classification`?"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from model_compose.config.convert import converted
from model_compose.config.spec import Positive, TaskDriver, TaskSpec, doc
from model_compose.errors import InvalidInput
from model_compose.types import Result


class TextPair(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Two texts that are judged together, as `transformers` writes them."""

    text: Annotated[str, doc("the first one, such as a query", min_length=1)]
    text_pair: Annotated[str, doc("the second one, such as a document")]


class TextClassification(msgspec.Struct, frozen=True, kw_only=True):
    """Say which of a model's labels fits a text."""

    text: Annotated[
        str,
        doc("the text, or two as a `TextPair`; or a list of either", also=TextPair, many=True, min_length=1),
    ]
    text_pair: Annotated[
        str | None, doc("a second text, for models that judge two together, such as rerankers")
    ] = None
    labels: Annotated[
        tuple[str, ...] | None,
        doc("names of the labels, in the model's order; unset is what the model calls them"),
    ] = None
    return_probabilities: Annotated[bool, doc("also give the probability of every label")] = False
    max_input_length: Annotated[
        Positive | None, doc("most tokens of a text; null is the model's own limit")
    ] = None
    truncate: Annotated[bool, doc("cut a text that is too long; the result then says `truncated`")] = True


class Classification(Result, frozen=True, omit_defaults=True):
    """The label of a text.

    score          its probability; of a model that gives a number and no label, the number
    label_id       its index, from 0
    probabilities  of all labels, in the order of their indexes
    labels         of a model whose labels do not exclude each other: those with 0.5 or more
    """

    label: str
    score: float
    label_id: int
    probabilities: list[float] | None = None
    labels: list[str] | None = None
    truncated: bool = False


def normalise(values: dict[str, Any]) -> dict[str, Any]:
    """Take a pair apart."""
    if not isinstance(values.get("text"), dict):
        return values
    if values.get("text_pair") is not None:
        raise InvalidInput("`text_pair` is given twice", field="text_pair", hint="leave it out beside a pair")
    pair = converted(values["text"], TextPair, "text")
    return {**values, "text": pair.text, "text_pair": pair.text_pair}


SPEC = TaskSpec(
    name="text-classification",
    summary="Says which label fits a text.",
    request=TextClassification,
    result=Classification,
    main="text",
    normalise=normalise,
    verb="classify",
    example={"text": ["I loved every minute of it", "It was far too long"], "return_probabilities": True},
    default_driver="huggingface",
    drivers={
        "huggingface": TaskDriver("model_compose.tasks.text_classification.huggingface:Classifier"),
        "vllm": TaskDriver("model_compose.tasks.text_classification.vllm:Classifier"),
        "custom": TaskDriver(
            "model_compose.tasks.text_classification.custom:Classifier",
            modules=("onnxruntime", "tokenizers", "numpy"),
            extra="onnx",
        ),
    },
)
