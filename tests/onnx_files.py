"""How do tests get ONNX files of every kind: tiny, with numbers by chance, and as exporters write them?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WORDS: Final = 40
#: [PAD] [CLS] [SEP] [UNK] stand before the words.
PAD, CLS, SEP, FIRST = 0, 1, 2, 4

_OPSET: Final = 17
_FLOAT: Final = TensorProto.FLOAT

Sizes = Sequence[int | str]


class Graph:
    """A graph that grows node by node; a node is known by the name of its output."""

    def __init__(self, seed: int = 0) -> None:
        self._chance = np.random.default_rng(seed)
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def input(self, name: str, sizes: Sizes, kind: int = TensorProto.FLOAT) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, kind, list(sizes)))
        return name

    def output(self, value: str, name: str, sizes: Sizes, kind: int = TensorProto.FLOAT) -> None:
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"as_{name}"))
        self._outputs.append(helper.make_tensor_value_info(name, kind, list(sizes)))

    def constant(self, value: Any) -> str:
        name = f"constant_{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def random(self, *shape: int, scale: float = 1.0) -> str:
        return self.constant((self._chance.standard_normal(shape) * scale).astype(np.float32))

    def node(self, operator: str, *inputs: str, name: str | None = None, **settings: Any) -> str:
        name = name or f"{operator}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **settings))
        return name

    def save(self, path: Path, **metadata: str) -> Path:
        graph = helper.make_graph(self._nodes, "graph", self._inputs, self._outputs, self._weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)
        helper.set_model_props(model, metadata)
        onnx.checker.check_model(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString())
        return path


def tokenizer_in(folder: Path, *, limit: int | None = None) -> Path:
    """Write a tokenizer whose words are `w4` to `w39`, with a token before and one behind each text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = {"[PAD]": PAD, "[CLS]": CLS, "[SEP]": SEP, "[UNK]": 3}
    words |= {f"w{i}": i for i in range(FIRST, WORDS)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.add_special_tokens(["[PAD]", "[CLS]", "[SEP]", "[UNK]"])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"pad_token": "[PAD]", **({} if limit is None else {"model_max_length": limit})}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def _hidden(
    graph: Graph, *, dim: int, masked: bool, sizes: Sizes, more: Sequence[str], kind: int
) -> tuple[str, str]:
    """Vectors of tokens, with the average of their text in them, and that: [b, t, d] and [b, 1, d]."""
    ids = graph.input("input_ids", sizes, kind)
    words = graph.node("Gather", graph.random(WORDS, dim), ids)
    axis = graph.constant(np.array([1], np.int64))
    if masked:
        mask = graph.node("Cast", graph.input("attention_mask", sizes, kind), to=TensorProto.FLOAT)
        mask = graph.node("Unsqueeze", mask, graph.constant(np.array([2], np.int64)))
        total = graph.node("ReduceSum", graph.node("Mul", words, mask), axis, keepdims=1)
        average = graph.node("Div", total, graph.node("ReduceSum", mask, axis, keepdims=1))
    else:
        average = graph.node("ReduceMean", words, axes=[1], keepdims=1)
    for name in more:
        port = graph.node("Cast", graph.input(name, sizes, kind), to=TensorProto.FLOAT)
        port = graph.node("Unsqueeze", port, graph.constant(np.array([2], np.int64)))
        words = graph.node("Add", words, graph.node("Mul", port, graph.random(dim)))
    return graph.node("Add", words, average), average


def embedder(
    path: Path,
    *,
    dim: int = 6,
    masked: bool = True,
    sizes: Sizes = ("batch", "tokens"),
    outputs: Sequence[str] = ("last_hidden_state",),
    more: Sequence[str] = (),
    kind: int = TensorProto.INT64,
) -> Path:
    """Write a model that embeds texts; `sentence_embedding` is three times the average of the words."""
    graph = Graph()
    hidden, average = _hidden(graph, dim=dim, masked=masked, sizes=sizes, more=more, kind=kind)
    for name in outputs:
        if name == "sentence_embedding":
            flat = graph.node("Squeeze", average, graph.constant(np.array([1], np.int64)))
            tripled = graph.node("Mul", flat, graph.constant(np.float32(3)))
            graph.output(tripled, name, (sizes[0], dim))
        else:
            graph.output(hidden, name, (*sizes, dim))
    return graph.save(path)


def classifier(
    path: Path,
    *,
    labels: int = 3,
    masked: bool = True,
    sizes: Sizes = ("batch", "tokens"),
    output: str = "logits",
    told: bool = True,
    **metadata: str,
) -> Path:
    """Write a model that classifies texts; `told`: the number of its labels stands in the file."""
    graph = Graph(1)
    _, average = _hidden(graph, dim=8, masked=masked, sizes=sizes, more=(), kind=TensorProto.INT64)
    flat = graph.node("Squeeze", average, graph.constant(np.array([1], np.int64)))
    graph.output(
        graph.node("MatMul", flat, graph.random(8, labels)), output, (sizes[0], labels if told else "n")
    )
    return graph.save(path, **metadata)


