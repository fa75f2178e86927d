"""How much memory does this process, and does this machine, have, and did it run out?"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from model_compose.drivers.contract import DeviceMemory
from model_compose.errors import OutOfMemory


def out_of_memory(error: BaseException) -> OutOfMemory | None:
    """The error as ours if it says that memory ran out, as Python or PyTorch do; None for any other."""
    if "torch" in sys.modules:
        from model_compose.drivers.huggingface import memory

        return memory.out_of_memory(error)
    if isinstance(error, OutOfMemory):
        return error
    return OutOfMemory.of(error) if isinstance(error, MemoryError) else None


def devices() -> dict[str, DeviceMemory] | None:
    """The GPUs that this process is on, if PyTorch is there to say it; empty if there are none."""
    if "torch" not in sys.modules:
        return None
    from model_compose.drivers.huggingface import memory

    return memory.devices()


def resident_bytes() -> int:
    """Memory of this process that lies in RAM, weights that are mapped from files included."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return pages * os.sysconf("SC_PAGE_SIZE")


def installed_bytes() -> int:
    """RAM of the machine, or of the container if that has a limit."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return total
    return total if limit == "max" else min(total, int(limit))


def cores() -> int:
    """CPU cores that this process may use, a container's CPU quota included; at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return count
    return count if quota == "max" else max(1, min(count, round(int(quota) / int(period))))
