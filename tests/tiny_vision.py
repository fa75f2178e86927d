"""How do tests get a model that describes images: random, tiny, and as it lies in a folder of the Hub?"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from model_compose.types import Blob

#: Side of the images that the models look at.
SIDE: Final = 32

_SIZES: Final[dict[str, Any]] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
_VISION: Final[dict[str, Any]] = {**_SIZES, "image_size": SIDE, "patch_size": 8}
_SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SIGNS: Final = ("'", ".", ",", "?", "s", "t", "##s", "##ing")
_WORDS: Final = (
    *("a", "an", "the", "of", "photo", "picture", "what", "is", "who", "where", "man", "woman", "dog"),
    *("cat", "two", "three", "red", "blue", "green", "old", "sleep", "sit", "play", "on", "in", "with"),
    *("and", "hat", "ball", "tree", "street", "house", "grass", "water", "sky", "left", "right", "big"),
    *("small", "white", "black", "near", "under"),
)
_PADDING: Final = tuple(f"word{i}" for i in range(96 - len(_SPECIAL) - len(_SIGNS) - len(_WORDS)))
#: Of the two that read with the tokenizer of BERT; BLIP's start has a number behind its vocabulary.
VOCABULARY: Final = (*_SPECIAL, *_SIGNS, *_WORDS, *_PADDING)

KINDS: Final = ("blip", "git", "vit-gpt2")


def captioner(kind: str, folder: Path, **more: Any) -> Path:
    """Write a model that describes images, of one of the `KINDS`; `more` goes into its configuration."""
    model = {"blip": _blip, "git": _git, "vit-gpt2": _vit_gpt2}[kind](more)
    _enlarge(model)
    model.save_pretrained(folder)
    {"blip": _bert_tokenizer, "git": _bert_tokenizer, "vit-gpt2": _gpt2_tokenizer}[kind](folder)
    processors: dict[str, dict[str, Any]] = {
        "blip": {"image_processor_type": "BlipImageProcessor"},
        "git": {
            "image_processor_type": "CLIPImageProcessor",
            "crop_size": {"height": SIDE, "width": SIDE},
            "do_center_crop": True,
        },
        # As old as the model that everybody uses.
        "vit-gpt2": {"feature_extractor_type": "ViTFeatureExtractor", "image_mean": [0.5] * 3},
    }
    size: Any = {"shortest_edge": SIDE} if kind == "git" else {"height": SIDE, "width": SIDE}
    about = {"do_resize": True, "do_normalize": True, "resample": 3, "size": size, **processors[kind]}
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    return folder


def _blip(more: dict[str, Any]) -> Any:
    from transformers import BlipConfig, BlipForConditionalGeneration

    text = {
        **_SIZES,
        "vocab_size": len(VOCABULARY) + 2,
        "bos_token_id": len(VOCABULARY),
        "sep_token_id": VOCABULARY.index("[SEP]"),
        "max_position_embeddings": 64,
        **more,
    }
    vision = {**_VISION, "initializer_range": 0.02}
    return _seeded(lambda: BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision)))


def _git(more: dict[str, Any]) -> Any:
    from transformers import GitConfig, GitForCausalLM

    config = GitConfig(
        **_SIZES,
        **{
            "vision_config": _VISION,
            "vocab_size": len(VOCABULARY),
            "bos_token_id": VOCABULARY.index("[CLS]"),
            "eos_token_id": VOCABULARY.index("[SEP]"),
            "max_position_embeddings": 64,
            **more,
        },
    )
    return _seeded(lambda: GitForCausalLM(config))


def _vit_gpt2(more: dict[str, Any]) -> Any:
    from transformers import (
        GPT2Config,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
        ViTConfig,
    )

    end = len(_bytes()) - 1
    decoder = {
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 64,
        "vocab_size": len(_bytes()),
        "bos_token_id": end,
        "eos_token_id": end,
        "add_cross_attention": True,
        "is_decoder": True,
        **more,
    }
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        ViTConfig(**_VISION),
        GPT2Config(**decoder),
        decoder_start_token_id=end,
        pad_token_id=end,
        eos_token_id=end,
    )
    return _seeded(lambda: VisionEncoderDecoderModel(config=config))


def _seeded(make: Any) -> Any:
    import torch

    torch.manual_seed(0)
    return make()


def _enlarge(model: Any) -> None:
    """Random weights of the usual size say the same of every image."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)


def _bert_tokenizer(folder: Path) -> None:
    from transformers import BertTokenizer

    vocabulary = {word: i for i, word in enumerate(VOCABULARY)}
    tokenizer: Any = BertTokenizer(vocab=vocabulary, clean_up_tokenization_spaces=True)
    tokenizer.save_pretrained(folder)


def _gpt2_tokenizer(folder: Path) -> None:
    from transformers import GPT2Tokenizer

    tokenizer: Any = GPT2Tokenizer(vocab=_bytes(), merges=[])
    tokenizer.save_pretrained(folder)


def _bytes() -> dict[str, int]:
    """The tokens of GPT-2 without its merges: a character of more bytes than one is several tokens."""
    from tokenizers.pre_tokenizers import ByteLevel

    return {token: i for i, token in enumerate([*sorted(ByteLevel.alphabet()), "<|endoftext|>"])}


def image(seed: int, *, side: int = 48) -> Blob:
    """An image like no other, as a file."""
    from PIL import Image

    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(blocks).resize((side, side), Image.Resampling.NEAREST).save(out, "PNG")
    return Blob("image/png", out.getvalue())
