"""Are quantized layers right, and is a row's result its own, whatever its neighbours are?"""

from __future__ import annotations

import gc
import platform
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model_compose.drivers.contract import Quantization
from model_compose.drivers.huggingface import quantize
from model_compose.drivers.huggingface.quantize import (
    Int4,
    Int4AtUse,
    Int8,
    Int8AtUse,
    QuantizedLinear,
    after_loading,
    quantized_bytes,
    while_loading,
)
from model_compose.errors import DriverMissing, ModelLoadError

CPU = torch.device("cpu")
INT8, INT4 = Quantization(type="int8"), Quantization(type="int4")

X86 = platform.machine() == "x86_64" and torch.backends.cpu.get_cpu_capability().startswith("AVX")
#: Kernels that there are here. Those at use are on every machine.
KERNELS = [Int8, Int4] if X86 else []
LAYERS = [Int8AtUse, Int4AtUse, *KERNELS]

#: Relative to the norm of what float32 gives, for normal weights: half a step of the weights is what each
#: may be off. Int8 measures 0.006 and int4 0.07.
ERROR = {Int8: 0.01, Int8AtUse: 0.01, Int4: 0.1, Int4AtUse: 0.1}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linear(outputs: int, inputs: int, bias: bool = True) -> nn.Linear:
    made = nn.Linear(inputs, outputs, bias=bias).requires_grad_(False)
    made.weight.copy_(normal(outputs, inputs, seed=1) / inputs**0.5)
    if bias:
        made.bias.copy_(normal(outputs, seed=2))
    return made


def layer(kind: type[QuantizedLinear], outputs: int = 96, inputs: int = 160) -> QuantizedLinear:
    of = linear(outputs, inputs)
    return kind(of.weight, of.bias, torch.float32)


def off(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected).norm() / expected.norm())


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("shape", [(96, 160), (2, 7), (1, 1), (33, 513), (17, 31)])
def test_a_layer_of_any_shape_gives_nearly_what_the_float_one_gives(
    kind: type[QuantizedLinear], shape: tuple[int, int]
) -> None:
    of = linear(*shape, bias=False)
    made = kind(of.weight, None, torch.float32)
    x = normal(64, shape[1])
    assert made(x).shape == (64, shape[0])
    assert off(made(x), of(x)) < ERROR[kind]
    assert (made.in_features, made.out_features) == (shape[1], shape[0])


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_results_have_the_shape_and_the_number_format_of_the_input(
    kind: type[QuantizedLinear], dtype: torch.dtype
) -> None:
    x = normal(2, 3, 160).to(dtype)
    with torch.inference_mode():
        y = layer(kind)(x)
    assert (y.shape, y.dtype) == ((2, 3, 96), dtype)
    assert off(y, linear(96, 160)(x.float())) < ERROR[kind] + 0.005  # and bfloat16's own rounding
    assert layer(kind)(x[:, :0]).shape == (2, 0, 96)
    assert layer(kind)(x[0, 0]).shape == (96,)
    torch.testing.assert_close(layer(kind)(x.transpose(0, 1)).transpose(0, 1), y)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_bias_is_exact_and_a_row_of_zeros_gives_it(kind: type[QuantizedLinear]) -> None:
    made = layer(kind)
    assert made.bias is not None
    assert torch.equal(made(torch.zeros(3, 160)), made.bias.expand(3, 96))
    assert torch.equal(made.bias, linear(96, 160).bias)


@pytest.mark.parametrize("kind", LAYERS)
def test_weights_that_are_all_zero_give_zeros(kind: type[QuantizedLinear]) -> None:
    weight = torch.zeros(32, 64)
    weight[5] = 1.0
    y = kind(weight, None, torch.float32)(torch.ones(2, 64))
    assert torch.equal(y[:, :5], torch.zeros(2, 5))
    assert torch.allclose(y[:, 5], torch.tensor(64.0), rtol=0.005)


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("rows", [2, 3, 8, 33])
def test_a_row_gives_the_same_bits_alone_padded_and_beside_an_outlier(
    kind: type[QuantizedLinear], rows: int
) -> None:
    made = layer(kind, 100, 600)
    x = normal(rows, 5, 600)
    alone = torch.cat([made(row[None]) for row in x])
    assert torch.equal(made(x), alone)
    assert torch.equal(made(nn.functional.pad(x, (0, 0, 0, 7)))[:, :5], alone)
    x[1, 2, 3] = 1e6
    x[1, 3] = 0.0
    again = made(x)
    assert torch.equal(again[0], alone[0])
    assert torch.equal(again[2:], alone[2:])
    assert torch.equal(again[1, [0, 1, 4]], alone[1, [0, 1, 4]])


