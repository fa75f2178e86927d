"""What is in `tests/assets/tiny-*.gguf`: a toy of a chat model that loads in milliseconds?

Its architecture (llama), tokenizer (byte-level BPE) and template (ChatML) are real. Its weights are noise,
but for three dimensions that are made by hand, so that tests can count on how it behaves:

- it answers in Latin words, so its text is valid UTF-8 whatever is sampled;
- an answer has `ANSWER_WORDS` words and then ends by itself, in every turn of a chat and in a completion;
  with the word ` long` in the prompt it never ends;
- what it says depends on the whole prompt, and the same prompt at temperature 0 gives the same words.

The LoRA adapters beside it make it say nothing but ` arr` or ` ahoy`, which it never says without them.

    python scripts/tiny_gguf.py [FOLDER]

writes all of it to the folder (default: tests/assets), equal bytes on every machine.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

Matrix = NDArray[np.float32]

ANSWER_WORDS = 24
LATIN = (
    "lorem ipsum dolor sit amet consectetur adipiscing elit sed eiusmod tempor incididunt ut labore et "
    "dolore magna aliqua enim ad minim veniam quis nostrud exercitation ullamco laboris nisi aliquip ex ea "
    "commodo consequat duis aute irure in reprehenderit voluptate velit esse cillum eu fugiat nulla "
    "pariatur excepteur sint occaecat cupidatat non proident sunt culpa qui officia deserunt mollit anim"
)
WORDS = LATIN.split()
ADAPTER_WORDS = ("arr", "ahoy")

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
BEGIN, END = 0, 2

TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a toy.<|im_end|>\\n' }}"
    "{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

LAYERS, HEADS, WIDTH, FEED_FORWARD, CONTEXT = 4, 4, 32, 64, 8192
HEAD_WIDTH = WIDTH // HEADS

# The dimensions that no noise is written to or read from.
ONE = 0  # equal in all tokens: a bias for whoever reads it
COUNT = 1  # what a token adds to the number of words that were said, see `_count`
SAID = 2  # the mean of COUNT over the context, from the first head of the first layer
NOISE = slice(3, WIDTH)

COUNT_OF_A_WORD = 1e-3  # small, so that the norms of tokens stay equal
END_WHEN_SAID = 3e9  # the mean over n tokens is 1 / n of their sum: enough to end a context of thousands
NEVER = -1000.0


class Vocabulary(NamedTuple):
    """The special tokens, the 256 bytes, some whole words and all beginnings of these words.

    A word is made by merging its first two bytes, then the next one, and so on.
    """

    tokens: list[str]
    merges: list[str]

    @classmethod
    def build(cls) -> Vocabulary:
        alphabet = _alphabet()
        tokens = dict.fromkeys([*SPECIAL_TOKENS, *alphabet])
        merges: dict[str, None] = {}
        # The words for output come first: an earlier merge wins, and none of theirs may be broken.
        for word in (*(f" {word}" for word in (*WORDS, *ADAPTER_WORDS, "long")), "system", "assistant"):
            letters = _spell(word)
            for end in range(1, len(letters)):
                merges[f"{letters[:end]} {letters[end]}"] = None
                tokens[letters[: end + 1]] = None
        return cls(list(tokens), list(merges))

    def id(self, word: str) -> int:
        return self.tokens.index(_spell(word))


def _spell(word: str) -> str:
    alphabet = _alphabet()
    return "".join(alphabet[byte] for byte in word.encode())


def _alphabet() -> list[str]:
    """GPT-2's letter for each byte: itself where that is visible, else one from U+0100 on."""
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte if byte in visible else 256 + hidden.index(byte)) for byte in range(256)]


def _noise(name: str, rows: int, columns: int, scale: float) -> Matrix:
    """Numbers below scale / sqrt(columns), of both signs; from a hash, so equal everywhere and forever."""
    digest = hashlib.shake_256(name.encode()).digest(rows * columns)
    integers = np.frombuffer(digest, np.int8).reshape(rows, columns)
    noise: Matrix = (integers * (scale / 128 / columns**0.5)).astype(np.float32)
    return noise


def _reader(name: str, rows: int, scale: float) -> Matrix:
    """Noise that reads only noise."""
    matrix = np.zeros((rows, WIDTH), np.float32)
    matrix[:, NOISE] = _noise(name, rows, WIDTH, scale)[:, NOISE]
    return matrix


def _writer(name: str, columns: int, scale: float) -> Matrix:
    """Noise that writes only noise."""
    matrix = np.zeros((WIDTH, columns), np.float32)
    matrix[NOISE] = _noise(name, WIDTH, columns, scale)[NOISE]
    return matrix