def upscaler(path: Path, *, factor: int = 2, sizes: Sizes = ("n", 3, "h", "w"), kernel: int = 5) -> Path:
    """Write a network of two layers that makes pictures larger; it sees `kernel - 1` pixels far."""
    graph = Graph(2)
    picture = graph.input("input", sizes)
    pad = kernel // 2
    wide = graph.node(
        "Conv",
        picture,
        graph.random(8, 3, kernel, kernel, scale=0.1),
        pads=[pad] * 4,
        kernel_shape=[kernel] * 2,
    )
    narrow = graph.node(
        "Conv",
        graph.node("Relu", wide),
        graph.random(3 * factor**2, 8, kernel, kernel, scale=0.05),
        pads=[pad] * 4,
        kernel_shape=[kernel] * 2,
    )
    found = graph.node("Sigmoid", graph.node("DepthToSpace", narrow, blocksize=factor))
    large = [size * factor if isinstance(size, int) else f"{size}{factor}" for size in sizes[2:]]
    graph.output(found, "output", (sizes[0], 3, *large))
    return graph.save(path)


def scrfd(path: Path, *, sizes: Sizes = (1, 3, "h", "w"), landmarks: bool = True, seed: int = 3) -> Path:
    """Write a network with the shape of insightface's detectors, which sees faces by chance."""
    graph = Graph(seed)
    picture = graph.input("input.1", sizes)
    kinds = [("score", 1), ("bbox", 4), *([("kps", 10)] if landmarks else [])]
    for kind, size in kinds:
        for stride in (8, 16, 32):
            small = graph.node("AveragePool", picture, kernel_shape=[stride] * 2, strides=[stride] * 2)
            found = graph.node("Conv", small, graph.random(2 * size, 3, 1, 1, scale=2), kernel_shape=[1, 1])
            found = graph.node("Transpose", found, perm=[0, 2, 3, 1])
            found = graph.node("Reshape", found, graph.constant(np.array([-1, size], np.int64)))
            if kind == "score":
                found = graph.node("Sigmoid", found)
            if kind == "bbox":
                found = graph.node("Abs", found)
            graph.output(found, f"{kind}_{stride}", ("n", size))
    return graph.save(path)


def of_faces(
    path: Path, *, side: int = 112, numbers: int = 16, rows: int | str = "n", first: Sequence[str] = ()
) -> Path:
    """Write a network that makes numbers of faces; `first` is what its first nodes are called."""
    graph = Graph(numbers)
    given = graph.input("data", (rows, 3, side, side))
    for name in first:
        given = graph.node("Mul", given, graph.constant(np.float32(0.1)), name=name)
    found = graph.node(
        "Conv", given, graph.random(8, 3, 5, 5, scale=0.1), strides=[4, 4], kernel_shape=[5, 5]
    )
    found = graph.node("AveragePool", graph.node("Tanh", found), kernel_shape=[5, 5], strides=[5, 5])
    found = graph.node("Flatten", found)
    edge = ((side - 5) // 4 + 1 - 5) // 5 + 1
    graph.output(
        graph.node("MatMul", found, graph.random(8 * edge**2, numbers, scale=0.1)), "fc1", (rows, numbers)
    )
    return graph.save(path)


#: Packs in the manner of insightface: how the recogniser and the model of gender and age begin, if there is
#: one. Networks that came from MXNet scale colours themselves.
PACKS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...] | None]]] = {
    "from torch": (("Conv_0",), None),
    "from mxnet": (("_minusscalar0", "_mulscalar0"), ("bn_data",)),
}
PACK_THRESHOLD: Final = 0.997


def pack(folder: Path, name: str) -> Path:
    """Write a pack whose networks see by chance, and one that is of no use for embedding faces."""
    recogniser, guesser = PACKS[name]
    scrfd(folder / "det_10g.onnx")
    of_faces(folder / "w600k_r50.onnx", numbers=16, first=recogniser)
    of_faces(folder / "2d106det.onnx", side=192, numbers=212)
    if guesser is not None:
        of_faces(folder / "genderage.onnx", side=96, numbers=3, first=guesser)
    return folder


def yunet(path: Path, *, sizes: Sizes = (1, 3, 640, 640), seed: int = 5) -> Path:
    """Write a network with the shape of YuNet, which sees faces by chance."""
    graph = Graph(seed)
    picture = graph.input("input", sizes)
    colours = graph.node("Mul", picture, graph.constant(np.float32(1 / 255)))
    for kind, size in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        for stride in (8, 16, 32):
            small = graph.node("AveragePool", colours, kernel_shape=[stride] * 2, strides=[stride] * 2)
            found = graph.node("Conv", small, graph.random(size, 3, 1, 1, scale=2), kernel_shape=[1, 1])
            found = graph.node("Transpose", found, perm=[0, 2, 3, 1])
            found = graph.node("Reshape", found, graph.constant(np.array([1, -1, size], np.int64)))
            if kind in ("cls", "obj"):
                found = graph.node("Sigmoid", found)
            graph.output(found, f"{kind}_{stride}", (1, "n", size))
    return graph.save(path)


def zoo(folder: Path) -> Path:
    """Write what looks like YuNet and SFace and sees by chance."""
    yunet(folder / "face_detection_yunet.onnx")
    of_faces(folder / "face_recognition_sface.onnx", numbers=128, rows=1)
    return folder
