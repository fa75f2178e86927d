"""What can `driver: vllm` do? Light: nothing here needs the engine."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec

from model_compose.config.spec import DriverSpec, Natural, Positive, Report, doc, fields_of
from model_compose.drivers.huggingface.spec import ChatTemplate

#: What the engine can make room for.
LoraRank = Literal[1, 8, 16, 32, 64, 128, 256, 320, 512]
CacheType = Literal["auto", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2"]

#: Parameters of tasks that generate text which this engine does not have.
GENERATION_REFUSES: Final[Mapping[str, str]] = {
    "num_beams": "vLLM has no beam search",
    "length_penalty": "it belongs to beam search, which vLLM does not have",
    "early_stopping": "it belongs to beam search, which vLLM does not have",
}

#: How like each other two names are of which one is the other with a slip: others of the engine's are not.
_MISSPELLED: Final = 0.88

_CODE: Final = "it names Python code, which would run inside the engine"
_SOURCE: Final = "the source of the weights says it: see `model`"

#: Arguments of the engine that are not the file's to give, each with the reason.
REFUSED_ARGUMENTS: Final[Mapping[str, str]] = {
    "trust_remote_code": "code that comes with weights is not run by this driver",
    **dict.fromkeys(
        (
            *("worker_cls", "worker_extension_cls", "scheduler_cls", "logits_processors"),
            *("model_class_overrides", "io_processor_plugin", "reasoning_parser_plugin"),
        ),
        _CODE,
    ),
    **dict.fromkeys(
        (
            *("model", "model_weights", "tokenizer", "revision", "code_revision", "tokenizer_revision"),
            *("hf_token", "download_dir", "allowed_local_media_path"),
        ),
        _SOURCE,
    ),
    "dtype": "write `precision`",
    "device_ids": "write `device: cuda:N`",
    "enable_lora": "adapters stand in `peft_adapters`",
    **dict.fromkeys(("lora_dtype", "max_cpu_loras"), "it follows from `peft_adapters`"),
    **dict.fromkeys(("runner", "convert", "pooler_config", "skip_tokenizer_init"), "it follows from `task`"),
    **dict.fromkeys(
        ("disable_log_stats", "enable_log_requests", "log_level", "logging_config", "log_config_file"),
        "the service measures and logs by itself",
    ),
    "served_model_name": "write `aliases`",
}


class VllmOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of vLLM itself, by its own names; others of its engine arguments may stand beside them."""

    max_model_len: Annotated[
        Positive | None,
        doc("tokens of prompt and output together that one request may have; unset: what the model has"),
    ] = None
    gpu_memory_utilization: Annotated[
        Annotated[float, msgspec.Meta(gt=0, le=1)] | None,
        doc("share of each GPU's memory that the engine takes; unset: vLLM's own default"),
    ] = None
    kv_cache_memory_bytes: Annotated[
        Positive | None,
        doc(
            "memory for keys and values, in bytes; unset: on a GPU what is left, on a CPU 1 GiB, or half of "
            "the weights if that is more"
        ),
    ] = None
    kv_cache_dtype: Annotated[CacheType, doc("number format of keys and values")] = "auto"
    quantization: Annotated[
        str | None,
        doc("how vLLM quantizes the weights, such as `fp8`; unset: what the checkpoint says, such as AWQ"),
    ] = None
    enforce_eager: Annotated[
        bool, doc("neither compile the model nor record graphs: starts sooner, computes slower")
    ] = False
    max_num_seqs: Annotated[
        Positive | None, doc("sequences at once, the same as `batch_size`; unset: vLLM's own default")
    ] = None
    max_num_batched_tokens: Annotated[
        Positive | None, doc("most tokens in one step, those of prompts included; unset: vLLM's own default")
    ] = None
    enable_prefix_caching: Annotated[
        bool | None, doc("keep what was computed of prompts that begin alike; unset: where the model can")
    ] = None
    enable_chunked_prefill: Annotated[
        bool | None, doc("compute long prompts in parts, between steps of others; unset: where the model can")
    ] = None
    tensor_parallel_size: Annotated[
        Positive | None, doc("GPUs that share each layer; unset: 1, with `device_mode: auto` all")
    ] = None
    pipeline_parallel_size: Annotated[int, doc("groups of GPUs that have different layers", ge=1)] = 1
    cpu_offload_gb: Annotated[float, doc("weights of each GPU that stay in RAM, in GiB", ge=0)] = 0.0
    max_loras: Annotated[
        Positive | None, doc("blends of adapters in one step; unset: 1, or as many as there are adapters")
    ] = None
    max_lora_rank: Annotated[
        LoraRank | None, doc("highest rank of a blend of adapters; unset: that of all of them together")
    ] = None
    seed: Annotated[Natural, doc("for requests that have no seed of their own")] = 0
    chat_template: ChatTemplate = None


