"""How does TensorRT compute an engine that was built for this GPU?

Unverified: there was no machine with TensorRT to run this on. What is tested is what it says without one.
Source: NVIDIA TensorRT 10, Python API (`ICudaEngine`, `IExecutionContext.execute_async_v3`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from model_compose.drivers.contract import LoadOptions
from model_compose.drivers.custom.session import Array, Port
from model_compose.errors import DriverMissing, EngineError, ModelLoadError, OutOfMemory

_HINT: Final = (
    "install NVIDIA's `tensorrt` (the version that built the engine) and `torch` with CUDA, or export the "
    "model as ONNX: `format: onnx` runs everywhere"
)


class TensorRtSession:
    """A `Session` on TensorRT. PyTorch owns the memory on the GPU and the stream."""

    on_cpu = False

    def __init__(self, trt: Any, torch: Any, engine: Any, path: Path, device: str) -> None:
        self.path = path
        self.metadata: dict[str, str] = {}
        self.details = {"engine": f"tensorrt {trt.__version__}", "device": device, "file": path.name}
        self._trt, self._torch, self._device = trt, torch, device
        self._engine = engine  # a context does not keep it alive
        self._context = engine.create_execution_context()
        self._stream = torch.cuda.Stream(device)
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self.inputs = {name: self._port(name) for name in inputs}
        self.outputs = {name: self._port(name) for name in names if name not in inputs}

    @classmethod
    def load(cls, path: Path, options: LoadOptions) -> TensorRtSession:
        """Load an engine. Raises DriverMissing without the library, ModelLoadError without the GPU."""
        if options.device != "auto" and not options.device.startswith("cuda"):
            raise ModelLoadError(
                f"`{path.name}` is a TensorRT engine, and `device: {options.device}` is no NVIDIA GPU",
                hint="leave `device` out, or write `device: cuda`",
            )
        try:
            import tensorrt as trt
            import torch
        except ImportError as error:
            raise DriverMissing(f"`{path.name}` is a TensorRT engine: {error}", hint=_HINT) from error
        if not torch.cuda.is_available():
            raise ModelLoadError(
                f"`{path.name}` is a TensorRT engine, and PyTorch finds no NVIDIA GPU here", hint=_HINT
            )
        device = "cuda:0" if options.device in ("auto", "cuda") else options.device
        logger = trt.Logger(trt.Logger.WARNING)
        with torch.cuda.device(device):
            engine = trt.Runtime(logger).deserialize_cuda_engine(path.read_bytes())
            if engine is None:
                raise ModelLoadError(
                    f"TensorRT {trt.__version__} cannot load `{path.name}`",
                    hint="an engine runs on the GPU and the version of TensorRT that it was built for",
                )
            return cls(trt, torch, engine, path, device)

    def _port(self, name: str) -> Port:
        shape = tuple(size if size > 0 else None for size in self._engine.get_tensor_shape(name))
        return Port(name, shape, np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name))))

    def run(self, feeds: Mapping[str, Array], wanted: Sequence[str]) -> dict[str, Array]:
        """Compute. Raises OutOfMemory, EngineError."""
        torch = self._torch
        try:
            with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
                kept = [self._fed(name, feed) for name, feed in feeds.items()]
                made = {name: self._room(name) for name in self.outputs}
                if not self._context.execute_async_v3(self._stream.cuda_stream):
                    raise EngineError(f"TensorRT could not compute `{self.path.name}`")
                self._stream.synchronize()
                del kept  # the GPU has read it
            return {name: made[name].cpu().numpy() for name in wanted}
        except torch.cuda.OutOfMemoryError as error:
            where = str(self._device)
            raise OutOfMemory(f"out of memory on `{where}`", pool=where, hint="lower `batch_size`") from error

    def _fed(self, name: str, feed: Array) -> Any:
        tensor = self._torch.from_numpy(np.ascontiguousarray(feed, self.inputs[name].dtype)).to(self._device)
        if not self._context.set_input_shape(name, tuple(tensor.shape)):
            raise EngineError(
                f"`{self.path.name}` was not built for `{name}` of the shape {list(tensor.shape)}",
                hint="lower `batch_size` or `max_seq_length` to what its optimization profile has",
            )
        self._context.set_tensor_address(name, tensor.data_ptr())
        return tensor

    def _room(self, name: str) -> Any:
        """Memory for an output, whose shape follows from those of the inputs."""
        dtype = self._torch.from_numpy(np.empty(0, self.outputs[name].dtype)).dtype
        room = self._torch.empty(
            tuple(self._context.get_tensor_shape(name)), dtype=dtype, device=self._device
        )
        self._context.set_tensor_address(name, room.data_ptr())
        return room
