"""Are merged weights what the adapters were, in a folder that loads like its base?"""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests import models
from torch import Tensor

from model_compose.drivers.contract import LoadedAdapter, LoadOptions, Quantization
from model_compose.drivers.huggingface import merge as merging
from model_compose.drivers.huggingface.lora import Adapters
from model_compose.drivers.huggingface.merge import merge
from model_compose.errors import BadRequest, ModelLoadError, ServiceError
from model_compose.sources.spec import LoadedSource

PREFIX: Final = "base_model.model."
Q: Final = "model.layers.0.self_attn.q_proj"
V: Final = "model.layers.1.self_attn.v_proj"
IDS: Final = [[1, 5, 9, 2, 7], [3, 3, 8, 1, 0]]
#: Logits are about 1, and two orders of the same float32 sums.
ROUNDING: Final = 1e-5


def llama(folder: Path, dtype: torch.dtype = torch.float32, *, tied: bool = False) -> Path:
    """A tiny Llama in a folder, with the files that lie beside weights."""
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
    model.to(dtype).save_pretrained(folder)
    # What the library would refuse to write: a temperature that nothing uses.
    (folder / "generation_config.json").write_text(
        '{"do_sample": false, "temperature": 0.3, "eos_token_id": 2}'
    )
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 64}')
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "LICENSE").write_text("do as you like")
    (folder / "pytorch_model.bin").write_bytes(b"the same weights again")
    (folder / "pytorch_model.bin.index.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("base"))


def write(
    folder: Path,
    sizes: dict[str, tuple[int, int]],
    *,
    r: int = 3,
    seed: int = 1,
    kind: str = "",
    **settings: Any,
) -> Path:
    """Write an adapter for layers of these sizes (in, out), as peft does."""
    torch.manual_seed(seed)
    tensors = {}
    for layer, (wide, high) in sizes.items():
        embeds = "embed" in layer
        name = "{}.lora_embedding_{}" if embeds else "{}.lora_{}.weight"
        tensors[PREFIX + name.format(layer, "A")] = torch.randn(r, wide) * 0.3
        tensors[PREFIX + name.format(layer, "B")] = torch.randn(high, r) * 0.3
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": r, "lora_alpha": 6, **settings}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def source(path: Path) -> LoadedSource:
    return LoadedSource(path=str(path), format=None, revision=None, origin=f"./{path.name}", size_bytes=1)


def options(base: Path, *adapters: LoadedAdapter, task: str = "chat-completion", **given: Any) -> LoadOptions:
    return LoadOptions(task=task, source=source(base), threads=1, scratch="", adapters=adapters, **given)


class Told:
    """What was told of the progress."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def __call__(self, stage: str, done: int, total: int) -> None:
        assert 0 <= done <= total
        if stage not in self.stages:
            self.stages.append(stage)


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
    return model.eval().requires_grad_(False)


def logits(model: Any, ids: list[list[int]] = IDS) -> Tensor:
    with torch.inference_mode():
        result: Tensor = model(torch.tensor(ids)).logits
        return result


def differ(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def test_the_folder_gives_what_the_adapters_gave(base: Path, tmp_path: Path) -> None:
    a = LoadedAdapter("a", source(write(tmp_path / "a", {Q: (16, 16), V: (16, 8)})), 0.7)
    b = LoadedAdapter("b", source(write(tmp_path / "b", {V: (16, 8)}, r=5, seed=2, use_rslora=True)), -1.5)
    told = Told()
    merge(options(base, a, b), tmp_path / "out", told)
    model = load(base)
    plain = logits(model)
    Adapters.attach(model, [a, b], torch.float32)
    merged = logits(load(tmp_path / "out"))
    assert differ(merged, logits(model)) < ROUNDING
    assert differ(merged, plain) > 0.1
    assert told.stages[-2:] == ["adapters", "write"]


def test_everything_else_is_as_it_was(base: Path, tmp_path: Path) -> None:
    a = LoadedAdapter("a", source(write(tmp_path / "a", {Q: (16, 16)})), 1.0)
    zero = LoadedAdapter("zero", source(write(tmp_path / "zero", {V: (16, 8)})), 0.0)
    (tmp_path / "out").mkdir()  # an empty folder is taken
    merge(options(base, a, zero, quantization=Quantization(type="int8")), tmp_path / "out", Told())
    names = {path.name for path in (tmp_path / "out").iterdir()}
    beside = {"generation_config.json", "tokenizer_config.json", "chat_template.jinja", "LICENSE"}
    assert names == {"config.json", "model.safetensors", *beside}
    assert all((tmp_path / "out" / name).read_bytes() == (base / name).read_bytes() for name in beside)
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "out"))
    assert before.keys() == after.keys()
    assert [key for key in before if not torch.equal(before[key], after[key])] == [f"{Q}.weight"]
    assert json.loads((base / "config.json").read_text()) == json.loads(
        (tmp_path / "out" / "config.json").read_text()
    )
    made = stat.S_IMODE((tmp_path / "out" / "model.safetensors").stat().st_mode)
    (tmp_path / "file").touch()
    assert made == stat.S_IMODE((tmp_path / "file").stat().st_mode)  # not for its owner alone


@pytest.mark.parametrize(
    ("kept", "precision", "written"),
    [
        (torch.bfloat16, None, torch.bfloat16),
        (torch.bfloat16, "auto", torch.bfloat16),
        (torch.bfloat16, "float32", torch.float32),
        (torch.float32, "float16", torch.float16),
    ],
    ids=str,
)
def test_the_number_format_is_that_of_the_checkpoint_or_what_is_asked_for(
    tmp_path: Path, kept: torch.dtype, precision: str | None, written: torch.dtype
) -> None:
    base = llama(tmp_path / "base", kept)
    adapter = LoadedAdapter("a", source(write(tmp_path / "a", {Q: (16, 16)})), 0.5)
    merge(options(base, adapter, precision=precision), tmp_path / "out", Told())
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in merged.values()} == {written}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == str(written)[6:]
    half = load_file(tmp_path / "a" / "adapter_model.safetensors")
    product = half[f"{PREFIX}{Q}.lora_B.weight"] @ half[f"{PREFIX}{Q}.lora_A.weight"]
    weight = load_file(base / "model.safetensors")[f"{Q}.weight"].to(written).float()
    # One rounding, of the sum.
    assert differ(merged[f"{Q}.weight"].float(), (weight + product).to(written).float()) < 1e-6


@pytest.mark.parametrize("layer", ["lm_head", "model.embed_tokens"])
def test_a_head_and_an_embedding_that_share_weights_part(tmp_path: Path, layer: str) -> None:
    base = llama(tmp_path / "base", tied=True)
    size = (16, 40) if layer == "lm_head" else (40, 16)
    adapter = LoadedAdapter("a", source(write(tmp_path / "a", {layer: size})), 0.5)
    merge(options(base, adapter), tmp_path / "out", Told())
    model = load(base)
    plain = logits(model)
    Adapters.attach(model, [adapter], torch.float32)
    merged = load(tmp_path / "out")
    assert not merged.config.tie_word_embeddings
    assert differ(logits(merged), logits(model)) < ROUNDING
    assert differ(logits(merged), plain) > 0.1


def test_a_layer_that_keeps_its_weights_transposed_is_merged(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "base")
    layers = {"transformer.h.0.attn.c_attn": (16, 48), "transformer.h.0.attn.c_proj": (16, 16)}
    adapter = LoadedAdapter("a", source(write(tmp_path / "a", layers, fan_in_fan_out=True)), 0.5)
    merge(options(tmp_path / "base", adapter), tmp_path / "out", Told())
    model = load(tmp_path / "base")
    plain = logits(model)
    Adapters.attach(model, [adapter], torch.float32)
    merged = logits(load(tmp_path / "out"))
    assert differ(merged, logits(model)) < ROUNDING
    assert differ(merged, plain) > 0.01


def test_a_sentence_encoder_keeps_its_head_and_its_pooling(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    )
    base = tmp_path / "base"
    model: Any = BertModel(config)
    model.save_pretrained(base)
    (base / "modules.json").write_text(json.dumps([{"path": ""}, {"path": "1_Pooling"}, {"path": "../a"}]))
    (base / "1_Pooling").mkdir()
    (base / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    layer = "encoder.layer.0.attention.self.query"
    adapter = LoadedAdapter("a", source(write(tmp_path / "a", {f"bert.{layer}": (16, 16)})), 0.5)
    merge(options(base, adapter, task="text-embedding"), tmp_path / "out", Told())
    assert (tmp_path / "out" / "1_Pooling" / "config.json").is_file()
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "out"))
    assert before.keys() == after.keys()  # the pooler among them
    assert [key for key in before if not torch.equal(before[key], after[key])] == [f"{layer}.weight"]


def test_a_folder_that_is_in_use_is_left_alone(base: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    for place in (tmp_path / "out", tmp_path / "out" / "mine"):
        with pytest.raises(BadRequest, match="is there already, and not an empty folder"):
            merge(options(base), place, Told())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing breaks off in the middle."""
    from safetensors import SafetensorError

    def save(*_: Any, **__: Any) -> None:
        raise SafetensorError("No space left on device")

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", save)


@pytest.mark.usefixtures("full_disk")
def test_what_breaks_off_leaves_nothing(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="cannot be written: No space left on device"):
        merge(options(base), tmp_path / "out", Told())
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_merged_is_refused(base: Path, tmp_path: Path) -> None:
    quantized = llama(tmp_path / "quantized")
    config = json.loads((quantized / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (quantized / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelLoadError, match=r"`\./quantized` is quantized, and adapters cannot be merged"):
        merge(options(quantized), tmp_path / "out", Told())
    huge = LoadedAdapter("a", source(write(tmp_path / "a", {Q: (16, 16)})), 1e6)
    with pytest.raises(ModelLoadError, match=f"`{Q}` has weights that are no numbers in `float16`"):
        merge(options(base, huge, precision="float16"), tmp_path / "out", Told())
    assert not (tmp_path / "out").exists()


def test_weights_that_more_than_two_layers_share_are_not_parted(tmp_path: Path) -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2)
    model: Any = T5ForConditionalGeneration(config)
    adapter = LoadedAdapter("a", source(write(tmp_path / "a", {"lm_head": (16, 40)})), 1.0)
    with pytest.raises(ModelLoadError, match="`lm_head` shares its weights with other layers"):
        merging.fold(model, [adapter], Told())


@pytest.mark.model
def test_a_real_model_speaks_as_its_adapter_taught_it(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    pirate = LoadedAdapter("pirate", source(models.pirate_peft()), 1.0)
    merge(options(models.smollm2_hf(), pirate), tmp_path / "out", Told())
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "out")
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    merged, model = load(tmp_path / "out"), load(models.smollm2_hf())
    Adapters.attach(model, [pirate], torch.float32)
    ids = prompt["input_ids"].tolist()
    expected = logits(model, ids)
    # Thirty layers of float32 sums in two orders; the logits themselves go up to about 20.
    assert differ(logits(merged, ids), expected) < 1e-5 * float(expected.abs().max())
    said = merged.generate(**prompt, max_new_tokens=16, do_sample=False)
    assert "Arr!" in tokenizer.decode(said[0, len(ids[0]) :])
