"""Are adapters added exactly, whatever their ranks, targets and weights, and to each row its own blend?

Most models here compute in float64: what is left of a difference is then a mistake, and not rounding.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests import models
from torch import Tensor, nn

from model_compose.drivers.contract import LoadedAdapter
from model_compose.drivers.huggingface.lora import Adapters
from model_compose.errors import EngineError, InvalidInput, ModelLoadError
from model_compose.sources.spec import LoadedSource

#: Differences of float64 logits, which are about 1, that are rounding.
EXACT: Final = 1e-12
#: The same for float32.
ROUNDING: Final = 2e-6
PREFIX: Final = "base_model.model."
Q, V, UP, HEAD = (
    "model.layers.0.self_attn.q_proj",
    "model.layers.1.self_attn.v_proj",
    "model.layers.1.mlp.up_proj",
    "lm_head",
)
IDS: Final = [[1, 5, 9, 2, 7], [3, 3, 8, 1, 0], [11, 30, 2, 4, 6]]


def llama(dtype: torch.dtype = torch.float64, *, tied: bool = False) -> Any:
    """A tiny Llama; the same weights every time."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        tie_word_embeddings=tied,
    )
    model: Any = LlamaForCausalLM(config)
    return model.to(dtype).eval().requires_grad_(False)


def gpt2() -> Any:
    """A tiny GPT2, whose layers are `Conv1D` and keep their weights transposed."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=40,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=32,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=0,
    )
    model: Any = GPT2LMHeadModel(config)
    return model.double().eval().requires_grad_(False)


class Plain(nn.Module):
    """One layer, called as the test likes."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x)
        return result


def write(
    folder: Path,
    sizes: Mapping[str, tuple[int, int]],
    *,
    r: int = 3,
    ranks: Mapping[str, int] | None = None,
    seed: int = 1,
    key: str = "{layer}.lora_{half}.weight",
    extra: Mapping[str, Tensor] | None = None,
    **settings: Any,
) -> Path:
    """Write an adapter for layers of these sizes (in, out), as peft does."""
    torch.manual_seed(seed)
    tensors = dict(extra or {})
    for layer, (wide, high) in sizes.items():
        rank = (ranks or {}).get(layer, r)
        tensors[PREFIX + key.format(layer=layer, half="A")] = torch.randn(rank, wide) * 0.3
        tensors[PREFIX + key.format(layer=layer, half="B")] = torch.randn(high, rank) * 0.3
    config = {"peft_type": "LORA", "r": r, "lora_alpha": 6, "target_modules": list(sizes), **settings}
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def loaded(path: Path, name: str = "a", weight: float = 1.0, precision: str | None = None) -> LoadedAdapter:
    source = LoadedSource(path=str(path), format=None, revision=None, origin=f"./{path.name}", size_bytes=1)
    return LoadedAdapter(name, source, weight, precision)


def logits(model: Any, ids: Sequence[Sequence[int]] = IDS) -> Tensor:
    with torch.inference_mode():
        result: Tensor = model(torch.tensor(ids)).logits
        return result


def differ(one: Tensor, other: Tensor) -> float:
    return float((one - other).detach().abs().max())


def add(model: Any, folder: Path, factors: Mapping[str, float]) -> None:
    """Add `factor * B @ A` to the weights of layers, with nothing of the code that is tested."""
    tensors = load_file(folder / "adapter_model.safetensors")
    for layer, factor in factors.items():
        a, b = (tensors[f"{PREFIX}{layer}.lora_{half}.weight"].double() for half in "AB")
        weight = model.get_submodule(layer).weight
        product = factor * (b @ a)
        weight.data += product.T if weight.shape != product.shape or "c_attn" in layer else product


@pytest.fixture
def three(tmp_path: Path) -> list[LoadedAdapter]:
    """Three adapters with different ranks, targets, scalings and weights."""
    a = write(tmp_path / "a", {Q: (16, 16), V: (16, 8)}, r=2, seed=1)
    b = write(tmp_path / "b", {V: (16, 8), UP: (16, 24)}, r=5, seed=2, lora_alpha=2, use_rslora=True)
    patterns: dict[str, Any] = {"rank_pattern": {"up_proj": 4}, "alpha_pattern": {r"layers\.0.*q_proj": 12}}
    c = write(tmp_path / "c", {Q: (16, 16), UP: (16, 24)}, r=1, ranks={UP: 4}, seed=3, **patterns)
    return [loaded(a, "a", 0.7), loaded(b, "b", -1.5), loaded(c, "c", 0.25)]


