"""What is `task: text-embedding`?"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from model_compose.config.spec import Positive, TaskDriver, TaskSpec, doc
from model_compose.types import Result

Text = Annotated[str, msgspec.Meta(min_length=1)]
#: Of the model's own tokenizer, with those that begin and end a text.
Tokens = Annotated[list[Annotated[int, msgspec.Meta(ge=0)]], msgspec.Meta(min_length=1)]


class TextEmbedding(msgspec.Struct, frozen=True, kw_only=True):
    """Turn texts into vectors whose angles say how near their meanings are."""

    text: Annotated[
        Text | Tokens,
        doc("the text, or its tokens as numbers; or a list of either", aliases=("prompt",), many=True),
    ]
    pooling: Annotated[
        Literal["mean", "cls", "last", "max"] | None,
        doc("how the vectors of the tokens become one; unset is what the model was trained with"),
    ] = None
    normalize: Annotated[
        bool | None,
        doc("scale each vector to length 1; unset is what the model says, and true where it says nothing"),
    ] = None
    prompt_name: Annotated[
        str | None,
        doc("which of the model's own prompts stands before the text, such as `query`; unset is its default"),
    ] = None
    max_input_length: Annotated[
        Positive | None, doc("most tokens of a text; null is the model's own limit")
    ] = None
    truncate: Annotated[bool, doc("cut a text that is too long; the result then says `truncated`")] = True
    dimensions: Annotated[
        Positive | None, doc("keep this many first numbers (for models trained for that)")
    ] = None


class Embedding(Result, frozen=True, omit_defaults=True):
    """The vector of a text."""

    embedding: list[float]
    truncated: bool = False

    def plain(self) -> list[float]:
        """The numbers."""
        return self.embedding


SPEC = TaskSpec(
    name="text-embedding",
    summary="Turns texts into vectors.",
    request=TextEmbedding,
    result=Embedding,
    main="text",
    verb="embed",
    example={"text": ["a cat on a mat", "a kitten on a rug"]},
    default_driver="huggingface",
    drivers={
        "llamacpp": TaskDriver(
            "model_compose.tasks.text_embedding.llamacpp:Embedder",
            {
                "pooling": "it is fixed when the model is loaded: set `options.pooling`",
                "prompt_name": "a GGUF file has no prompts: write it into `text`",
            },
        ),
        "huggingface": TaskDriver("model_compose.tasks.text_embedding.huggingface:Embedder"),
        "vllm": TaskDriver("model_compose.tasks.text_embedding.vllm:Embedder"),
        "custom": TaskDriver(
            "model_compose.tasks.text_embedding.custom:Embedder",
            modules=("onnxruntime", "tokenizers", "numpy"),
            extra="onnx",
        ),
    },
)
