"""What is `task: text-generation`?"""

from __future__ import annotations

from typing import Annotated

from model_compose.config.spec import TaskDriver, TaskSpec, doc
from model_compose.drivers.huggingface.spec import GENERATION_REFUSES as HUGGINGFACE_REFUSES
from model_compose.drivers.llamacpp.spec import GENERATION_REFUSES as LLAMACPP_REFUSES
from model_compose.drivers.unsloth.spec import GENERATION_REFUSES as UNSLOTH_REFUSES
from model_compose.drivers.vllm.spec import GENERATION_REFUSES as VLLM_REFUSES
from model_compose.tasks.generation import Completions, Generation, TextDelta, streams


class TextGeneration(Generation, frozen=True, kw_only=True):
    """Continue a text."""

    prompt: Annotated[str, doc("the text to continue", aliases=("text",), many=True, min_length=1)]


SPEC = TaskSpec(
    name="text-generation",
    summary="Continues a text.",
    request=TextGeneration,
    result=Completions,
    chunk=TextDelta,
    streams=streams,
    main="prompt",
    verb="generate",
    example={"prompt": "Once upon a time", "max_output_length": 30, "temperature": 0.0},
    default_driver="huggingface",
    drivers={
        "llamacpp": TaskDriver("model_compose.tasks.text_generation.llamacpp:Generator", LLAMACPP_REFUSES),
        "huggingface": TaskDriver(
            "model_compose.tasks.text_generation.huggingface.model:Generator", HUGGINGFACE_REFUSES
        ),
        "unsloth": TaskDriver("model_compose.tasks.text_generation.unsloth:Generator", UNSLOTH_REFUSES),
        "vllm": TaskDriver("model_compose.tasks.text_generation.vllm.model:Generator", VLLM_REFUSES),
    },
)
