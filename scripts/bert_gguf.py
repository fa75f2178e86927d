"""How does a BERT sentence encoder (safetensors, WordPiece) become a GGUF file for llama.cpp?

With `gguf`, `safetensors` and numpy alone. What such a file must say is read off llama.cpp itself: its graph
for the architecture `bert`, and its WordPiece tokenizer, `tokenizer.ggml.model` = `bert`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray
from safetensors.numpy import load_file

Tensors = dict[str, NDArray[Any]]

FILE_TYPES = {Kind.F16: gguf.LlamaFileType.MOSTLY_F16, Kind.Q8_0: gguf.LlamaFileType.MOSTLY_Q8_0}

# What training needed and a sentence encoder does not.
UNUSED = ("embeddings.position_ids", "pooler.")

# These are added to the embedding of a token, and ggml adds float32 only.
ADDED = ("position_embd.weight", "token_types.weight")


def convert(
    weights: Path,
    tokenizer: Path,
    out: Path,
    *,
    kind: Kind,
    name: str,
    heads: int,
    layer_norm_eps: float,
    pooling: gguf.PoolingType,
) -> None:
    """Write the encoder to `out`, its matrices as `kind` (F16 or Q8_0). Equal input gives equal bytes.

    weights         model.safetensors of a `BertModel`, which tells all sizes
    tokenizer       tokenizer.json with its WordPiece vocabulary
    name, heads, layer_norm_eps, pooling        what these two files do not tell
    Raises ValueError for a tensor that GGUF has no name for.
    """
    tensors = load_file(weights)
    writer = gguf.GGUFWriter(out, "bert")
    writer.add_name(name)
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    layers = _add_sizes(writer, tensors)
    writer.add_head_count(heads)
    writer.add_layer_norm_eps(layer_norm_eps)
    writer.add_pooling_type(pooling)
    writer.add_causal_attention(False)
    _add_vocabulary(writer, json.loads(tokenizer.read_text(encoding="utf-8")))
    _add_tensors(writer, tensors, layers, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_sizes(writer: gguf.GGUFWriter, tensors: Tensors) -> int:
    """Add what the shapes tell; the number of layers."""
    context, width = tensors["embeddings.position_embeddings.weight"].shape
    layers = sum(name.endswith("intermediate.dense.weight") for name in tensors)
    writer.add_context_length(context)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(tensors["encoder.layer.0.intermediate.dense.weight"].shape[0])
    writer.add_block_count(layers)
    writer.add_token_type_count(tensors["embeddings.token_type_embeddings.weight"].shape[0])
    return layers


def _add_vocabulary(writer: gguf.GGUFWriter, tokenizer: dict[str, Any]) -> None:
    ids: dict[str, int] = tokenizer["model"]["vocab"]
    tokens = sorted(ids, key=ids.__getitem__)
    special = {token["content"] for token in tokenizer["added_tokens"] if token["special"]}
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([token if token in special else _piece(token) for token in tokens])
    writer.add_token_types([control if token in special else normal for token in tokens])
    writer.add_bos_token_id(ids["[CLS]"])
    writer.add_sep_token_id(ids["[SEP]"])
    writer.add_unk_token_id(ids["[UNK]"])
    writer.add_pad_token_id(ids["[PAD]"])
    writer.add_mask_token_id(ids["[MASK]"])


def _piece(token: str) -> str:
    """BERT marks the pieces that continue a word, with `##`; llama.cpp those that begin one, with U+2581."""
    return token[2:] if token.startswith("##") else f"\u2581{token}"


def _add_tensors(writer: gguf.GGUFWriter, tensors: Tensors, layers: int, kind: Kind) -> None:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, layers)
    for name, tensor in sorted(tensors.items()):
        if name.startswith(UNUSED):
            continue
        renamed = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if renamed is None:
            raise ValueError(f"GGUF has no name for the tensor `{name}`")
        # Norms and biases are next to nothing in size, and every number of theirs counts.
        of_tensor = Kind.F32 if tensor.ndim == 1 or renamed in ADDED else kind
        writer.add_tensor(renamed, gguf.quants.quantize(tensor, of_tensor), raw_dtype=of_tensor)
