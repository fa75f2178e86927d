"""Is memory that ran out told as that, with numbers, and is it let go? With real failures on the CPU."""

from __future__ import annotations

import mmap
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from model_compose.drivers.huggingface import memory
from model_compose.errors import OutOfMemory

#: More than any address space has: the allocator refuses it, whatever the machine.
TOO_MUCH = 1 << 50


def raised(work: Any) -> Exception:
    try:
        work()
    except Exception as error:  # noqa: BLE001  whatever it is
        return error
    raise AssertionError("it had the memory")


def test_the_cpu_s_allocator_is_understood_and_both_numbers_are_told() -> None:
    error = memory.out_of_memory(raised(lambda: torch.empty(TOO_MUCH, dtype=torch.uint8)), "cpu")
    assert error is not None
    assert error.needed_bytes == TOO_MUCH
    assert error.free_bytes is not None
    assert 0 < error.free_bytes < TOO_MUCH
    assert error.message.startswith("out of memory on `cpu`: 1048576.00 GiB were asked for, and ")
    assert error.message.endswith(" are free")
    assert error.hint is not None
    assert "`batch_size`" in error.hint


@pytest.mark.parametrize(
    ("error", "device", "needed", "free", "where"),
    [
        (
            torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB of "
                "which 5.50 GiB is free. Including non-PyTorch memory, this process has 73.60 GiB."
            ),
            "cuda:0",
            20 << 30,
            int(5.5 * (1 << 30)),
            "cuda:0",
        ),
        (
            RuntimeError(
                "MPS backend out of memory (MPS allocated: 15.29 GiB, other allocations: 360.28 MiB, max "
                "allowed: 18.13 GiB). Tried to allocate 512.00 MiB on private pool."
            ),
            "mps",
            512 << 20,
            None,
            "mps",
        ),
        (RuntimeError("Invalid buffer size: 20.00 GiB"), "mps", 20 << 30, None, "mps"),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] data. DefaultCPUAllocator: not enough memory: you tried "
                "to allocate 4096 bytes."
            ),
            "cuda:0",
            4096,
            ...,
            "cpu",
        ),
    ],
    ids=["cuda", "mps", "a buffer of mps", "RAM beside a gpu"],
)
def test_what_each_device_says_is_understood(
    error: Exception, device: str, needed: int, free: Any, where: str
) -> None:
    ours = memory.out_of_memory(error, device)
    assert ours is not None
    assert ours.needed_bytes == needed
    assert ours.free_bytes == free or (free is ... and ours.free_bytes)
    assert f"on `{where}`" in ours.message


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other call",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_libraries_below_say_no_numbers_and_are_understood_too(text: str) -> None:
    ours = memory.out_of_memory(RuntimeError(text), "cuda:0")
    assert ours is not None
    assert ours.needed_bytes is None


def test_python_s_own_error_counts() -> None:
    ours = memory.out_of_memory(raised(lambda: bytearray(1 << 62)), "cuda:0")
    assert ours is not None
    assert "on `cpu`" in ours.message


@pytest.mark.parametrize(
    "error",
    [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory"), KeyError()],
)
def test_other_errors_are_none_of_it(error: Exception) -> None:
    assert memory.out_of_memory(error, "cpu") is None


def test_a_guarded_pass_lets_go_of_what_it_took_before_it_ends() -> None:
    kept: list[weakref.ref[Any]] = []

    def forward() -> None:
        hidden = torch.zeros(1000)
        kept.append(weakref.ref(hidden))
        torch.empty(TOO_MUCH)

    def guarded() -> None:
        with memory.memory_guarded("cpu"):
            forward()

    error = raised(guarded)
    assert isinstance(error, OutOfMemory)
    assert error.__cause__ is None
    assert kept[0]() is None, "the tensor lives on"


def test_a_guarded_pass_that_ends_otherwise_is_left_alone() -> None:
    with memory.memory_guarded("cpu"):
        assert torch.ones(2).sum() == 2
    with pytest.raises(ValueError, match="something else"), memory.memory_guarded("cpu"):
        raise ValueError("something else")
    ours = OutOfMemory("said before")
    with pytest.raises(OutOfMemory) as caught, memory.memory_guarded("cpu"):
        raise ours
    assert caught.value is ours


def test_without_a_gpu_nothing_is_taken_of_one() -> None:
    if not torch.cuda.is_available():
        assert memory.taken() == {}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_gpu_says_what_is_needed_and_free_and_goes_on() -> None:
    with pytest.raises(OutOfMemory) as caught, memory.memory_guarded("cuda:0"):
        torch.empty(1 << 45, dtype=torch.uint8, device="cuda:0")
    assert caught.value.needed_bytes == 1 << 45
    assert 0 < (caught.value.free_bytes or 0) < 1 << 45
    held = torch.ones(1 << 20, device="cuda:0")
    assert held.sum() == 1 << 20
    assert memory.taken()["cuda:0"] >= held.nbytes


def test_pages_of_a_file_that_was_read_are_given_back_and_changed_ones_stay(tmp_path: Path) -> None:
    inside, outside, changed = (tmp_path / name for name in ("a.bin", "b.bin", "c.bin"))
    maps = {}
    for path in (inside, outside, changed):
        path.write_bytes(b"x" * (8 << 20))
        with path.open("rb") as file:
            maps[path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        assert maps[path].find(b"y") == -1  # every page was read
    maps[changed][0] = ord("z")
    assert all(_resident_kb(path) > 4096 for path in maps)
    memory.release_mapped({str(inside), str(changed)})
    assert _resident_kb(inside) == 0
    assert _resident_kb(outside) > 4096
    assert maps[changed][:2] == b"zx"
    assert maps[inside][-1] == ord("x")  # it comes back when it is touched


def _resident_kb(path: Path) -> int:
    found = Path("/proc/self/smaps").read_text().split(f"{path}\n")[1]
    return int(found.split("Rss:")[1].split()[0])