def _check(config: Any, options: Any, report: Report) -> None:
    for name, reason in REFUSED_ARGUMENTS.items():
        if config.options.get(name) not in (None, False):
            report.error(f"`{name}` cannot be set for driver `vllm`: {reason}", "options", name)
    _check_devices(config, options, report)
    for key, option in (("batch_size", "max_num_seqs"), ("max_seq_length", "max_model_len")):
        if getattr(config, key) is not None and getattr(options, option) is not None:
            report.error(f"`{key}` and `{option}` are the same for driver `vllm`", "options", option)
    if config.embedded:
        hint = "leave `runtime` out, or name a Python environment that has vLLM"
        report.error(
            "driver `vllm` starts processes of its own, and cannot be embedded", "runtime", hint=hint
        )
    for i, adapter in enumerate(config.peft_adapters):
        if adapter.precision not in (None, "auto", config.precision):
            message = "vLLM computes adapters in the number format of the model"
            report.error(message, "peft_adapters", i, "precision", hint="leave it out")
    known = [field.name for field in fields_of(VllmOptions)]
    for name in config.options:
        if name not in known and name not in REFUSED_ARGUMENTS:
            near = difflib.get_close_matches(name, known, n=1, cutoff=_MISSPELLED)
            if near:
                report.warn(
                    f"is `{name}` meant to be `{near[0]}`? vLLM is asked when it loads", "options", name
                )


def _check_devices(config: Any, options: Any, report: Report) -> None:
    parallel = options.tensor_parallel_size is not None or options.pipeline_parallel_size > 1
    if config.device == "mps":
        report.error("vLLM does not compute on `mps`", "device", hint="`driver: huggingface` does")
    if config.device_mode != "auto":
        if parallel and ":" in config.device:
            report.error(f"several GPUs are asked for, and `device` is `{config.device}`", "device")
        return
    if config.device == "cpu" or ":" in config.device:
        report.error(f"`device_mode: auto` is for all GPUs, and `device` is `{config.device}`", "device_mode")
    elif options.tensor_parallel_size is not None:
        message = "`device_mode: auto` takes all GPUs, and `tensor_parallel_size` says how many"
        report.error(message, "options", "tensor_parallel_size", hint="write one of the two")


SPEC = DriverSpec(
    name="vllm",
    summary="vLLM's engine behind a worker process: much throughput for many callers, best on GPUs.",
    options=VllmOptions,
    modules=("vllm",),
    requirements=("vllm>=0.32,<0.34",),
    reads=("safetensors", "pytorch"),
    refuses={
        "quantization": "vLLM has methods of its own: write `options: {quantization: fp8}`, or name weights "
        "that are quantized already (AWQ, GPTQ, compressed-tensors), which it recognises",
        "low_cpu_mem_usage": "vLLM reads weights tensor by tensor anyway",
        "fast_tokenizer": "vLLM uses fast tokenizers only",
        "architecture": "the configuration of the weights says it",
    },
    estimate="model_compose.drivers.vllm.size:estimate",
    check=_check,
    more_options=True,
)
