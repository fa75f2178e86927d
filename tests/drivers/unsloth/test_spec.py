"""What `check` says of components with `driver: unsloth`, where the engine is not installed."""

from __future__ import annotations

import msgspec
import pytest
from tests.config.projects import errors, told

from model_compose.compose.catalog import BuiltIn
from model_compose.drivers.huggingface.spec import HuggingFaceOptions
from model_compose.drivers.unsloth.spec import UnslothOptions

CATALOG = BuiltIn()
TEXT = "component: {type: model, task: text-generation, driver: unsloth, model: ./weights, %s}"


def messages(keys: str) -> list[str]:
    return told(TEXT % keys, catalog=CATALOG)


@pytest.mark.parametrize("task", ["text-generation", "chat-completion"])
def test_it_does_two_tasks(task: str) -> None:
    text = f"component: {{type: model, task: {task}, driver: unsloth, model: unsloth/llama-2-7b-bnb-4bit}}"
    assert told(text, catalog=CATALOG) == []


@pytest.mark.parametrize(
    "keys",
    [
        "quantization: {type: nf4, double_quant: true}",
        "precision: bfloat16, quantization: {type: nf4, double_quant: true, compute_dtype: bfloat16}",
        "device: cuda, device_mode: auto, max_seq_length: 4096, batch_size: 4",
        "peft_adapters: [{name: a, model: ./a, weight: '${input.style}'}]",
        "options: {prompt_batch: 64, cache_mib: 256, chat_template: '{{ messages }}'}",
        "num_beams: 4, length_penalty: 0.5",
    ],
)
def test_what_it_has_can_be_written(keys: str) -> None:
    assert messages(keys) == []


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("device: mps", "Unsloth's models are not computed on `mps` here"),
        ("quantization: nf4", "Unsloth quantizes to `nf4` with `double_quant: true`, and to nothing else"),
        ("quantization: int8", "Unsloth quantizes to `nf4` with `double_quant: true`, and to nothing else"),
        (
            "quantization: {type: nf4, double_quant: true, compute_dtype: bfloat16}",
            "Unsloth computes in the number format of the model",
        ),
        (
            "peft_adapters: [{model: ./a, precision: float16}]",
            "Unsloth chooses the number format of adapters",
        ),
        ("runtime: embedded", "driver `unsloth` changes transformers for its whole process"),
        ("low_cpu_mem_usage: true", "`low_cpu_mem_usage` cannot be used with driver `unsloth`"),
        ("fast_tokenizer: false", "`fast_tokenizer` cannot be used with driver `unsloth`"),
        ("architecture: causal", "`architecture` cannot be used with driver `unsloth`"),
        (
            "response_format: {type: json_object}",
            "`response_format` cannot be used here: transformers has no",
        ),
        ("options: {attention: sdpa}", "unknown field `attention`"),
    ],
)
def test_what_it_does_not_have_is_refused(keys: str, message: str) -> None:
    (found,) = messages(keys)
    assert found.startswith(message)


@pytest.mark.parametrize("task", ["text-embedding", "text-classification"])
def test_other_tasks_are_for_other_drivers(task: str) -> None:
    text = f"component: {{type: model, task: {task}, driver: unsloth, model: ./weights}}"
    (error,) = errors(text, catalog=CATALOG)
    assert error.message == f"driver `unsloth` does not do task `{task}`"
    assert "huggingface" in str(error.hint)


def test_gguf_files_are_for_another_driver() -> None:
    text = "component: {type: model, task: text-generation, driver: unsloth, model: ./m.gguf}"
    assert told(text, catalog=CATALOG) == [
        "driver `unsloth` loads safetensors or pytorch files, and `./m.gguf` is gguf"
    ]


def test_what_serves_the_models_knows_all_of_its_options() -> None:
    """They are read as those of driver `huggingface` there."""
    msgspec.convert(msgspec.to_builtins(UnslothOptions()), HuggingFaceOptions)