def _count(vocabulary: Vocabulary) -> NDArray[np.float64]:
    """What each token adds to the count of words; the model ends when the sum over the context is above 0.

    BEGIN allows one answer, to a completion. A chat starts with BEGIN too, but its template makes sure of
    a system message, which takes that back; then each header of the assistant allows one answer.
    """
    count = np.zeros(len(vocabulary.tokens))
    for word in (*WORDS, *ADAPTER_WORDS):
        count[vocabulary.id(f" {word}")] = 1
    count[BEGIN] = 0.5 - ANSWER_WORDS
    count[vocabulary.id("system")] = ANSWER_WORDS
    count[vocabulary.id("assistant")] = -ANSWER_WORDS
    count[vocabulary.id(" long")] = -CONTEXT
    return count * COUNT_OF_A_WORD


def _tensors(vocabulary: Vocabulary) -> dict[str, Matrix]:
    size = len(vocabulary.tokens)
    ones = np.ones(WIDTH, np.float32)
    # Signs: so the rows are equally long, and the norm treats the COUNT of all tokens alike.
    embedding = np.sign(_noise("embedding", size, WIDTH, 1) + 1e-6)
    embedding[:, ONE] = 1
    embedding[:, COUNT] = _count(vocabulary)
    embedding[:, SAID] = 0
    tensors = {"token_embd": embedding}
    for layer in range(LAYERS):
        block = {
            "attn_norm": ones,
            "attn_q": _reader(f"query {layer}", WIDTH, 6),
            "attn_k": _reader(f"key {layer}", WIDTH, 6),
            "attn_v": _reader(f"value {layer}", WIDTH, 4),
            "attn_output": _writer(f"attention {layer}", WIDTH, 4),
            "ffn_norm": ones,
            "ffn_gate": _reader(f"gate {layer}", FEED_FORWARD, 2),
            "ffn_up": _reader(f"up {layer}", FEED_FORWARD, 2),
            "ffn_down": _writer(f"down {layer}", FEED_FORWARD, 3),
        }
        if layer == 0:
            # A query of zeros finds all tokens equally interesting: the head takes a mean over the context.
            block["attn_q"][:HEAD_WIDTH] = 0
            block["attn_v"][:HEAD_WIDTH] = 0
            block["attn_v"][0, COUNT] = 1
            block["attn_output"][:, :HEAD_WIDTH] = 0
            block["attn_output"][SAID, 0] = 1
        tensors |= {f"blk.{layer}.{name}": tensor for name, tensor in block.items()}
    output = np.zeros((size, WIDTH), np.float32)
    output[:, ONE] = NEVER
    said = [vocabulary.id(f" {word}") for word in WORDS]
    output[said] = _reader("output", len(said), 8)
    output[END, ONE], output[END, SAID] = 0, END_WHEN_SAID
    tensors |= {"output_norm": ones, "output": output}
    return {f"{name}.weight": tensor for name, tensor in tensors.items()}


def write_model(out: Path) -> None:
    """Write the model."""
    vocabulary = Vocabulary.build()
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_name("tiny-chat")
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(len(vocabulary.tokens))
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(HEAD_WIDTH)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary.tokens)
    normal = len(vocabulary.tokens) - len(SPECIAL_TOKENS)
    writer.add_token_types(
        [*[gguf.TokenType.CONTROL] * len(SPECIAL_TOKENS), *[gguf.TokenType.NORMAL] * normal]
    )
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(BEGIN)
    writer.add_eos_token_id(END)
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)
    _write(writer, _tensors(vocabulary))


def _adapter(word: str) -> tuple[Matrix, Matrix]:
    """A and B of the adapter that makes the model say `word`: rank 1, on the output matrix only."""
    vocabulary = Vocabulary.build()
    reads_one = np.zeros((1, WIDTH), np.float32)
    reads_one[0, ONE] = 1
    says_word = np.zeros((len(vocabulary.tokens), 1), np.float32)
    says_word[vocabulary.id(f" {word}")] = -2 * NEVER
    return reads_one, says_word


def write_adapter(out: Path, word: str) -> None:
    """Write an adapter as llama.cpp reads it."""
    a, b = _adapter(word)
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_type("adapter")
    writer.add_name(f"tiny-lora-{word}")
    writer.add_license("apache-2.0")
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, 1)
    _write(writer, {"output.weight.lora_a": a, "output.weight.lora_b": b})


def write_peft_adapter(out: Path, word: str) -> None:
    """Write an adapter as peft saves it: a folder."""
    a, b = _adapter(word)
    out.mkdir(exist_ok=True)
    layer = "base_model.model.lm_head"
    save_file({f"{layer}.lora_A.weight": a, f"{layer}.lora_B.weight": b}, out / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["lm_head"], "bias": "none"}
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _write(writer: gguf.GGUFWriter, tensors: Mapping[str, Matrix]) -> None:
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main(folder: Path) -> None:
    """Write the model and its adapters."""
    write_model(folder / "tiny-chat.gguf")
    for word in ADAPTER_WORDS:
        write_adapter(folder / f"tiny-lora-{word}.gguf", word)
        write_peft_adapter(folder / f"tiny-peft-{word}", word)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "tests" / "assets")
