"""What does each way of quantizing cost and spoil on this CPU?

    python -m bench.quantization FOLDER [THREADS] [ROUNDS]
    python -m bench.quantization layer

A small Llama of float32 weights, in turns by every way there is: ours, and those that were not chosen.
With one thread the seconds are those of the thread, which neighbours on the machine hardly change.
"""

from __future__ import annotations

import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, DynamicCache

from model_compose.drivers.huggingface import quantize

PROSE = Path(__file__).parents[1] / "docs" / "design.md"
PROMPT, DECODED, PREFILL, JUDGED = 16, 8, 256, 512


class OneDigit(quantize.Int8):
    """Activations of 7 bits, scaled per row."""

    def _product(self, rows: Tensor) -> Tensor:
        scale = rows.abs().amax(-1, keepdim=True).clamp_min_(1e-30)
        y: Tensor = self._multiply(rows / scale, 1 / 63, 64, self._packed)
        return y.mul_(scale)


class PerTensor(quantize.Int8):
    """What torch's dynamic quantization does: one scale for a batch."""

    def _product(self, rows: Tensor) -> Tensor:
        y: Tensor = torch.ops.quantized.linear_dynamic(rows, self._packed, True)
        return y


class Int8Pack(quantize.Int8AtUse):
    """torch's kernel of weights in int8; it is vectorized for bfloat16 only."""

    def _product(self, rows: Tensor) -> Tensor:
        scales = self.scales[0].bfloat16()
        return torch._weight_int8pack_mm(rows.bfloat16(), self.codes, scales).float()


def _load(folder: str, **more: Any) -> Any:
    loader: Any = AutoModelForCausalLM
    return loader.from_pretrained(folder, dtype=torch.float32, device_map="cpu", **more).eval()


def _ours(layer: type[quantize.QuantizedLinear]) -> Callable[[str], Any]:
    def load(folder: str) -> Any:
        model = _load(folder)
        quantize._replace(model, layer, torch.float32)
        return model

    return load


def _bitsandbytes(**config: Any) -> Callable[[str], Any]:
    made: Any = BitsAndBytesConfig
    return lambda folder: _load(folder, quantization_config=made(**config))


WAYS: dict[str, Callable[[str], Any]] = {
    "float32": _load,
    "int8 (ours: two digits, per row)": _ours(quantize.Int8),
    "int8, one digit, per row": _ours(OneDigit),
    "int8, dynamic, per tensor": _ours(PerTensor),
    "int8, torch int8pack, bfloat16": _ours(Int8Pack),
    "int8, float at use": _ours(quantize.Int8AtUse),
    "int8, bitsandbytes": _bitsandbytes(load_in_8bit=True, llm_int8_threshold=0.0),
    "int4 (ours: torch int4pack)": _ours(quantize.Int4),
    "int4, float at use": _ours(quantize.Int4AtUse),
    "nf4 (bitsandbytes)": _bitsandbytes(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "fp4 (bitsandbytes)": _bitsandbytes(load_in_4bit=True, bnb_4bit_quant_type="fp4"),
}


def _decode(model: Any, ids: Tensor, clock: Callable[[], float]) -> float:
    """Tokens per second of a greedy decode, all rows together."""
    cache = DynamicCache(config=model.config)
    token = model(ids, past_key_values=cache, logits_to_keep=1).logits[:, -1:].argmax(-1)
    began = clock()
    for _ in range(DECODED):
        token = model(token, past_key_values=cache, logits_to_keep=1).logits[:, -1:].argmax(-1)
    return DECODED * len(ids) / (clock() - began)


def _prefill(model: Any, ids: Tensor, clock: Callable[[], float]) -> float:
    began = clock()
    model(ids, logits_to_keep=1)
    return ids.numel() / (clock() - began)


def _judge(model: Any, ids: Tensor, base: Tensor | None) -> tuple[Tensor, str]:
    """Distance from float32, and how often the most likely token is another one."""
    found = torch.log_softmax(model(ids).logits.double(), -1)
    base = found if base is None else base
    distance = (base.exp() * (base - found)).sum(-1).mean().item()
    same = (base.argmax(-1) == found.argmax(-1)).double().mean().item()
    return base, f"{distance:.4f} | {100 * same:.1f} %"


def layer(size: int = 2048, rounds: int = 7) -> None:
    """Microseconds of one layer, larger than those of the small model, with one thread."""
    torch.set_num_threads(1)
    plain = torch.nn.Linear(size, size, bias=False).requires_grad_(False)
    kinds = (quantize.Int8, Int8Pack, quantize.Int4)
    ways = [plain, *(kind(plain.weight, None, torch.float32) for kind in kinds)]
    print("| | 1 row | 8 rows | 128 rows |\n|---|---|---|---|")
    times: dict[tuple[int, int], list[float]] = {}
    with torch.inference_mode():
        for _ in range(rounds):
            for rows in (1, 8, 128):
                x = torch.randn(rows, size)
                for i, way in enumerate(ways):
                    way(x)
                    calls, began = max(3, 64 // rows), time.thread_time()
                    for _ in range(calls):
                        way(x)
                    times.setdefault((i, rows), []).append((time.thread_time() - began) / calls * 1e6)
    for i, way in enumerate(ways):
        shown = " | ".join(
            f"{statistics.median(each):.0f} ({min(each):.0f}-{max(each):.0f})"
            for each in (times[i, rows] for rows in (1, 8, 128))
        )
        print(f"| {type(way).__name__} | {shown} |")


def main(folder: str, threads: int, rounds: int) -> None:
    warnings.simplefilter("ignore")
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    torch.set_num_threads(threads)
    clock = time.thread_time if threads == 1 else time.perf_counter
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(PROSE.read_text(), return_tensors="pt").input_ids
    one, eight = ids[:, :PROMPT], ids[:, : 8 * PROMPT].view(8, PROMPT)
    models = {name: load(folder) for name, load in WAYS.items()}
    times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in models}
    with torch.inference_mode():
        for turn in range(rounds + 1):
            for name, model in models.items():
                each = _decode(model, one, clock), _decode(model, eight, clock)
                if turn:  # the first warms up
                    times[name].append((*each, _prefill(model, ids[:, :PREFILL], clock)))
        base = None
        print("| | decode, 1 row | 8 rows | prefill | MB | KL | same token |\n|---|---|---|---|---|---|---|")
        for name, model in models.items():
            base, judged = _judge(model, ids[:, :JUDGED], base)
            speeds = " | ".join(
                f"{statistics.median(values):.1f} ({min(values):.1f}-{max(values):.1f})"
                for values in zip(*times[name], strict=True)
            )
            print(
                f"| {name} | {speeds} | {quantize.quantized_bytes(model) / 1e6:.0f} | {judged} |", flush=True
            )


if __name__ == "__main__":
    if sys.argv[1:] == ["layer"]:
        layer()
    else:
        main(sys.argv[1], *(int(n) for n in [*sys.argv[2:], *("1", "3")[len(sys.argv) - 2 :]]))
