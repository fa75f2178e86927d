"""What does a graph in a file need to be loaded, and what is said of one that cannot be?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from tests import onnx_files
from tests.engines import load_options

from model_compose.drivers.contract import LoadOptions, Quantization
from model_compose.drivers.custom.nodes import first_nodes
from model_compose.drivers.custom.onnx import OnnxSession
from model_compose.drivers.custom.session import Session, beside, graph_of, info_of, open_session
from model_compose.errors import DriverMissing, EngineError, ModelLoadError, OutOfMemory
from model_compose.sources.local import locate
from model_compose.sources.spec import LocalSource


def options(path: Path, **more: Any) -> LoadOptions:
    return load_options(path, "text-embedding", **more)


def folder_options(path: Path, form: Any = None) -> LoadOptions:
    """As the service makes them of a folder that a file names."""
    return replace(options(path), source=locate(LocalSource(path=str(path), format=form), path.parent))


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    return onnx_files.classifier(tmp_path / "model.onnx", author="a test")


@pytest.fixture
def session(graph: Path) -> Session:
    return open_session(graph, options(graph))


def feeds(ids: list[list[int]], dtype: Any = np.int64) -> dict[str, Any]:
    return {"input_ids": np.array(ids, dtype), "attention_mask": np.ones((len(ids), len(ids[0])), dtype)}


def test_inputs_and_outputs_have_names_shapes_and_numbers(session: Session) -> None:
    assert list(session.inputs) == ["input_ids", "attention_mask"]
    assert session.inputs["input_ids"].shape == (None, None)
    assert session.inputs["input_ids"].dtype == np.int64
    assert str(session.outputs["logits"]) == "`logits` float32 [?, 3]"
    assert session.metadata == {"author": "a test"}


def test_what_is_fed_becomes_the_numbers_that_the_graph_takes(session: Session) -> None:
    exact = session.run(feeds([[1, 7, 2]]), ["logits"])["logits"]
    assert exact.shape == (1, 3)
    assert (session.run(feeds([[1, 7, 2]], np.int32), ["logits"])["logits"] == exact).all()


def test_only_the_wanted_outputs_are_computed(tmp_path: Path) -> None:
    path = onnx_files.embedder(tmp_path / "m.onnx", outputs=("last_hidden_state", "sentence_embedding"))
    found = open_session(path, options(path)).run(feeds([[1, 7, 2]]), ["sentence_embedding"])
    assert list(found) == ["sentence_embedding"]


def test_threads_are_those_of_the_component_and_fixed(graph: Path) -> None:
    asked = replace(options(graph), threads=3)
    loaded = OnnxSession.load(graph, asked)
    assert loaded._inner.get_session_options().intra_op_num_threads == 3
    info = info_of(loaded, asked)
    assert (info.threads, info.elastic) == (3, False)
    assert info.details["device"] == "cpu"
    assert info.details["engine"].startswith("onnxruntime 1.")
    assert info.details["file"] == "model.onnx"


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_a_device_whose_provider_is_missing_is_refused_with_those_that_are_there(
    graph: Path, device: str
) -> None:
    with pytest.raises(ModelLoadError, match=rf"`device: {device}` needs `\w+ExecutionProvider`") as caught:
        open_session(graph, options(graph, device=device))
    assert "`CPUExecutionProvider`" in (caught.value.hint or "")


def test_providers_of_the_file_win(graph: Path) -> None:
    own = {"providers": ["CPUExecutionProvider"]}
    assert open_session(graph, options(graph, device="cuda", options=own)).on_cpu
    with pytest.raises(ModelLoadError, match=r"`options\.providers` names `NoExecutionProvider`"):
        open_session(graph, options(graph, options={"providers": ["NoExecutionProvider"]}))


@pytest.mark.parametrize(
    "more", [{"precision": "bfloat16"}, {"quantization": Quantization(type="int8")}], ids=str
)
def test_the_numbers_of_the_file_cannot_be_chosen(graph: Path, more: dict[str, Any]) -> None:
    (key,) = more
    with pytest.raises(ModelLoadError, match=f"`{key}` cannot be chosen"):
        open_session(graph, options(graph, **more))
    assert open_session(graph, options(graph, precision="auto"))


def test_a_broken_file_is_told_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"this is no graph")
    with pytest.raises(ModelLoadError, match=r"onnxruntime cannot load `broken\.onnx`: .*Protobuf"):
        open_session(path, options(path))
    with pytest.raises(ModelLoadError, match="no ONNX file, or not whole"):
        first_nodes(path, 8)


def test_a_missing_library_is_told_with_what_installs_it(
    graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DriverMissing, match="`onnxruntime` cannot be imported") as caught:
        open_session(graph, options(graph))
    assert "[onnx]" in (caught.value.hint or "")


def test_what_goes_wrong_in_a_pass_is_an_error_of_that_pass(session: Session) -> None:
    with pytest.raises(EngineError, match="onnxruntime: "):
        session.run(feeds([[1, 999, 2]]), ["logits"])
    assert session.run(feeds([[1, 7, 2]]), ["logits"])["logits"].shape == (1, 3)


def test_memory_that_does_not_suffice_is_told_as_such(tmp_path: Path) -> None:
    graph = onnx_files.Graph()
    size = graph.input("size", (1,), onnx.TensorProto.INT64)
    graph.output(graph.node("ConstantOfShape", size), "much", ("n",))
    path = graph.save(tmp_path / "much.onnx")
    session = open_session(path, options(path))
    with pytest.raises(OutOfMemory) as caught:
        session.run({"size": np.array([1 << 55])}, ["much"])
    assert caught.value.hint


@pytest.mark.parametrize("name", ["model.onnx", "onnx/model.onnx", "onnx/model_quantized.onnx", "m.onnx"])
def test_the_file_of_a_folder_is_found(tmp_path: Path, name: str) -> None:
    onnx_files.classifier(tmp_path / "m" / name)
    (tmp_path / "m" / "config.json").write_text("{}")
    found = graph_of(folder_options(tmp_path / "m"))
    assert found == tmp_path / "m" / name
    assert beside(found, "config.json") == tmp_path / "m" / "config.json"


def test_of_several_files_one_must_be_named(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    for name in ("onnx/model.onnx", "onnx/model_quantized.onnx"):
        onnx_files.classifier(folder / name)
    with pytest.raises(ModelLoadError, match=r"`onnx/model\.onnx`, `onnx/model_quantized\.onnx`") as caught:
        graph_of(folder_options(folder))
    assert f"model: {folder}/onnx/model.onnx" in (caught.value.hint or "")
    named = folder / "onnx" / "model_quantized.onnx"
    assert graph_of(folder_options(named)) == named


def test_a_folder_with_nothing_for_us_is_told(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.safetensors").touch()
    with pytest.raises(ModelLoadError, match="has no ONNX file"):
        graph_of(folder_options(tmp_path / "m"))
    with pytest.raises(ModelLoadError, match="no ONNX file and no TensorRT engine"):
        graph_of(folder_options(tmp_path / "m" / "model.safetensors"))
    nothing = replace(options(tmp_path), source=None)
    with pytest.raises(ModelLoadError, match="`model` is missing"):
        graph_of(nothing)


def with_data_elsewhere(path: Path, location: str) -> Path:
    """A graph whose weights lie in another file."""
    onnx_files.classifier(path)
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if len(tensor.dims) < 2:
            continue
        raw = tensor.raw_data
        place = path.parent / location
        place.parent.mkdir(parents=True, exist_ok=True)
        start = place.stat().st_size if place.exists() else 0
        with place.open("ab") as file:
            file.write(raw)
        onnx.external_data_helper.set_external_data(tensor, location, start, len(raw))
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_may_lie_beside_the_file_and_nowhere_else(tmp_path: Path, session: Session) -> None:
    expected = session.run(feeds([[1, 7, 2]]), ["logits"])["logits"]
    whole = with_data_elsewhere(tmp_path / "a" / "model.onnx", "model.onnx_data")
    found = open_session(whole, options(whole)).run(feeds([[1, 7, 2]]), ["logits"])["logits"]
    assert (found == expected).all()
    outside = with_data_elsewhere(tmp_path / "b" / "model.onnx", "../stolen.bin")
    with pytest.raises(ModelLoadError, match=r"cannot load `model\.onnx`"):
        open_session(outside, options(outside))


def test_nodes_are_read_without_the_library_that_wrote_them(graph: Path, tmp_path: Path) -> None:
    nodes = [(node.name, node.op_type) for node in onnx.load(graph).graph.node]
    assert first_nodes(graph, 100) == nodes
    assert first_nodes(graph, 3) == nodes[:3]
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(graph.read_bytes()[:-40])
    with pytest.raises(ModelLoadError, match="no ONNX file, or not whole"):
        first_nodes(cut, 100)


def test_a_tensorrt_engine_says_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "model.engine"
    path.write_bytes(b"engine")
    with pytest.raises(DriverMissing, match=r"`model\.engine` is a TensorRT engine: .*tensorrt") as caught:
        open_session(path, options(path))
    assert "`format: onnx` runs everywhere" in (caught.value.hint or "")
    with pytest.raises(ModelLoadError, match="`device: cpu` is no NVIDIA GPU"):
        open_session(path, options(path, device="cpu"))
    assert graph_of(folder_options(tmp_path, "tensorrt")) == path
