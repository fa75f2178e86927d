"""What `check` says of components with `driver: vllm`, where the engine is not installed."""

from __future__ import annotations

import typing

import pytest
from tests.config.projects import errors, project, told, underlined

from model_compose.compose.catalog import BuiltIn
from model_compose.config.spec import fields_of
from model_compose.drivers.vllm.arguments import RANKS
from model_compose.drivers.vllm.spec import REFUSED_ARGUMENTS, LoraRank, VllmOptions
from model_compose.tasks.generation import Generation

CATALOG = BuiltIn()
TEXT = "component: {type: model, task: text-generation, driver: vllm, model: ./weights, %s}"


def messages(keys: str, text: str = TEXT) -> list[str]:
    return told(text % keys, catalog=CATALOG)


@pytest.mark.parametrize(
    "task", ["text-generation", "chat-completion", "text-embedding", "text-classification"]
)
def test_it_does_four_tasks(task: str) -> None:
    text = f"component: {{type: model, task: {task}, driver: vllm, model: owner/weights}}"
    assert told(text, catalog=CATALOG) == []


@pytest.mark.parametrize(
    "keys",
    [
        "options: {max_model_len: 4096, gpu_memory_utilization: 0.5, kv_cache_dtype: fp8}",
        "options: {quantization: fp8, tensor_parallel_size: 2, enforce_eager: true}",
        "options: {attention_backend: FLASH_ATTN, speculative_config: {method: ngram}}",
        "device: cuda, device_mode: auto, batch_size: 32, max_seq_length: 4096, precision: bfloat16",
        "device: 'cuda:1'",
        "options: {trust_remote_code: false}",
        "peft_adapters: [{name: a, model: ./a, weight: '${input.style}'}]",
    ],
)
def test_what_it_has_can_be_written(keys: str) -> None:
    assert messages(keys) == []


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            "quantization: nf4",
            "`quantization` cannot be used with driver `vllm`: vLLM has methods of its own",
        ),
        ("quantization: int8", "`quantization` cannot be used with driver `vllm`"),
        ("low_cpu_mem_usage: true", "`low_cpu_mem_usage` cannot be used with driver `vllm`"),
        ("fast_tokenizer: false", "`fast_tokenizer` cannot be used with driver `vllm`"),
        ("architecture: causal", "`architecture` cannot be used with driver `vllm`"),
        ("device: mps", "vLLM does not compute on `mps`"),
        ("device: cpu, device_mode: auto", "`device_mode: auto` is for all GPUs, and `device` is `cpu`"),
        ("device: 'cuda:1', device_mode: auto", "`device_mode: auto` is for all GPUs"),
        ("device: 'cuda:1', options: {tensor_parallel_size: 2}", "several GPUs are asked for"),
        ("device_mode: auto, options: {tensor_parallel_size: 2}", "`device_mode: auto` takes all GPUs"),
        ("batch_size: 2, options: {max_num_seqs: 2}", "`batch_size` and `max_num_seqs` are the same"),
        (
            "max_seq_length: 9, options: {max_model_len: 9}",
            "`max_seq_length` and `max_model_len` are the same",
        ),
        ("runtime: embedded", "driver `vllm` starts processes of its own, and cannot be embedded"),
        (
            "options: {trust_remote_code: true}",
            "`trust_remote_code` cannot be set for driver `vllm`: code that",
        ),
        ("options: {worker_cls: a.B}", "`worker_cls` cannot be set for driver `vllm`: it names Python code"),
        ("options: {dtype: half}", "`dtype` cannot be set for driver `vllm`: write `precision`"),
        ("options: {enable_lora: true}", "`enable_lora` cannot be set for driver `vllm`: adapters stand in"),
        (
            "options: {max_num_seqs: many}",
            "`max_num_seqs` of `options` of the component: expected an integer",
        ),
        ("options: {kv_cache_dtype: q8_0}", "`kv_cache_dtype` of `options` of the component: expected"),
        ("options: {max_lora_rank: 20}", "`max_lora_rank` of `options` of the component: expected"),
        ("num_beams: 2", "`num_beams` cannot be used here: vLLM has no beam search"),
        ("length_penalty: 2.0", "`length_penalty` cannot be used here"),
        (
            "peft_adapters: [{model: ./a, precision: float32}]",
            "vLLM computes adapters in the number format of",
        ),
    ],
)
def test_what_it_does_not_have_is_refused(keys: str, message: str) -> None:
    (found,) = messages(keys)
    assert found.startswith(message)


def test_gguf_files_are_for_another_driver() -> None:
    text = "component: {type: model, task: text-generation, driver: vllm, model: ./m.gguf}"
    assert told(text, catalog=CATALOG) == [
        "driver `vllm` loads safetensors or pytorch files, and `./m.gguf` is gguf"
    ]


def test_the_mistake_is_where_the_option_is() -> None:
    (error,) = errors(TEXT % "options: {block_size: 32, worker_cls: a.B}", catalog=CATALOG)
    assert underlined(error) == "a.B"


def test_a_slip_in_an_option_is_told_and_the_engine_is_asked() -> None:
    found = project(TEXT % "options: {max_modl_len: 9, max_num_active_seqs: 9}", catalog=CATALOG)
    (warning,) = found.warnings
    assert "is `max_modl_len` meant to be `max_model_len`?" in str(warning)


def test_other_drivers_still_know_all_their_options() -> None:
    (found,) = messages("options: {block_size: 1}", TEXT.replace("vllm", "huggingface"))
    assert found.startswith("unknown field `block_size`")


def test_every_parameter_of_a_task_is_honoured_or_refused_by_name() -> None:
    task = CATALOG.task("text-generation")
    assert task is not None
    refused = task.drivers["vllm"].refuses
    assert set(refused) == {"num_beams", "length_penalty", "early_stopping"}
    assert set(refused) <= {field.name for field in fields_of(Generation)}


def test_names_are_the_engine_s_and_none_is_both_an_option_and_refused() -> None:
    assert REFUSED_ARGUMENTS.keys().isdisjoint(VllmOptions.__struct_fields__)
    assert typing.get_args(LoraRank) == RANKS
