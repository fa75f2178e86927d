"""How does onnxruntime compute the graph in an ONNX file?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from model_compose.about import install_command
from model_compose.drivers.contract import LoadOptions
from model_compose.drivers.custom.session import Array, Port, driver_options
from model_compose.errors import DriverMissing, EngineError, ModelLoadError, OutOfMemory

_CPU: Final = "CPUExecutionProvider"
#: By the kind of device; what a provider cannot compute goes to the CPU's.
_PROVIDERS: Final = {"cuda": "CUDAExecutionProvider", "mps": "CoreMLExecutionProvider"}
_DTYPES: Final = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "int64": "int64",
    "uint8": "uint8",
    "bool": "bool",
}
_TENSOR: Final = re.compile(r"tensor\((\w+)\)")
#: The library's texts for it: its own allocator, that of C++, CUDA and cuBLAS.
_OUT_OF_MEMORY: Final = re.compile(
    r"failed to allocate memory|bad_alloc|bad allocation|out of memory|CUBLAS_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
_CODE: Final = re.compile(r"^.*?\[ONNXRuntimeError\] : \d+ : \w+ : ")
_NEEDED: Final = re.compile(r"requested buffer of size (\d+)")
_QUIET: Final = 3  # errors only

#: A name, or a name with its settings.
Provider: TypeAlias = str | tuple[str, dict[str, Any]]


class OnnxSession:
    """A `Session` on onnxruntime. Its number of threads is fixed when it is loaded."""

    def __init__(self, inner: Any, path: Path, details: dict[str, str]) -> None:
        self.path = path
        self.details = details
        self.inputs = _ports(inner.get_inputs())
        self.outputs = _ports(inner.get_outputs())
        self.metadata = dict(inner.get_modelmeta().custom_metadata_map)
        self.on_cpu = inner.get_providers()[0] == _CPU
        self._inner = inner

    @classmethod
    def load(cls, path: Path, options: LoadOptions) -> OnnxSession:
        """Load a file on the device asked for. Raises ModelLoadError, DriverMissing."""
        try:
            import onnxruntime
        except ImportError as error:
            raise DriverMissing(
                f"`onnxruntime` cannot be imported: {error}", hint=install_command("onnx")
            ) from error
        wanted = _providers(options, onnxruntime.get_available_providers())
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = _QUIET
        # Threads that spin while they wait for work would take it from other models.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            inner = onnxruntime.InferenceSession(path, settings, providers=wanted)
        except Exception as error:  # the library has a class for each of its codes, with nothing in common
            raise ModelLoadError(
                f"onnxruntime cannot load `{path.name}`: {_reason(error)}",
                hint="is the file whole? external data (`.onnx_data`) lies in the same folder",
            ) from error
        names = [each if isinstance(each, str) else each[0] for each in wanted]
        _require(names, inner.get_providers(), options)
        details = {
            "engine": f"onnxruntime {onnxruntime.__version__}",
            "device": _device_of(inner.get_providers(), options),
            "file": path.name,
        }
        return cls(inner, path, details)

    def run(self, feeds: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        """Compute. Raises OutOfMemory, EngineError."""
        cast = {
            name: np.ascontiguousarray(feed, dtype=self.inputs[name].dtype) for name, feed in feeds.items()
        }
        try:
            found = self._inner.run(list(wanted), cast)
        except Exception as error:
            raise _told(error) from error
        return dict(zip(wanted, found, strict=True))


def _ports(found: Sequence[Any]) -> dict[str, Port]:
    return {each.name: Port(each.name, _shape(each.shape), _dtype(each.type)) for each in found}


def _shape(sizes: Sequence[Any] | None) -> tuple[int | None, ...]:
    """Sizes that have a name, or nothing at all, differ from call to call."""
    return tuple(size if isinstance(size, int) and size > 0 else None for size in sizes or ())


def _dtype(kind: str) -> np.dtype[Any] | None:
    found = _TENSOR.fullmatch(kind)
    return np.dtype(_DTYPES[found[1]]) if found and found[1] in _DTYPES else None


def _providers(options: LoadOptions, there: Sequence[str]) -> list[Provider]:
    """The execution providers to load with, in order. Raises ModelLoadError for one that is not there."""
    own = driver_options(options).providers
    if own:
        missing = [name for name in own if name not in there]
        if missing:
            raise _no_provider(f"`options.providers` names `{missing[0]}`", there)
        return list(own)
    kind, _, number = options.device.partition(":")
    if kind == "auto":
        found = next((name for name in _PROVIDERS.values() if name in there), None)
        return [_CPU] if found is None else [found, _CPU]
    if kind == "cpu":
        return [_CPU]
    name = _PROVIDERS.get(kind, kind)
    if name not in there:
        raise _no_provider(f"`device: {options.device}` needs `{name}`", there)
    return [(name, {"device_id": number}) if number else name, _CPU]


def _no_provider(need: str, there: Sequence[str]) -> ModelLoadError:
    names = ", ".join(f"`{name}`" for name in there)
    return ModelLoadError(
        f"{need}, which the installed onnxruntime does not have",
        hint=f"it has {names}; `onnxruntime-gpu` in its place has that for CUDA",
    )


def _require(wanted: Sequence[str], got: Sequence[str], options: LoadOptions) -> None:
    """The library goes on without a provider that cannot start, such as CUDA without a GPU."""
    lost = [name for name in wanted if name not in got]
    if lost and (options.device != "auto" or driver_options(options).providers):
        raise ModelLoadError(
            f"`{lost[0]}` does not start on this machine",
            hint="is there a GPU, with the CUDA and cuDNN libraries that this onnxruntime was built for?",
        )


def _device_of(providers: Sequence[str], options: LoadOptions) -> str:
    first = providers[0]
    kind = next((kind for kind, name in _PROVIDERS.items() if name == first), None)
    if kind is None:
        return "cpu" if first == _CPU else first
    return options.device if options.device.startswith(kind) else kind


def _told(error: Exception) -> EngineError:
    text = _reason(error)
    if not _OUT_OF_MEMORY.search(str(error)):
        return EngineError(f"onnxruntime: {text}")
    needed = _NEEDED.search(str(error))
    return OutOfMemory(
        f"out of memory: {text}",
        needed_bytes=int(needed[1]) if needed else None,
        hint="lower `batch_size`, or shorten the input",
    )


def _reason(error: Exception) -> str:
    """The library's own words, without its code."""
    lines = str(error).strip().splitlines()
    return _CODE.sub("", lines[0]) if lines else type(error).__name__
