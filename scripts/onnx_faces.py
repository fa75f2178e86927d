"""How do face networks whose weights lie in blocks of int8 become files that onnxruntime takes?

The OpenCV Zoo's `_int8bq` files keep weights as int8 with a scale for each block, behind a `DequantizeLinear`
each. onnxruntime refuses them: for a `block_size` that has nothing to divide, and for inputs that nothing
reads. So the weights are multiplied out to float32, and what was left over is dropped; the network is the
same. With `onnx` and numpy alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[Any]


def convert(source: Path, out: Path) -> None:
    """Write the network to `out` with float32 weights. Equal input gives equal bytes."""
    model = onnx.load(source)
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and all(name in weights for name in node.input if name):
            name = node.output[0]
            weights[name] = numpy_helper.from_array(_multiplied_out(node, weights), name)
        else:
            nodes.append(node)
    read = {name for node in nodes for name in node.input}
    kept = [tensor for name, tensor in weights.items() if name in read]
    names = {tensor.name for tensor in kept}
    _replace(graph.node, nodes)
    _replace(graph.initializer, kept)
    _replace(graph.input, [port for port in graph.input if port.name in read and port.name not in names])
    _replace(graph.value_info, [])  # shapes of what is in between, some of which is gone
    onnx.checker.check_model(model)
    out.write_bytes(model.SerializeToString(deterministic=True))


def _multiplied_out(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> Array:
    """The weights that a node makes of whole numbers, their scales and zero points."""
    values, scales, *more = (numpy_helper.to_array(weights[name]).astype(np.float32) for name in node.input)
    zeros = more[0] if more else np.zeros_like(scales)
    settings = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    scales, zeros = (_spread(each, values, settings.get("axis", 1)) for each in (scales, zeros))
    return np.ascontiguousarray((values - zeros) * scales, dtype=np.float32)


def _spread(scales: Array, values: Array, axis: int) -> Array:
    """Scales in a shape that multiplies values: of the whole tensor, of each row along an axis, of blocks."""
    if scales.size == 1:
        return scales.reshape(())
    axis = axis if -values.ndim <= axis < values.ndim else 0
    if scales.ndim < values.ndim:
        shape = [1] * values.ndim
        shape[axis] = -1
        return scales.reshape(shape)
    block = -(-values.shape[axis] // scales.shape[axis])
    return np.repeat(scales, block, axis=axis).take(range(values.shape[axis]), axis=axis)


def _replace(field: Any, content: list[Any]) -> None:
    del field[:]
    field.extend(content)