@pytest.mark.parametrize("kind", [Int8AtUse, Int4AtUse])
def test_without_a_kernel_an_outlier_in_another_row_changes_nothing(kind: type[QuantizedLinear]) -> None:
    made = layer(kind)
    x = normal(8, 160)
    before = made(x)
    x[3] *= 1e6
    assert torch.equal(made(x)[4:], before[4:])  # products of floats change with the number of rows only


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
def test_what_is_no_number_stays_in_its_row(kind: type[QuantizedLinear], bad: float) -> None:
    made = layer(kind)
    x = normal(4, 160)
    good = made(x)
    x[2, 7] = bad
    y = made(x)
    assert not y[2].isfinite().any()
    assert torch.equal(y[[0, 1, 3]], good[[0, 1, 3]])


@pytest.mark.skipif(not X86, reason="fbgemm's kernel is for x86")
def test_int8_does_not_saturate_with_the_largest_codes() -> None:
    """Two products of 8 bits by 8 overflow 16 bits on CPUs without VNNI; ours are of 7 by 8."""
    made = Int8(torch.ones(16, 1024), None, torch.float32)
    assert torch.allclose(made(torch.ones(3, 1024)), torch.tensor(1024.0), rtol=1e-6)
    assert torch.allclose(made(-torch.ones(3, 1024)), torch.tensor(-1024.0), rtol=1e-6)


@pytest.mark.skipif(not X86, reason="fbgemm's kernel is for x86")
def test_int8_loses_by_its_weights_only_even_with_an_outlier_in_the_row() -> None:
    x = normal(16, 600)
    x[:, 0] = 100.0
    exact = layer(Int8AtUse, 100, 600)(x)
    # 14 bits for the outlier leave 100 / 8000 for a step of the others.
    assert off(layer(Int8, 100, 600)(x), exact) < 1e-3


@pytest.mark.skipif(not X86, reason="both kernels are for x86")
@pytest.mark.parametrize("kind", [Int8, Int4])
@pytest.mark.parametrize("value", [1e-38, 1e-20, 1e20, 3e38])
def test_tiny_and_huge_rows_neither_vanish_wrongly_nor_divide_by_zero(
    kind: type[QuantizedLinear], value: float
) -> None:
    made = kind(torch.eye(64), None, torch.float32)
    y = made(torch.full((1, 64), value))
    assert y.isfinite().all()
    assert torch.allclose(y, torch.tensor(value), rtol=0.01, atol=1e-30)


@pytest.mark.parametrize("kind", LAYERS)
def test_code_that_looks_at_the_weights_sees_a_number_format_and_cannot_multiply(
    kind: type[QuantizedLinear],
) -> None:
    made = layer(kind)
    assert made.weight.dtype == torch.float32
    assert made.weight.device == CPU
    with pytest.raises(RuntimeError):
        nn.functional.linear(normal(2, 160), made.weight)
    assert str(made).startswith(f"{kind.__name__}(160, 96, ")


