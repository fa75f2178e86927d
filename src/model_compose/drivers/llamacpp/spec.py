"""What can `driver: llamacpp` do? Light: nothing here needs the engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec

from model_compose.config.spec import DriverSpec, Natural, Positive, PositiveFloat, doc

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]

#: Parameters of spec §5.3 that llama.cpp does not have.
GENERATION_REFUSES: Final[Mapping[str, str]] = {
    "min_output_length": "llama.cpp cannot hold back the end of an output",
    "num_beams": "llama.cpp has no beam search",
    "length_penalty": "it belongs to beam search, which llama.cpp does not have",
    "early_stopping": "it belongs to beam search, which llama.cpp does not have",
}


class LlamaCppOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of llama.cpp itself."""

    context_length: Annotated[
        Positive | None,
        doc(
            "tokens of prompt and output together that one request may have; "
            "unset: what the model was trained for, at most 4096"
        ),
    ] = None
    threads: Annotated[
        Positive | None, doc("CPU threads to compute with; unset: all cores that the service may use")
    ] = None
    gpu_layers: Annotated[
        Natural | None, doc("layers on the GPU; unset: all with `device: cuda` or `mps`, none with `cpu`")
    ] = None
    prompt_batch: Annotated[
        Annotated[int, msgspec.Meta(ge=32)] | None,
        doc(
            "prompt tokens computed at once, of one caller or several; a caller who goes away leaves between "
            "two of these; unset: 96 on a CPU, 512 with layers on a GPU"
        ),
    ] = None
    flash_attention: Annotated[
        Literal["auto", "on", "off"], doc("faster attention where the device has it")
    ] = "auto"
    key_cache_type: Annotated[CacheType, doc("number format of the key cache")] = "f16"
    value_cache_type: Annotated[CacheType, doc("number format of the value cache")] = "f16"
    prompt_cache_mib: Annotated[
        int, doc("memory for prompts of earlier requests, in MiB; those in a slot are kept anyway", ge=0)
    ] = 0
    chat_template: Annotated[
        str | None, doc("a Jinja template instead of the model's own; runs inside llama.cpp, in a sandbox")
    ] = None
    pooling: Annotated[
        Literal["mean", "cls", "last"] | None,
        doc("text-embedding: how token vectors become one; unset is what the model says"),
    ] = None
    rope_frequency_base: Annotated[PositiveFloat | None, doc("RoPE base frequency, for longer contexts")] = (
        None
    )
    rope_frequency_scale: Annotated[
        PositiveFloat | None, doc("RoPE frequency scale, for longer contexts")
    ] = None
    memory_map: Annotated[bool, doc("map the file instead of reading it: loads fast, shares pages")] = True


SPEC = DriverSpec(
    name="llamacpp",
    summary="llama.cpp in a worker process, with continuous batching. Runs GGUF files, on a CPU very well.",
    options=LlamaCppOptions,
    extra="llamacpp",
    modules=("xllamacpp",),
    requirements=("xllamacpp>=2026.10,<2027",),
    formats=("gguf",),
    reads=("gguf",),
    refuses={
        "precision": "a GGUF file fixes the number format of its weights",
        "quantization": "a GGUF file is quantized already: choose another file",
        "device_mode": "llama.cpp splits layers by itself: see `options.gpu_layers`",
        "low_cpu_mem_usage": "see `options.memory_map`, which is on",
        "fast_tokenizer": "the tokenizer is in the GGUF file",
        "max_seq_length": "see `options.context_length`",
        "architecture": "the GGUF file says it",
    },
    estimate="model_compose.drivers.llamacpp.size:estimate",
)