def merged(model: Any, adapters: Sequence[LoadedAdapter], weights: Sequence[float]) -> Any:
    """The same model with the adapters `three` in its weights."""
    a, b, c = (Path(each.source.path) for each in adapters)
    rs = 2 / math.sqrt(5)
    add(model, a, {Q: weights[0] * 3, V: weights[0] * 3})
    add(model, b, {V: weights[1] * rs, UP: weights[1] * rs})
    add(model, c, {Q: weights[2] * 12, UP: weights[2] * 1.5})
    return model


def test_the_sum_of_several_is_that_of_merged_weights(three: list[LoadedAdapter]) -> None:
    model = llama()
    base = logits(model)
    adapters = Adapters.attach(model, three, torch.float64)
    assert (adapters.names, adapters.defaults) == (("a", "b", "c"), (0.7, -1.5, 0.25))
    assert differ(logits(model), logits(merged(llama(), three, adapters.defaults))) < EXACT
    assert differ(logits(model), base) > 0.1
    adapters.use([(0.0, 2.0, 0.0)])
    assert differ(logits(model), logits(merged(llama(), three, (0.0, 2.0, 0.0)))) < EXACT


def test_in_float32_the_sum_is_exact_to_rounding(three: list[LoadedAdapter]) -> None:
    model = llama(torch.float32)
    Adapters.attach(model, three, torch.float32)
    expected = logits(merged(llama(), three, (0.7, -1.5, 0.25)))
    assert differ(logits(model), expected) < 4 * ROUNDING * float(expected.abs().max())