@pytest.mark.parametrize("kind", LAYERS)
def test_threads_may_share_a_layer(kind: type[QuantizedLinear]) -> None:
    made = layer(kind, 100, 600)
    inputs = [normal(4, 600, seed=n) for n in range(4)]
    expected = [made(x) for x in inputs]
    same: list[bool] = []

    def compute(n: int) -> None:
        same.extend(torch.equal(made(inputs[n]), expected[n]) for _ in range(20))

    threads = [threading.Thread(target=compute, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same == [True] * 80


class Tiny(nn.Module):
    """Two linear layers, one of them used under two names, and an embedding tied to the last."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 64)
        self.first = nn.Linear(64, 64)
        self.layers = nn.ModuleList([self.first, nn.Linear(64, 64)])
        self.attention = nn.MultiheadAttention(64, 4, batch_first=True)
        self.head = nn.Linear(64, 40, bias=False)
        self.head.weight = self.embed.weight
        self.to(dtype).eval().requires_grad_(False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for each in self.layers:
            x = each(x).relu()
        x = self.attention(x, x, x, need_weights=False)[0]
        return torch.as_tensor(self.head(x))


def tiny(dtype: torch.dtype = torch.float32) -> Tiny:
    torch.manual_seed(0)
    return Tiny(dtype)


@pytest.mark.parametrize("quantization", [INT8, INT4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_linear_layer_of_a_model_is_replaced_and_its_embedding_stays(
    quantization: Quantization, dtype: torch.dtype
) -> None:
    model, ids = tiny(dtype), torch.arange(12).view(2, 6)
    before = model(ids)
    assert while_loading(quantization, CPU, dtype) == {}
    told = after_loading(model, quantization, CPU)
    kept = {type(module) for module in model.modules()}
    assert nn.Linear not in kept
    assert nn.Embedding in kept
    assert model.first is model.layers[0]
    assert torch.equal(model.embed.weight, tiny(dtype).embed.weight)
    assert not any(module.training for module in model.modules())
    with torch.inference_mode():
        after = model(ids)
    assert after.dtype == dtype
    assert off(after.float(), before.float()) < (0.02 if quantization is INT8 else 0.15)
    # Its projections are used without calling them, so they cannot be replaced.
    assert told.startswith(f"{quantization.type}, ")
    assert told.endswith("; 0 MB stay float")


@pytest.mark.skipif(not X86, reason="other machines have other kernels")
def test_the_kernels_of_torch_are_used_where_there_are_any() -> None:
    assert after_loading(tiny(), INT8, CPU).startswith("int8, 14-bit activations scaled per row (fbgemm)")
    assert after_loading(tiny(), INT4, CPU).startswith(
        "int4, groups of 32, bfloat16 activations (torch int4pack)"
    )


def test_another_number_format_is_computed_in_if_that_is_asked_for() -> None:
    model = tiny()
    told = after_loading(model, Quantization(type="int4", compute_dtype="float32"), CPU)
    assert told.startswith("int4, groups of 32, weights made float at each use (torch)")
    assert isinstance(model.first, Int4AtUse)
    assert model.first.dtype == torch.float32


@pytest.mark.parametrize("quantization", [INT8, INT4])
def test_without_kernels_the_weights_are_made_float_and_that_is_told(
    quantization: Quantization, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(self: QuantizedLinear, weight: Tensor) -> None:
        raise AttributeError("'_OpNamespace' 'quantized' object has no attribute 'linear_prepack'")

    monkeypatch.setattr(Int8, "_keep", missing)
    monkeypatch.setattr(Int4, "_keep", missing)
    assert "made float at each use (torch)" in after_loading(tiny(), quantization, CPU)


@pytest.mark.skipif(not X86, reason="both kernels are for x86")
def test_a_kernel_that_is_wrong_or_mixes_rows_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Int8._product
    assert quantize._computes(Int8)
    monkeypatch.setattr(Int8, "_product", lambda self, rows: right(self, rows) * 1.1)
    assert not quantize._computes(Int8)
    monkeypatch.setattr(
        Int8, "_product", lambda self, rows: right(self, rows) + rows.abs().max() * (len(rows) > 1) * 1e-8
    )
    assert not quantize._computes(Int8)


@pytest.mark.skipif(not X86, reason="fbgemm is for x86")
def test_the_engine_of_others_stays_what_it_is() -> None:
    before = torch.backends.quantized.engine
    layer(Int8)
    assert torch.backends.quantized.engine == before


def test_a_model_without_linear_layers_is_refused() -> None:
    with pytest.raises(ModelLoadError, match="`Embedding` has no linear layer that could be quantized"):
        after_loading(nn.Embedding(4, 4), INT8, CPU)


def test_weights_that_came_quantized_are_refused() -> None:
    model: Any = tiny()
    model.hf_quantizer = type("Quantizer", (), {"pre_quantized": True})()
    with pytest.raises(ModelLoadError, match="quantized already"):
        after_loading(model, INT8, CPU)
    assert isinstance(model.first, nn.Linear)


def test_a_model_over_several_devices_is_refused() -> None:
    model: Any = tiny()
    model.hf_device_map = {"first": 0, "head": 1}
    with pytest.raises(ModelLoadError, match="`int4` cannot be spread over several devices"):
        after_loading(model, INT4, torch.device("cuda:0"))


def test_int8_has_no_compute_dtype() -> None:
    with pytest.raises(ModelLoadError, match="`compute_dtype` does not go with `int8`"):
        while_loading(Quantization(type="int8", compute_dtype="float16"), CPU, torch.float32)


def test_bytes_count_what_is_there_once() -> None:
    model = nn.Sequential(nn.Linear(512, 64), nn.Linear(64, 8, bias=False))
    assert quantized_bytes(model) == 4 * (512 * 64 + 64 + 64 * 8)
    tied = tiny()
    attention = 4 * (4 * 64 * 64 + 4 * 64)
    assert quantized_bytes(tied) == 4 * (40 * 64 + 2 * (64 * 64 + 64)) + attention
    quantize._replace(model, Int8AtUse, torch.float32)
    assert quantized_bytes(model) == 512 * 64 + 4 * 64 + 4 * 64 + 64 * 8 + 4 * 8
    small = nn.Sequential(nn.Linear(512, 64, bias=False))
    quantize._replace(small, Int4AtUse, torch.float32)
    assert quantized_bytes(small) == 512 * 64 // 2 + 512 * 64 // 32 * 2 * 2


@pytest.mark.cpu
@pytest.mark.skipif(not Path("/proc/self/statm").exists() or not X86, reason="reads the memory of Linux")
def test_packed_bytes_are_what_fbgemm_really_takes() -> None:
    """Weights are filled up to 512 input features: 576 of them take the room of 1024."""

    def resident() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    layer(Int8)
    assert Int8(torch.zeros(64, 1024), None, torch.float32).packed_bytes == 64 * (1024 + 12)
    weight = torch.zeros(65536, 576, dtype=torch.bfloat16)  # 65536: large enough to be seen
    first = Int8(weight, None, torch.float32)  # leaves to the allocator what the next one needs in between
    before = resident()
    made = Int8(weight, None, torch.float32)
    taken = resident() - before
    assert made.packed_bytes == 65536 * (1024 + 12)
    assert taken == pytest.approx(first.packed_bytes, rel=0.1)


SIZES = {"vocab_size": 64, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2}


def made(model: str, config: str, **values: Any) -> Any:
    """A tiny model of transformers with random weights, the same each time."""
    import transformers

    torch.manual_seed(0)
    return getattr(transformers, model)(getattr(transformers, config)(**values)).eval().requires_grad_(False)


def tiny_llama() -> Any:
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return made("LlamaForCausalLM", "LlamaConfig", **SIZES, **heads, tie_word_embeddings=True)


def tiny_gpt2() -> Any:
    sizes = {"vocab_size": 64, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 32}
    return made("GPT2LMHeadModel", "GPT2Config", **sizes)


def tiny_bert() -> Any:
    return made("BertForSequenceClassification", "BertConfig", **SIZES, num_attention_heads=4)


def tiny_t5() -> Any:
    sizes = {"vocab_size": 64, "d_model": 48, "d_kv": 12, "d_ff": 80, "num_layers": 2, "num_heads": 4}
    return made("T5ForConditionalGeneration", "T5Config", **sizes)


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_bert, tiny_t5])
@pytest.mark.parametrize("quantization", [INT8, INT4])
def test_models_of_transformers_compute_nearly_the_same(make: Any, quantization: Quantization) -> None:
    """GPT-2 has layers of its own kind, and T5 looks at the weights of some."""
    model, ids = make(), torch.arange(1, 13).view(2, 6)
    more = {"decoder_input_ids": ids} if make is tiny_t5 else {}
    with torch.inference_mode():
        before = model(ids, **more).logits
        told = after_loading(model, quantization, CPU)
        after = model(ids, **more).logits
    left = [name for name, module in model.named_modules() if type(module).__name__ in ("Linear", "Conv1D")]
    assert left == []
    assert "among them" not in told
    assert off(after, before) < (0.02 if quantization is INT8 else 0.25)
    assert not torch.equal(after, before)


@pytest.mark.skipif(not X86, reason="both kernels are for x86")
@pytest.mark.parametrize("quantization", [INT8, INT4])
def test_a_prompt_scores_the_same_beside_another(quantization: Quantization) -> None:
    """Through a whole model: attention itself is computed in floats, so to their rounding only."""
    model, ids = tiny_llama(), torch.arange(1, 9).view(2, 4)
    after_loading(model, quantization, CPU)
    model.model.embed_tokens.weight[63] *= 1e4
    beside = torch.tensor([[1, 2, 3, 4], [63, 63, 63, 63]])
    with torch.inference_mode():
        alone, batch = model(ids[:1]).logits, model(beside).logits[:1]
    assert off(batch, alone) < (1e-4 if quantization is INT8 else 0.02)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("double", [False, True])
def test_bitsandbytes_quantizes_while_loading_and_its_scales_count(
    kind: Any, double: bool, tmp_path: Path
) -> None:
    from transformers import LlamaForCausalLM

    quantization = Quantization(type=kind, double_quant=double)
    given = while_loading(quantization, CPU, torch.float32)
    config = given["quantization_config"]
    assert config.bnb_4bit_quant_type == kind
    assert config.bnb_4bit_compute_dtype == torch.float32
    whole = tiny_llama()
    whole.save_pretrained(tmp_path)
    loader: Any = LlamaForCausalLM
    model = loader.from_pretrained(tmp_path, dtype=torch.float32, device_map={"": CPU}, **given)
    model.eval().requires_grad_(False)
    told = after_loading(model, quantization, CPU)
    how = "double quantization (bitsandbytes)" if double else "bitsandbytes"
    assert told == f"{kind}, {how}; 0 MB stay float, `lm_head` among them"
    assert quantized_bytes(model) < quantized_bytes(whole) / 2
    ids = torch.arange(8)[None]
    with torch.inference_mode():
        assert off(model(ids).logits, whole(ids).logits) < 0.3


def test_int8_on_a_gpu_has_no_threshold_for_outliers(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one, an outlier decides for all rows which columns are computed in floats."""
    monkeypatch.setattr(quantize, "_require_bitsandbytes", lambda quantization, device: None)
    given = while_loading(INT8, torch.device("cuda:0"), torch.float16)
    assert given["quantization_config"].load_in_8bit
    assert given["quantization_config"].llm_int8_threshold == 0.0
    assert while_loading(INT4, torch.device("cuda:0"), torch.float16) == {}


def test_bitsandbytes_that_is_missing_or_cannot_compute_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import bitsandbytes.functional as bnb

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no kernel image")

    with monkeypatch.context() as patched:
        patched.setattr(bnb, "quantize_4bit", broken)
        with pytest.raises(ModelLoadError, match="cannot compute `nf4` on `cpu`: no kernel image"):
            while_loading(Quantization(type="nf4"), CPU, torch.float32)
    with monkeypatch.context() as patched:
        patched.setitem(__import__("sys").modules, "bitsandbytes.functional", None)
        with pytest.raises(DriverMissing, match="`bitsandbytes` cannot be imported"):
            while_loading(Quantization(type="nf4"), CPU, torch.float32)


@pytest.mark.model
@pytest.mark.parametrize(("quantization", "nats"), [(INT8, 0.02), (INT4, 0.3)])
def test_a_real_model_predicts_nearly_the_same(quantization: Quantization, nats: float) -> None:
    """Distance from float32 for prose; int8 measures 0.005 nats and int4 0.06 (decision 0008)."""
    from tests.models import smollm2_hf
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loader: Any = AutoModelForCausalLM
    model = loader.from_pretrained(smollm2_hf(), dtype=torch.float32).eval().requires_grad_(False)
    prose = (Path(__file__).parents[3] / "README.md").read_text()
    ids = AutoTokenizer.from_pretrained(smollm2_hf())(prose, return_tensors="pt").input_ids[:, :128]
    size = quantized_bytes(model)
    with torch.inference_mode():
        before = model(ids).logits.log_softmax(-1)
        after_loading(model, quantization, CPU)
        after = model(ids).logits.log_softmax(-1)
    assert (before.exp() * (before - after)).sum(-1).mean().item() < nats
    assert quantized_bytes(model) < size * 0.65
