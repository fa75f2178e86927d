"""How do weights that are packed otherwise become folders that transformers loads?"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors.numpy import load_file, save_file

#: What BERT's tokenizer consists of.
TOKENIZER: Final = ("special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")


def from_gguf(weights: Path, out: Path) -> None:
    """Write a causal language model to the folder `out`, its weights and its tokenizer, in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {
        "pretrained_model_name_or_path": str(weights.parent),
        "gguf_file": weights.name,
        "local_files_only": True,
    }
    packed = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # It says that it is quantized, which a folder with float32 weights must not say.
    if hasattr(packed.config, "quantization_config"):
        del packed.config.quantization_config
    plain: Any = type(packed)(packed.config)
    plain.to(torch.float32)
    plain.load_state_dict(packed.state_dict())
    plain.generation_config = packed.generation_config
    plain.save_pretrained(out)
    AutoTokenizer.from_pretrained(**where).save_pretrained(out)


def classifier(encoder: Path, head: Path, config: Path, out: Path) -> None:
    """Write a classifier to the folder `out`, in float16.

    encoder  folder of the sentence encoder that it was made from: its embeddings and lower layers stay
    head     weights that were trained: the last layer, the pooler, the classifier
    """
    trained = load_file(head)
    first = min(int(name.split(".")[3]) for name in trained if ".layer." in name)
    weights = {
        f"bert.{name}": tensor.astype(np.float16)
        for name, tensor in load_file(encoder / "model.safetensors").items()
        if _is_kept(name, first)
    }
    out.mkdir()
    save_file(weights | trained, out / "model.safetensors", metadata={"format": "pt"})
    shutil.copy(config, out / "config.json")
    for name in TOKENIZER:
        shutil.copy(encoder / name, out / name)


def _is_kept(name: str, trained_layer: int) -> bool:
    """Whether a tensor of the encoder is one of the classifier too."""
    if name.startswith("encoder.layer."):
        return int(name.split(".")[2]) < trained_layer
    return name.startswith("embeddings.") and name != "embeddings.position_ids"
