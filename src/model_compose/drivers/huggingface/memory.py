"""Did memory run out, how much was there, and how is it let go?

PyTorch says so in several ways: a class of its own for the memory of a GPU, texts of a RuntimeError for
that of the CPU and for what libraries below it need.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
import traceback
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

import torch

from model_compose.drivers.contract import DeviceMemory
from model_compose.errors import OutOfMemory

#: Texts of a RuntimeError: the CPU's allocator, CUDA below the allocator, cuBLAS, and Metal.
_TEXTS: Final = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "Invalid buffer size",
)
_SIZE: Final = r"(\d+(?:\.\d+)?) ?(bytes|[KMG]iB)"
_NEEDED: Final = re.compile(rf"(?:tried to allocate|buffer size:) {_SIZE}", re.IGNORECASE)
_FREE: Final = re.compile(rf"of which {_SIZE} is free")
_GPU: Final = re.compile(r"\bGPU (\d+) has a total capacity")
_UNITS: Final = {"bytes": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}

#: Start, end and file of a mapping, and how much of it was written to.
_MAPPING: Final = re.compile(
    r"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ +(/.*)\n(?:\w.*\n)*?Anonymous: +(\d+) kB$", re.MULTILINE
)
_DONT_NEED: Final = 4

_HINT: Final = "lower `batch_size`, shorten the input, or choose a smaller model or a `quantization`"


def out_of_memory(error: BaseException, device: torch.device | str | None = None) -> OutOfMemory | None:
    """The error as ours if it says that memory ran out, None if it says anything else.

    It does not refer to the original, whose traceback holds the tensors that took the memory.

    device  where it was computed, if the error does not say it; None: where this process does by default
    """
    if isinstance(error, OutOfMemory):
        return error
    text = str(error)
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    if not known and not (isinstance(error, RuntimeError) and any(each in text for each in _TEXTS)):
        return None
    # A model on a GPU needs RAM too, and the message tells which of the two it was.
    host = "DefaultCPUAllocator" in text or isinstance(error, MemoryError)
    where = torch.device("cpu") if host else _told(text, device)
    needed, free = _bytes(_NEEDED.search(text)), _bytes(_FREE.search(text))
    free = _free(where) if free is None else free
    parts = [f"{_size(needed)} were asked for"] if needed is not None else []
    parts += [f"{_size(free)} are free"] if free is not None else []
    told = f": {', and '.join(parts)}" if parts else ""
    return OutOfMemory(
        f"out of memory on `{where}`{told}",
        needed_bytes=needed,
        free_bytes=free,
        pool=str(where) if where.type == "cuda" else "host",
        hint=_HINT,
    )


def _told(text: str, device: torch.device | str | None) -> torch.device:
    """The device of which an error speaks."""
    named = _GPU.search(text)
    if named is not None:  # a model may be spread over several
        return torch.device(f"cuda:{named[1]}")
    if device is not None:
        return torch.device(device)
    if "CPU" in text or not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return torch.device("cpu")
    return torch.device(f"cuda:{torch.cuda.current_device()}")


@contextlib.contextmanager
def memory_guarded(device: torch.device | str) -> Iterator[None]:
    """Around a forward pass: raises OutOfMemory when memory runs out in it, and lets go of what it took."""
    try:
        yield
    except Exception as error:
        ours = out_of_memory(error, device)
        if ours is None or ours is error:
            raise
        # The tensors of the pass live in its frames until nobody looks at the traceback any more.
        traceback.clear_frames(error.__traceback__)
    else:
        return
    release(device)
    raise ours


def release(device: torch.device | str) -> None:
    """Give back what nothing refers to any more, to the device and to other processes."""
    gc.collect()
    match torch.device(device).type:
        case "cuda":
            torch.cuda.empty_cache()
        case "mps":
            torch.mps.empty_cache()


def release_mapped(files: Collection[str]) -> None:
    """Give back the pages of weights that are mapped from these files, and that nobody has changed.

    What was converted from them is not needed any more; what is used as it lies there comes back when it is
    touched, from the file. Does nothing where the kernel does not tell (other systems than Linux).
    """
    try:
        mappings = _MAPPING.findall(Path("/proc/self/smaps").read_text())
    except OSError:
        return
    libc = ctypes.CDLL(None)
    for start, end, path, changed_kb in mappings:
        if path in files and changed_kb == "0":
            begin = int(start, 16)
            libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(int(end, 16) - begin), _DONT_NEED)


def taken() -> dict[str, int]:
    """Bytes that PyTorch holds of each GPU in this process, by pool; RAM is measured by others."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return {}
    held = {f"cuda:{i}": torch.cuda.memory_reserved(i) for i in range(torch.cuda.device_count())}
    return {pool: n_bytes for pool, n_bytes in held.items() if n_bytes}


def devices() -> dict[str, DeviceMemory] | None:
    """The GPUs that hold something of this process: asking others would take memory of them.

    Empty if there are none to be used; None if there are, and this process holds nothing there.
    """
    if not torch.cuda.is_available():
        return {}
    found = {pool: (*torch.cuda.mem_get_info(pool), held) for pool, held in taken().items()}
    return {pool: DeviceMemory(total, free, held) for pool, (free, total, held) in found.items()} or None


def _bytes(found: re.Match[str] | None) -> int | None:
    return None if found is None else int(float(found[1]) * _UNITS[found[2].lower()])


def _free(device: torch.device) -> int | None:
    """Bytes that are free now, None where nobody says."""
    if device.type == "cuda":
        try:
            return torch.cuda.mem_get_info(device)[0]
        except (RuntimeError, AssertionError):  # after some failures CUDA answers nothing any more
            return None
    return _available() if device.type == "cpu" else None


def _available() -> int | None:
    """RAM that can be had without pushing out what others use; in a container, no more than its limit."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):  # no container, or one without a limit
        return free
    return max(0, limit - used) if free is None else max(0, min(free, limit - used))


def _size(n_bytes: int) -> str:
    return f"{n_bytes / (1 << 30):.2f} GiB" if n_bytes >= 1 << 30 else f"{n_bytes / (1 << 20):.1f} MiB"
