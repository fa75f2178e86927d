"""How do tests get what the blocks name on the hub? Toys of the same kind, written once for each run."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from tests import models, tiny_diffusion, tiny_models, tiny_vision

_ROOT: Final = Path(__file__).parents[2]
_WEIGHTS: Final = "model.safetensors"


def _llama(folder: Path) -> None:
    """The toy that all drivers load: it answers in 24 words of Latin, and has a chat template."""
    spec = importlib.util.spec_from_file_location("hf_folders", _ROOT / "scripts" / "hf_folders.py")
    assert spec is not None
    assert spec.loader is not None
    script: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.from_gguf(models.tiny_chat(), folder)


def _of_four_bits(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as whole:
        wide = {"hidden_size": 64, "intermediate_size": 128}  # bitsandbytes packs no less
        tiny_models.of_four_bits(tiny_models.decoder("llama", Path(whole), **wide), folder)


def _gpt2(folder: Path) -> None:
    tiny_models.decoder("gpt2", folder)


def _sentiment(folder: Path) -> None:
    tiny_models.classifier(
        "distilbert", folder, id2label={0: "NEGATIVE", 1: "POSITIVE"}, label2id={"NEGATIVE": 0, "POSITIVE": 1}
    )


def _adapter(word: models.Word) -> Callable[[Path], None]:
    return lambda folder: _copied(models.tiny_peft(word), folder)


def _copied(source: Path, folder: Path) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True)


#: Who makes what lies in a repository.
_MAKERS: Final[Mapping[str, Callable[[Path], object]]] = MappingProxyType(
    {
        "meta-llama/Llama-2-7b-hf": _llama,
        "meta-llama/Llama-2-7b-chat-hf": _llama,
        "meta-llama/Llama-2-13b-hf": _llama,
        "meta-llama/Llama-2-70b-hf": _llama,
        "HuggingFaceTB/SmolLM3-3B": _llama,
        "unsloth/llama-2-7b-bnb-4bit": _of_four_bits,
        "large-model": _llama,
        "small-model": _llama,
        "gpt2": _gpt2,
        "distilbert-base-uncased-finetuned-sst-2-english": _sentiment,
        "distilbert-base-uncased": _sentiment,
        "bert-base": functools.partial(tiny_models.classifier, "bert"),
        "sentence-transformers/all-MiniLM-L6-v2": lambda folder: _copied(models.minilm_hf(), folder),
        "Salesforce/blip-image-captioning-large": functools.partial(tiny_vision.captioner, "blip"),
        "black-forest-labs/FLUX.1-dev": tiny_diffusion.flux,
        "tloen/alpaca-lora-7b": _adapter("arr"),
        "plncmm/guanaco-lora-7b": _adapter("ahoy"),
        "user/style-lora": _adapter("ahoy"),
        "medalpaca/medalpaca-lora-7b": _adapter("arr"),
        "user/formal-writing-lora": _adapter("arr"),
        "user/technical-lora": _adapter("ahoy"),
        "beomi/llama-2-ko-7b-lora": _adapter("ahoy"),
    }
)


@functools.cache
def _home() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="conformance-")


@functools.cache
def _made(maker: Callable[[Path], object]) -> Path:
    folder = Path(tempfile.mkdtemp(dir=_home().name))
    maker(folder)
    return folder


def folder_of(repository: str) -> Path:
    """What lies in a repository, as a folder that nobody may change."""
    return _made(_MAKERS[repository])


def files_of(repository: str) -> dict[str, bytes]:
    """The same as bytes by path."""
    return files_in(folder_of(repository))


def files_in(folder: Path) -> dict[str, bytes]:
    """All files of a folder as bytes by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def as_pytorch(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The same weights as PyTorch saves them, and no others."""
    import io

    import torch
    from safetensors.torch import load

    saved = io.BytesIO()
    torch.save(load(files[_WEIGHTS]), saved)
    others = {name: content for name, content in files.items() if name != _WEIGHTS}
    return {**others, "pytorch_model.bin": saved.getvalue()}


def written(files: Mapping[str, bytes], folder: Path) -> Path:
    """A folder with these files."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def esrgan(path: Path, **more: Any) -> Path:
    """A tiny ESRGAN as it is published, with random weights."""
    import torch

    from model_compose.tasks.image_upscale.torchvision_absent import import_spandrel

    import_spandrel()
    module = importlib.import_module("spandrel.architectures.ESRGAN")
    torch.manual_seed(0)
    torch.save(module.ESRGAN(**{"num_filters": 8, "num_blocks": 2, **more}).state_dict(), path)
    return path


def adapter(base: Path, folder: Path, *, rank: int) -> None:
    """Write a LoRA adapter of a model, with random weights that make a difference."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(rank)
    config = peft.LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=["q_proj", "v_proj"], init_lora_weights=False
    )
    model: Any = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    model.save_pretrained(folder)


def said_by_peft(base: Path, blend: Mapping[Path, float], prompt: str, count: int) -> list[str]:
    """The words that a model says with a blend of adapters, one after the other the most likely."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if blend:
        first, *others = blend
        model = peft.PeftModel.from_pretrained(model, str(first), adapter_name="0")
        for i, other in enumerate(others, start=1):
            model.load_adapter(str(other), adapter_name=str(i))
        names = [str(i) for i in range(len(blend))]
        model.add_weighted_adapter(names, list(blend.values()), "sum", combination_type="cat")
        model.set_adapter("sum")
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        for _ in range(count):
            following = model(input_ids=ids).logits[:, -1].argmax(-1, keepdim=True)
            ids = torch.cat([ids, following], dim=1)
    words: list[str] = tokenizer.decode(ids[0, -count:]).split()
    return words
