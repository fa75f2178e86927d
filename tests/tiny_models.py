"""How do tests get a model of any architecture: random, tiny, and as it lies in a folder of the Hub?"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

VOCABULARY: Final = 96

_SIZES: Final[dict[str, Any]] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

#: Architectures of decoders, each with what makes it different.
DECODERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "llama": ("LlamaConfig", {}),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}),
    "mistral": ("MistralConfig", {"sliding_window": 5}),
    "gemma2": ("Gemma2Config", {"sliding_window": 5, "head_dim": 8, "query_pre_attn_scalar": 8}),
    "gpt_neox": ("GPTNeoXConfig", {"rotary_pct": 0.5}),
    "opt": ("OPTConfig", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "bloom": ("BloomConfig", {"n_layer": 2, "n_head": 4}),
    "mamba": ("MambaConfig", {"state_size": 4}),
}


def tokenizer_in(folder: Path, size: int = VOCABULARY) -> None:
    """Write a tokenizer whose words are `w3` to `w95`, or more."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": 0, "<s>": 1, "</s>": 2, **{f"w{i}": i for i in range(3, size)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)


def decoder(kind: str, folder: Path, **more: Any) -> Path:
    """Write a causal language model of an architecture."""
    import torch
    import transformers

    name, own = DECODERS[kind]
    config = getattr(transformers, name)(**{**_SIZES, **own, **more})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    # Random weights of the usual size repeat one word for ever: what differs must be seen.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    tokenizer_in(folder)
    return folder


def seq2seq(folder: Path) -> Path:
    """Write an encoder-decoder, a T5."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = T5ForConditionalGeneration(config)
    model.generation_config.decoder_start_token_id = 0
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    model.save_pretrained(folder)
    tokenizer_in(folder)
    return folder


#: Architectures that read a text as a whole, each with what makes it different.
ENCODERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "bert": ("BertConfig", {}),
    "roberta": ("RobertaConfig", {"pad_token_id": 0, "type_vocab_size": 1}),
    "xlm_roberta": ("XLMRobertaConfig", {"pad_token_id": 0}),
    "distilbert": ("DistilBertConfig", {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4}),
    "albert": ("AlbertConfig", {"embedding_size": 16}),
    "electra": ("ElectraConfig", {"embedding_size": 16}),
    "mpnet": ("MPNetConfig", {"pad_token_id": 0}),
    "deberta": ("DebertaV2Config", {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}),
    "modernbert": ("ModernBertConfig", {"local_attention": 8}),
    "t5": ("T5Config", {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}),
    "llama": ("LlamaConfig", {}),
}


def encoder(kind: str, folder: Path) -> Path:
    """Write an encoder of an architecture."""
    import transformers

    name, own = ENCODERS[kind]
    config = getattr(transformers, name)(**{**_SIZES, **own})
    auto = transformers.AutoModelForTextEncoding if kind == "t5" else transformers.AutoModel
    return _written(auto, config, folder)


def classifier(kind: str, folder: Path, **more: Any) -> Path:
    """Write a classifier of an architecture."""
    import transformers

    name, own = ENCODERS[kind]
    config = getattr(transformers, name)(**{**_SIZES, **own, **more})
    return _written(transformers.AutoModelForSequenceClassification, config, folder)


def of_four_bits(whole: Path, folder: Path) -> Path:
    """Write a causal language model as a checkpoint of 4 bits, as Unsloth has thousands on the hub."""
    import torch
    import transformers

    how = transformers.BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(whole, quantization_config=how)
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(whole).save_pretrained(folder)
    return folder


def _written(auto: Any, config: Any, folder: Path) -> Path:
    """A model with weights so large that a wrong position or mask shows."""
    import torch

    torch.manual_seed(0)
    model = auto.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)
    model.save_pretrained(folder)
    tokenizer_in(folder)
    return folder