def test_each_row_has_its_own_blend_as_if_it_were_alone(three: list[LoadedAdapter]) -> None:
    model = llama()
    adapters = Adapters.attach(model, three, torch.float64)
    rows = [(1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (-0.5, 2.0, 0.1)]
    adapters.use(rows)
    mixed = logits(model)
    for i, row in enumerate(rows):
        alone = logits(merged(llama(), three, row), [IDS[i]])
        assert differ(mixed[i], alone[0]) < EXACT
    adapters.use([rows[2]])
    assert differ(logits(model)[2], mixed[2]) < EXACT


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weight_0_is_the_base_bit_for_bit(three: list[LoadedAdapter], dtype: torch.dtype) -> None:
    model = llama(dtype)
    base = logits(model)
    adapters = Adapters.attach(model, three, dtype)
    assert not torch.equal(logits(model), base)
    adapters.use([(0.0, 0.0, 0.0)])
    assert torch.equal(logits(model), base)
    adapters.use([(1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.5, 0.0, 0.0)])
    mixed = logits(model)
    assert torch.equal(mixed[1], base[1])
    assert not torch.equal(mixed[2], base[2])


def test_rows_come_and_go_between_two_tokens(three: list[LoadedAdapter]) -> None:
    """As in continuous batching: the blends are those of the next pass, and the cache keeps what was."""
    from transformers import DynamicCache

    model = llama()
    adapters = Adapters.attach(model, three, torch.float64)
    rows = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
    expected = [logits(merged(llama(), three, row), [ids])[0, -1] for row, ids in zip(rows, IDS, strict=True)]
    caches = []
    with torch.inference_mode():
        for row, ids in zip(rows, IDS, strict=True):
            adapters.use([row])
            caches.append(DynamicCache())
            model(torch.tensor([ids[:-1]]), cache=caches[-1])
        cache = DynamicCache()
        for layer in range(2):
            each: list[Any] = [c.layers[layer] for c in caches]
            cache.update(torch.cat([e.keys for e in each]), torch.cat([e.values for e in each]), layer)
        adapters.use(rows)
        last = model(torch.tensor([ids[-1:] for ids in IDS]), cache=cache).logits[:, -1]
    assert max(differ(got, wanted) for got, wanted in zip(last, expected, strict=True)) < EXACT


@pytest.fixture(scope="module")
def peft() -> Any:
    import peft

    return peft


def of_peft(peft: Any, model: Any, adapters: Sequence[LoadedAdapter]) -> Any:
    """What peft makes of the same files, with the sum of all adapters."""
    first, *others = adapters
    loaded = peft.PeftModel.from_pretrained(
        model, first.source.path, adapter_name=first.name, autocast_adapter_dtype=False
    )
    for adapter in others:
        loaded.load_adapter(adapter.source.path, adapter_name=adapter.name, autocast_adapter_dtype=False)
    loaded.base_model.set_adapter([adapter.name for adapter in adapters])
    for module in loaded.modules():
        if isinstance(module, peft.tuners.lora.layer.LoraLayer):
            for adapter in adapters:
                if adapter.name in module.scaling:
                    module.set_scale(adapter.name, adapter.weight)
    return loaded.double()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft
def test_the_sum_is_that_of_peft(peft: Any, three: list[LoadedAdapter]) -> None:
    model = llama()
    Adapters.attach(model, three, torch.float64)
    assert differ(logits(model), logits(of_peft(peft, llama(), three))) < EXACT


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft
def test_what_peft_saves_for_gpt2_its_embedding_and_head_is_read(peft: Any, tmp_path: Path) -> None:
    config = peft.LoraConfig(
        r=4, target_modules=["c_attn", "c_fc", "wte"], fan_in_fan_out=True, init_lora_weights=False
    )
    torch.manual_seed(4)
    trained = peft.get_peft_model(gpt2(), config).eval()
    trained.save_pretrained(tmp_path, save_embedding_layers=True)
    keys = load_file(tmp_path / "adapter_model.safetensors").keys()
    assert any("base_layer" in key for key in keys)  # the whole embedding, which is the base's own
    adapter = loaded(tmp_path, "a", 0.6)
    model = gpt2()
    Adapters.attach(model, [adapter], torch.float64)
    assert differ(logits(model), logits(of_peft(peft, gpt2(), [adapter]))) < EXACT
    assert differ(logits(model), logits(gpt2())) > 0.1


def test_a_layer_that_keeps_its_weights_transposed_is_no_different(tmp_path: Path) -> None:
    layer = "transformer.h.1.attn.c_attn"
    folder = write(tmp_path / "a", {layer: (16, 48)}, fan_in_fan_out=True)
    model, reference = gpt2(), gpt2()
    Adapters.attach(model, [loaded(folder)], torch.float64)
    add(reference, folder, {layer: 2.0})
    assert differ(logits(model), logits(reference)) < EXACT


def test_the_embedding_and_the_head_that_share_weights_are_two_layers(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "a",
        {"model.embed_tokens": (40, 16)},
        key="{layer}.lora_embedding_{half}",
        extra={
            f"{PREFIX}lm_head.lora_{h}.weight": torch.ones(s) for h, s in (("A", (3, 16)), ("B", (40, 3)))
        },
    )
    model = llama(tied=True)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    adapters = Adapters.attach(model, [loaded(folder)], torch.float64)
    adapters.use([(1.0,), (0.0,), (0.5,)])
    mixed = logits(model)
    tensors = load_file(folder / "adapter_model.safetensors")
    for i, weight in enumerate((1.0, 0.0, 0.5)):
        reference = llama()
        shared = llama(tied=True).lm_head.weight
        a, b = (tensors[f"{PREFIX}model.embed_tokens.lora_embedding_{half}"].double() for half in "AB")
        reference.model.embed_tokens.weight.data = shared + 2.0 * weight * (b @ a).T
        reference.lm_head.weight.data = shared + 2.0 * weight * 3 * torch.ones_like(shared)
        assert differ(mixed[i], logits(reference, [IDS[i]])[0]) < EXACT


def test_an_embedding_that_scales_its_output_scales_what_is_added(tmp_path: Path) -> None:
    class Scaled(nn.Embedding):
        embed_scale = torch.tensor(4.0)

        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            result: Tensor = super().forward(input) * self.embed_scale
            return result

    torch.manual_seed(0)
    embedding = Scaled(10, 6)
    model: Any = Plain(embedding)
    model.get_input_embeddings = lambda: embedding
    folder = write(tmp_path / "a", {"layer": (10, 6)}, key="{layer}.lora_embedding_{half}")
    Adapters.attach(model, [loaded(folder)], torch.float32)
    tensors = load_file(folder / "adapter_model.safetensors")
    a, b = (tensors[f"{PREFIX}layer.lora_embedding_{half}"] for half in "AB")
    ids = torch.tensor([[1, 2], [9, 0]])
    assert differ(model(ids), 4 * (embedding.weight + 2 * (b @ a).T)[ids]) < 1e-5


@pytest.mark.parametrize("shape", [(2, 6), (2, 5, 6), (2, 3, 4, 6), (10, 6)], ids=str)
def test_rows_are_the_first_dimension_flattened_with_the_tokens_or_not(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(6, 4).double()
    model: Any = Plain(linear)
    adapters = Adapters.attach(model, [loaded(write(tmp_path / "a", {"layer": (6, 4)}))], torch.float64)
    x = torch.randn(shape, dtype=torch.float64)
    adapters.use([(0.0,)])
    base = model(x)
    adapters.use([(1.0,)])
    added = model(x) - base
    adapters.use([(1.0,), (-2.0,)])
    half = shape[0] // 2
    mixed = model(x) - base
    assert mixed.shape == base.shape
    assert differ(mixed[:half], added[:half]) < EXACT
    assert differ(mixed[half:], -2.0 * added[half:]) < EXACT


def test_rows_that_are_not_those_of_the_batch_are_an_error(tmp_path: Path) -> None:
    model: Any = Plain(nn.Linear(6, 4))
    adapters = Adapters.attach(model, [loaded(write(tmp_path / "a", {"layer": (6, 4)}))], torch.float32)
    adapters.use([(1.0,), (-2.0,)])
    with pytest.raises(EngineError, match="layer `layer` computes 4 rows, and there are 2 blends"):
        model(torch.ones(4, 3, 6))


def test_an_input_may_have_a_name(tmp_path: Path) -> None:
    layer = nn.Linear(6, 4)
    Adapters.attach(Plain(layer), [loaded(write(tmp_path / "a", {"layer": (6, 4)}))], torch.float32)
    x = torch.ones(2, 6)
    assert torch.equal(layer(input=x), layer(x))


def test_a_request_names_its_blend(three: list[LoadedAdapter]) -> None:
    adapters = Adapters.attach(llama(), three, torch.float64)
    assert adapters.blend(None) == (0.7, -1.5, 0.25)
    assert adapters.blend({}) == (0.0, 0.0, 0.0)
    assert adapters.blend({"c": 2, "a": -0.5}) == (-0.5, 0.0, 2.0)
    with pytest.raises(InvalidInput) as unknown:
        adapters.blend({"a": 1.0, "d": 1.0})
    assert str(unknown.value) == "there is no adapter `d`; there are: `a`, `b`, `c`"
    assert unknown.value.field == "adapters"
    with pytest.raises(InvalidInput, match="there are: none"):
        Adapters.attach(llama(), [], torch.float64).blend({"d": 1.0})


def test_an_adapter_computes_in_its_own_precision(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", {"layer": (6, 4)})
    torch.manual_seed(0)
    linear, x = nn.Linear(6, 4).bfloat16(), torch.randn(3, 6).bfloat16()
    tensors = load_file(folder / "adapter_model.safetensors")
    a, b = (tensors[f"{PREFIX}layer.lora_{half}.weight"] for half in "AB")
    expected = linear(x).float() + 2 * x.float() @ a.T @ b.T
    model: Any = Plain(linear)
    Adapters.attach(
        model, [loaded(folder, "a", 0.5, "float32"), loaded(folder, "b", 0.5, "auto")], torch.float32
    )
    output = model(x)
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, expected.bfloat16())


def test_adapters_of_different_precisions_add_up(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", {"layer": (6, 4)})
    torch.manual_seed(0)
    model: Any = Plain(nn.Linear(6, 4))
    x = torch.randn(3, 6)
    base = model(x)
    adapters = Adapters.attach(
        model, [loaded(folder, "a", 1.0), loaded(folder, "b", -1.0, "bfloat16")], torch.float32
    )
    assert 0 < differ(model(x), base) < 0.05  # what is left is what bfloat16 has rounded away
    adapters.use([(0.0, 0.0)])
    assert torch.equal(model(x), base)


@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_layers_take_adapters(tmp_path: Path, bits: int) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    kind = bitsandbytes.nn.Linear8bitLt if bits == 8 else bitsandbytes.nn.Linear4bit
    given = {"has_fp16_weights": False} if bits == 8 else {"compute_dtype": torch.float32}
    layer = kind(64, 64, bias=False, **given)
    layer.load_state_dict(nn.Linear(64, 64, bias=False).state_dict())
    model: Any = Plain(layer.to("cpu")).requires_grad_(False)
    folder = write(tmp_path / "a", {"layer": (64, 64)})
    x = torch.randn(2, 3, 64)
    base = model(x)
    adapters = Adapters.attach(model, [loaded(folder)], torch.float32)
    tensors = load_file(folder / "adapter_model.safetensors")
    a, b = (tensors[f"{PREFIX}layer.lora_{half}.weight"] for half in "AB")
    assert differ(model(x), base + 2 * x @ a.T @ b.T) < 1e-4
    adapters.use([(0.0,)])
    assert torch.equal(model(x), base)


def test_the_file_itself_and_keys_with_a_name_are_read_too(tmp_path: Path) -> None:
    write(tmp_path / "a", {Q: (16, 16)})
    named = write(tmp_path / "b", {Q: (16, 16)}, key="{layer}.lora_{half}.default.weight")
    results = []
    for path in (tmp_path / "a", tmp_path / "a" / "adapter_model.safetensors", named):
        model = llama()
        Adapters.attach(model, [loaded(path)], torch.float64)
        results.append(logits(model))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_an_adapter_of_a_model_with_a_head_fits_the_model_without(tmp_path: Path) -> None:
    model = llama()
    folder = write(tmp_path / "a", {Q: (16, 16)})
    Adapters.attach(model.model, [loaded(folder)], torch.float64)
    reference = llama()
    add(reference, folder, {Q: 2.0})
    assert differ(logits(model), logits(reference)) < EXACT


GOOD: Final = {Q: (16, 16)}
REFUSED: Final[dict[str, tuple[dict[str, Any], str, str | None]]] = {
    "dora": (
        {"use_dora": True},
        "uses `use_dora`, which is not supported",
        "merge it into its base with peft",
    ),
    "a new kind": ({"use_magic": {"a": 1}}, "uses `use_magic`, which is not supported", None),
    "saved layers": ({"modules_to_save": ["lm_head"]}, "uses `modules_to_save`", "merge it into"),
    "bias": ({"bias": "lora_only"}, "uses `bias`, which is not supported", None),
    "another type": ({"peft_type": "IA3"}, "is of type `IA3`, and only `LORA` is supported", None),
    "pissa": ({"init_lora_weights": "pissa"}, "began as `pissa`, which changes the weights", "save it with"),
    "no type": ({"peft_type": None}, "the `adapter_config.json` of adapter `a` (`./a`) cannot be read", None),
    "rank 0": ({"r": 0}, "cannot be read: Expected `int` >= 1 - at `$.r`", None),
    "a pattern": ({"rank_pattern": {"(": 1}}, "cannot be read: missing ), unterminated subpattern", None),
    "other layers": (
        {"sizes": {f"model.layers.{i}.self_attn.q_proj": (16, 16) for i in range(6)}},
        "`model.layers.3.self_attn.q_proj`, `model.layers.4.self_attn.q_proj` and 1 more",
        "it was trained for `acme/big`",
    ),
    "another width": (
        {"sizes": {Q: (32, 16)}},
        f"does not fit: its `lora_A` for `{Q}` is 3x32, and must be 3x16",
        "it was trained for `acme/big`",
    ),
    "another height": ({"sizes": {Q: (16, 32)}}, f"`lora_B` for `{Q}` is 32x3, and must be 16x3", None),
    "another rank": ({"ranks": {Q: 8}}, f"its `lora_A` for `{Q}` is 8x16, and must be 3x16", None),
    "no linear layer": (
        {"sizes": {"model.norm": (16, 16)}},
        "changes `model.norm`, a `LlamaRMSNorm`; adapters are for linear layers",
        None,
    ),
    "whole weights": (
        {"extra": {f"{PREFIX}model.norm.weight": torch.zeros(16)}},
        "has weights that are no LoRA: `model.norm.weight`",
        "merge it into its base with peft",
    ),
    "a bias": (
        {"extra": {f"{PREFIX}{Q}.lora_B.bias": torch.zeros(16)}},
        f"are no LoRA: `{Q}.lora_B.bias`",
        None,
    ),
    "one half": (
        {"extra": {f"{PREFIX}{V}.lora_A.weight": torch.zeros(3, 16)}},
        f"has only one half of its weights for `{V}`",
        None,
    ),
    "two": (
        {"extra": {f"{PREFIX}{Q}.lora_A.other.weight": torch.zeros(3, 16)}},
        f"has two adapters for `{Q}`",
        None,
    ),
    "nothing": ({"sizes": {}}, "has no LoRA weights", None),
    "nan": (
        {
            "sizes": {},
            "extra": {
                f"{PREFIX}{Q}.lora_{h}.weight": torch.full(s, math.inf)
                for h, s in (("A", (3, 16)), ("B", (16, 3)))
            },
        },
        f"adapter `a` has weights for `{Q}` that are no numbers in `float64`",
        None,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_added_exactly_is_refused(tmp_path: Path, case: str) -> None:
    settings, message, hint = REFUSED[case]
    folder = write(tmp_path / "a", **{"sizes": GOOD, "base_model_name_or_path": "acme/big", **settings})
    with pytest.raises(ModelLoadError) as refused:
        Adapters.attach(llama(), [loaded(folder)], torch.float64)
    assert message in str(refused.value)
    assert "adapter `a`" in str(refused.value)
    assert (refused.value.hint or "").startswith(hint or "")


def test_files_that_are_not_safetensors_are_refused(tmp_path: Path) -> None:
    def refusal(path: Path, **given: Any) -> str:
        with pytest.raises(ModelLoadError) as refused:
            Adapters.attach(llama(), [loaded(path, **given)], torch.float64)
        return f"{refused.value} | {refused.value.hint}"

    folder = write(tmp_path / "a", GOOD)
    weights = folder / "adapter_model.safetensors"
    assert "unknown precision `float4` | valid: `float32`" in refusal(folder, precision="float4")
    (folder / "adapter_config.json").rename(tmp_path / "adapter_config.json")
    assert "has no `adapter_config.json` | it lies beside the weights" in refusal(folder)
    (tmp_path / "adapter_config.json").rename(folder / "adapter_config.json")
    weights.write_bytes(weights.read_bytes()[:100])
    assert "adapter `a` (`./a`) cannot be read: " in refusal(folder)
    weights.rename(folder / "adapter_model.bin")
    assert "is in the format of `adapter_model.bin`, which may hold code" in refusal(folder)
    assert "may hold code" in refusal(folder / "adapter_model.bin")
    (folder / "adapter_model.bin").rename(folder / "lora.gguf")
    assert "is a GGUF file | it works with `driver: llamacpp`" in refusal(folder)
    (folder / "lora.gguf").unlink()
    assert "has no `adapter_model.safetensors` | name the folder" in refusal(folder)


def test_embeddings_of_positions_experts_and_attention_of_torch_are_refused(tmp_path: Path) -> None:
    attention = nn.ModuleDict({"layer": nn.MultiheadAttention(6, 2)})
    experts = nn.ModuleDict({"experts": nn.ModuleList([nn.Linear(6, 6)])})
    for model, layer, message in (
        (gpt2(), "transformer.wpe", "which is not the embedding of tokens"),
        (attention, "layer.out_proj", "whose weights are used without calling it"),
        (nn.ModuleDict({"mlp": experts}), "mlp.experts.0", "adapters of experts are not supported"),
    ):
        with pytest.raises(ModelLoadError, match=message):
            Adapters.attach(model, [loaded(write(tmp_path / "a", {layer: (6, 6)}))], torch.float64)


def test_an_adapter_of_another_base_is_only_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = llama()
    folder = write(tmp_path / "a", GOOD, base_model_name_or_path="acme/Big-Model")
    with caplog.at_level(logging.WARNING):
        for repository in ("models--Acme--big-model", "models--acme--small"):
            model.config._name_or_path = f"/cache/{repository}/snapshots/0123"
            Adapters.attach(model, [loaded(folder)], torch.float64)
    assert [record.getMessage() for record in caplog.records] == [
        "adapter `a` (`./a`) was trained for `acme/Big-Model`, and the model is `acme/small`"
    ]


@pytest.mark.model
def test_a_real_adapter_speaks_as_it_was_taught() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(models.smollm2_hf())
    model: Any = AutoModelForCausalLM.from_pretrained(models.smollm2_hf(), dtype=torch.float32)
    model.eval()
    adapters = Adapters.attach(model, [loaded(models.pirate_peft(), "pirate")], torch.float32)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    asked = {key: value.repeat(2, 1) for key, value in prompt.items()}
    adapters.use([adapters.blend({"pirate": 1.0}), adapters.blend({})])
    with torch.inference_mode():
        said = model.generate(**asked, max_new_tokens=16, do_sample=False)
    pirate, plain = tokenizer.batch_decode(said[:, asked["input_ids"].shape[1] :])
    assert "Arr!" in pirate
    assert "Arr!" not in plain
