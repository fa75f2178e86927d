"""What is an engine that computes one fixed graph, to the tasks that use it?

An ONNX file and a TensorRT engine both have inputs and outputs with names and shapes, and nothing that says
what they mean: tasks look for the names that exporters use, when the model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from model_compose.drivers.contract import LoadOptions, ModelInfo
from model_compose.drivers.custom.spec import CustomOptions
from model_compose.errors import ModelLoadError
from model_compose.sources.spec import Format, format_of_name

Array: TypeAlias = NDArray[Any]

#: Where exporters such as optimum put the graph, below the folder with the tokenizer and the configuration.
_FOLDER: Final = "onnx"


class Port(NamedTuple):
    """An input or an output.

    shape  None in it is a size that differs from call to call
    dtype  its numbers; None: no tensor of numbers
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any] | None

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"`{self.name}` {self.dtype or 'no tensor'} [{sizes}]"


class Session(Protocol):
    """A loaded graph.

    path      its file
    metadata  what its exporter wrote into it
    details   shown by `ps`
    on_cpu    it computes with CPU threads
    """

    path: Path
    inputs: dict[str, Port]
    outputs: dict[str, Port]
    metadata: dict[str, str]
    details: dict[str, str]
    on_cpu: bool

    def run(self, feeds: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        """The wanted outputs; what is fed is converted to the numbers that the graph takes.

        Raises OutOfMemory, EngineError.
        """


def open_session(path: Path, options: LoadOptions) -> Session:
    """Load a graph with the engine that its file is for. Raises ModelLoadError, DriverMissing."""
    for key, value in (("precision", options.precision), ("quantization", options.quantization)):
        if value not in (None, "auto"):
            raise ModelLoadError(
                f"`{key}` cannot be chosen: `{path.name}` was exported with the one that it has",
                hint=f"leave `{key}` out, or choose another file",
            )
    if format_of_name(path.name) == "tensorrt":
        from model_compose.drivers.custom.tensorrt import TensorRtSession

        return TensorRtSession.load(path, options)
    from model_compose.drivers.custom.onnx import OnnxSession

    return OnnxSession.load(path, options)


def driver_options(options: LoadOptions) -> CustomOptions:
    """The driver's own settings."""
    return msgspec.convert(options.options, CustomOptions)


def info_of(session: Session, options: LoadOptions, context_length: int | None = None) -> ModelInfo:
    """What a model on top of a session says of itself; the threads of a session are fixed."""
    return ModelInfo(
        slots=1,
        threads=options.threads if session.on_cpu else 1,
        elastic=False,
        context_length=context_length,
        details=session.details,
    )


def graph_of(options: LoadOptions) -> Path:
    """The file of the graph: the one that is named, or the only one in a folder. Raises ModelLoadError."""
    if options.source is None:
        raise ModelLoadError("`model` is missing: which ONNX file is it?", hint="such as `./model.onnx`")
    path = Path(options.source.path)
    if path.is_file():
        if format_of_name(path.name) not in ("onnx", "tensorrt"):
            raise ModelLoadError(
                f"`{options.source.origin}` is no ONNX file and no TensorRT engine",
                hint="for other weights of this task leave `driver: custom` out",
            )
        return path
    found = _graphs(path, "tensorrt" if options.source.format == "tensorrt" else "onnx")
    if len(found) == 1:
        return found[0]
    names = [f"`{file.relative_to(path).as_posix()}`" for file in found]
    if not names:
        raise ModelLoadError(
            f"`{options.source.origin}` has no ONNX file",
            hint="`optimum-cli export onnx` writes one; it is looked for in the folder and in its `onnx/`",
        )
    raise ModelLoadError(
        f"`{options.source.origin}` has several ONNX files: {', '.join(names)}",
        hint=f"name one of them: `model: {options.source.origin.rstrip('/')}/{names[0].strip('`')}`",
    )


def _graphs(folder: Path, form: Format) -> list[Path]:
    """Files of a format in a folder and in the one below it that exporters use."""
    places = (folder, folder / _FOLDER)
    return [
        file
        for place in places
        if place.is_dir()
        for file in sorted(place.iterdir())
        if file.is_file() and format_of_name(file.name) == form
    ]


def beside(graph: Path, name: str) -> Path | None:
    """A file that belongs to a graph, such as its tokenizer; it may lie above the folder `onnx`."""
    places = [graph.parent, graph.parent.parent] if graph.parent.name == _FOLDER else [graph.parent]
    return next((place / name for place in places if (place / name).is_file()), None)


def unfit(session: Session, problem: str) -> ModelLoadError:
    """The error for a graph that is not what a task needs: it lists what the graph has."""
    inputs = ", ".join(map(str, session.inputs.values()))
    outputs = ", ".join(map(str, session.outputs.values()))
    return ModelLoadError(
        f"`{session.path.name}` {problem}", hint=f"it has the inputs {inputs} and the outputs {outputs}"
    )
