"""Where do the models lie that tests load?

The small ones are committed in `tests/assets/`. The others are fetched and made by
`python scripts/test_models.py`; where one of them is missing a test fails, it never skips.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Literal

Word = Literal["arr", "ahoy"]

_ROOT = Path(__file__).parents[1]
_ASSETS = _ROOT / "tests" / "assets"
_SCRIPT = "python scripts/test_models.py"

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_HF = "SmolLM2-135M-Instruct"
MINILM_HF = "all-MiniLM-L6-v2"
MINILM_Q8_0 = "all-MiniLM-L6-v2.Q8_0.gguf"
MINILM_F16 = "all-MiniLM-L6-v2.F16.gguf"
LANGID = "langid-MiniLM"
ANIMEVIDEOV3 = "realesr-animevideov3.safetensors"
X4PLUS = "RealESRGAN_x4plus.safetensors"
MINILM_ONNX = "all-MiniLM-L6-v2-onnx"
YUNET_SFACE = "yunet-sface"

# For `with_chat_template`. llama.cpp renders the template of a file while it loads it, to see what it can do.
HOSTILE_TEMPLATES = {
    "endless": "{% for i in range(1000000000) %}x{% endfor %}",  # never loads, and eats memory
    "bottomless": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",  # a crash of the process
    "prying": "{{ ''.__class__.__mro__ }}",  # renders to nothing
    "prying further": "{{ cycler.__init__.__globals__ }}",  # renders to nothing
    "calling": "{{ ''.__class__.__base__.__subclasses__() }}",  # refused
    "raising": "{{ raise_exception('no') }}",  # refused
    "broken": "{% for %}",  # refused
}

_TEMPLATE_KEY = b"tokenizer.chat_template"
_ALIGNMENT = 32


def folder() -> Path:
    """Where the models lie that are not committed: `$MODEL_COMPOSE_TEST_CACHE`, else `.cache/test-models`."""
    chosen = os.environ.get("MODEL_COMPOSE_TEST_CACHE")
    return Path(chosen).absolute() if chosen else _ROOT / ".cache" / "test-models"


def unsloth_python() -> Path:
    """The interpreter of an environment with Unsloth, which `make models` makes."""
    python = folder().parent / "unsloth-env" / "bin" / "python"
    assert python.exists(), f"{python} is missing: run `make models`"
    return python


def tiny_chat() -> Path:
    """A toy that loads in milliseconds and speaks Latin; `scripts/tiny_gguf.py` says how it behaves."""
    return _ASSETS / "tiny-chat.gguf"


def tiny_lora(word: Word) -> Path:
    """An adapter for `tiny_chat` that makes it say this word only."""
    return _ASSETS / f"tiny-lora-{word}.gguf"


def tiny_peft(word: Word) -> Path:
    """The same adapter as peft saves it: a folder."""
    return _ASSETS / f"tiny-peft-{word}"


def pirate_lora() -> Path:
    """An adapter for `smollm2` that makes its answers begin with `Arr!`."""
    return _ASSETS / "pirate-lora-f16.gguf"


def pirate_peft() -> Path:
    """The same adapter as peft saves it, for `smollm2_hf`: a folder."""
    return _ASSETS / "pirate-peft"


def smollm2() -> Path:
    """SmolLM2-135M-Instruct, a real chat model, 98 MB."""
    return _fetched(SMOLLM2)


def smollm2_hf() -> Path:
    """The same weights for transformers: a folder, in float32, 542 MB."""
    return _fetched(SMOLLM2_HF)


def minilm_hf() -> Path:
    """all-MiniLM-L6-v2 for sentence-transformers, in float32, 92 MB; it cuts a text at 256 tokens."""
    return _fetched(MINILM_HF)


def langid() -> Path:
    """Tells 12 European languages apart, `BertForSequenceClassification` with 3 layers, in float16, 35 MB."""
    return _fetched(LANGID)


def minilm_onnx() -> Path:
    """all-MiniLM-L6-v2 as an ONNX file in a folder, with weights of eight bits, 24 MB."""
    return _fetched(MINILM_ONNX)


def yunet_sface() -> Path:
    """YuNet and SFace of the OpenCV Zoo as ONNX files in a folder, in float32, 39 MB."""
    return _fetched(YUNET_SFACE)


def animevideov3() -> Path:
    """The smallest Real-ESRGAN, an `SRVGGNetCompact`, 4 times larger, convolutions in float16, 1.3 MB."""
    return _fetched(ANIMEVIDEOV3)


def x4plus() -> Path:
    """The Real-ESRGAN that everybody knows, an `RRDBNet`, 4 times larger, convolutions in float16, 33 MB."""
    return _fetched(X4PLUS)


def minilm_gguf() -> Path:
    """all-MiniLM-L6-v2, a real sentence encoder with 384 numbers a text and 512 tokens at most, 25 MB."""
    return _fetched(MINILM_Q8_0)


def _fetched(name: str) -> Path:
    path = folder() / name
    if not path.exists():
        raise FileNotFoundError(f"`{path}` is missing; run `{_SCRIPT}` once, which fetches or makes it")
    return path


def truncated(model: Path, out: Path, size_bytes: int) -> Path:
    """Write the first bytes of a model to `out`, as a broken download leaves it."""
    with model.open("rb") as file:
        out.write_bytes(file.read(size_bytes))
    return out


def with_chat_template(template: str, out: Path) -> Path:
    """Write `tiny_chat` to `out` with another chat template, however hostile."""
    content = tiny_chat().read_bytes()
    # A string in GGUF: its key, four bytes for its type, eight for its length, its text.
    length_at = content.index(_TEMPLATE_KEY) + len(_TEMPLATE_KEY) + 4
    (length,) = struct.unpack_from("<Q", content, length_at)
    text_at = length_at + 8
    text = template.encode()
    # The weights behind it must move by a multiple of the alignment; a comment fills up.
    missing = (length - len(text) - len(b"{##}")) % _ALIGNMENT
    text += b"{#" + b" " * missing + b"#}"
    out.write_bytes(
        content[:length_at] + struct.pack("<Q", len(text)) + text + content[text_at + length :],
    )
    return out
